"""Tasks that tell their criterion how far training is."""

from fairseq_plugins.tasks import direct_loss_translation, sequence_tagging  # noqa: F401
