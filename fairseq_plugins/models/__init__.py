"""Models whose decoding can be trained through."""

from fairseq_plugins.models import (  # noqa: F401
    fixed_attention_lstm,
    fixed_attention_pretrained,
    fixed_attention_transformer,
)
