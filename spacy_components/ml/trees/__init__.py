"""Dependency parsers: scorers, decisions, losses and thinc architectures."""
