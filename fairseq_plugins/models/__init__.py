"""Models whose decoding can be trained through."""

from fairseq_plugins.models import fixed_attention_lstm  # noqa: F401
