"""Tasks that tell their criterion how far training is."""

from fairseq_plugins.tasks import tagging, translation  # noqa: F401
