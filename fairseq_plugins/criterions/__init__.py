"""Criterions that train through decoding."""

from fairseq_plugins.criterions import scheduled_sampling, soft_beam  # noqa: F401
