"""Scorers for fairseq-generate ``--scoring``."""

from fairseq_plugins.scoring import conll_f1  # noqa: F401
