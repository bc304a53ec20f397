"""Tagging: as many labels as words."""

from fairseq_plugins.tasks.tagging import task  # noqa: F401
