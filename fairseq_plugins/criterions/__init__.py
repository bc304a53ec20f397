"""Criterions that train through decoding."""

from fairseq_plugins.criterions import minimum_risk, scheduled_sampling, soft_beam  # noqa: F401
