"""Tasks that tell their criterion how far training is."""

from fairseq_plugins.tasks import sequence_tagging  # noqa: F401
