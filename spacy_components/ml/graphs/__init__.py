"""Semantic dependency parsers: scorers, decisions, losses and thinc architectures."""
