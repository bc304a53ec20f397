"""Parsers that were trained with Stanza, as models of ``spigot_parser``."""
