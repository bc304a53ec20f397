"""Models whose decoding can be trained through."""

from fairseq_plugins.models import fixed_attention_lstm, fixed_attention_transformer  # noqa: F401
