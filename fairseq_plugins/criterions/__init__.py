"""Criterions that train through decoding."""

from fairseq_plugins.criterions import soft_beam  # noqa: F401
