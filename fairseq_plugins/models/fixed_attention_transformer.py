"""The sequence labeller with fixed attention, whose words are read by a Transformer (Vaswani et al. 2017).

Self-attention takes the place of the bidirectional LSTM; the decoder is that of ``fixed_attention_lstm``.
"""

from dataclasses import dataclass

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderDecoderModel, register_model
from fairseq.models.lstm import Linear
from fairseq.modules import SinusoidalPositionalEmbedding
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_plugins.models.fixed_attention_lstm import (
    FixedAttentionConfig,
    WordStatesEncoder,
    label_decoder,
    right_padded,
)
from fairseq_plugins.options import option
from fairseq_plugins.words import WordEmbedding, word_embedding


@dataclass
class FixedAttentionTransformerConfig(FixedAttentionConfig):
    encoder_hidden_size: int = option(128, "size of the encoder's states", "ours")
    encoder_layers: int = option(2, "layers of the encoder", "ours")
    encoder_attention_heads: int = option(4, "heads of the self-attention", "Vaswani et al. 2017, 3.2.2")
    encoder_ffn_embed_dim: int = option(
        512, "size of the hidden layer between two attentions", "Vaswani et al. 2017, 3.3"
    )


@register_model("fixed_attention_transformer", dataclass=FixedAttentionTransformerConfig)
class FixedAttentionTransformerModel(FairseqEncoderDecoderModel):
    """Transformer encoder, LSTM decoder with fixed attention."""

    @classmethod
    def build_model(
        cls, cfg: FixedAttentionTransformerConfig, task: FairseqTask
    ) -> "FixedAttentionTransformerModel":
        """A model of the sizes ``cfg`` for the dictionaries of the task."""
        encoder = FixedAttentionTransformerEncoder(
            task.source_dictionary,
            word_embedding(cfg, task.source_dictionary),
            cfg.encoder_hidden_size,
            cfg.encoder_layers,
            cfg.encoder_attention_heads,
            cfg.encoder_ffn_embed_dim,
            cfg.dropout,
        )
        return cls(encoder, label_decoder(cfg, task.target_dictionary, encoder.output_units))


class FixedAttentionTransformerEncoder(WordStatesEncoder):
    """Self-attention over the words: layers that normalise first, and sinusoidal positions.

    ``forward`` returns ``{"states": [T, B, H]}`` with H = *hidden_size*, right-padded whatever side
    *src_tokens* is padded on.

    Raises:
        ValueError: a size that the number of heads does not divide.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        embed_tokens: WordEmbedding,
        hidden_size: int = 128,
        num_layers: int = 2,
        heads: int = 4,
        ffn_size: int = 512,
        dropout: float = 0.1,
    ):
        super().__init__(dictionary)
        if heads < 1 or hidden_size % heads:
            raise ValueError(
                f"--encoder-attention-heads {heads} must divide --encoder-hidden-size {hidden_size}"
            )
        self.padding_idx = dictionary.pad()
        self.output_units = hidden_size
        self.embed_tokens = embed_tokens
        self.dropout = nn.Dropout(dropout)
        self.project = Linear(embed_tokens.output_dim, hidden_size)
        self.positions = SinusoidalPositionalEmbedding(hidden_size, self.padding_idx, init_size=256)
        layer = nn.TransformerEncoderLayer(
            hidden_size, heads, ffn_size, dropout, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(hidden_size)
        self.layers = nn.TransformerEncoder(layer, num_layers, norm, enable_nested_tensor=False)
        for weight in self.layers.parameters():
            if weight.dim() > 1:  # torch begins with the same weights in every layer
                nn.init.xavier_uniform_(weight)

    def forward(self, src_tokens: Tensor, src_lengths: Tensor, **unused) -> dict[str, Tensor]:
        """Encode *src_tokens* ``[B, T]`` of *src_lengths* ``[B]`` words."""
        src_tokens = right_padded(src_tokens, self.padding_idx)
        # An empty sentence in a batch (possible when words are typed in) is read as one padding symbol.
        places = torch.arange(src_tokens.size(1), device=src_tokens.device)
        outside = places >= src_lengths.clamp(min=1)[:, None]
        x = self.project(self.dropout(self.embed_tokens(src_tokens)))
        x = self.dropout(x + self.positions(src_tokens))
        x = self.layers(x, src_key_padding_mask=outside).masked_fill(outside[..., None], 0.0)
        return {"states": self.dropout(x).transpose(0, 1)}
