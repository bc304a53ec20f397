"""Small fairseq models without data, for tests of the step decoders and criterions."""

from argparse import Namespace

import torch
from fairseq.data import Dictionary
from fairseq.models.bart import BARTModel
from fairseq.models.bart.model import bart_base_architecture
from fairseq.models.lstm import LSTMModel
from fairseq.models.lstm import base_architecture as lstm_base
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer import base_architecture as transformer_base
from fairseq.models.transformer_align import TransformerAlignModel

from fairseq_plugins.models.fixed_attention_lstm import FixedAttentionLSTMConfig, FixedAttentionLSTMModel
from fairseq_plugins.models.fixed_attention_transformer import (
    FixedAttentionTransformerConfig,
    FixedAttentionTransformerModel,
)

SMALL_TRANSFORMER = {
    "encoder_embed_dim": 16,
    "decoder_embed_dim": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_embed_dim": 32,
    "decoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_source_positions": 64,
    "max_target_positions": 64,
    "dropout": 0.0,
}
SMALL_LSTM = {
    "encoder_embed_dim": 16,
    "decoder_embed_dim": 16,
    "decoder_out_embed_dim": 16,
    "encoder_hidden_size": 16,
    "decoder_hidden_size": 16,
    "dropout": 0.0,
    "criterion": "cross_entropy",
}


def dictionary(words: int = 20) -> Dictionary:
    """Symbols w0 ... after fairseq's four special ones."""
    found = Dictionary()
    for word in range(words):
        found.add_symbol(f"w{word}")
    return found


def spread(model, scale: float = 3.0):
    """Larger weights than fairseq's initial ones, so that scores differ clearly."""
    for parameter in model.parameters():
        parameter.data.mul_(scale)
    return model.eval()


def transformer(**options):
    torch.manual_seed(0)
    words = dictionary()
    args = Namespace(**{**SMALL_TRANSFORMER, **options})
    transformer_base(args)
    return TransformerModel.build_model(args, Namespace(source_dictionary=words, target_dictionary=words))


def bart():
    """Learned positions, ``layernorm_embedding``, GELU, one embedding for everything, no scaling of it."""
    torch.manual_seed(0)
    words = dictionary()
    args = Namespace(**SMALL_TRANSFORMER, attention_dropout=0.0, relu_dropout=0.0, pooler_dropout=0.0)
    bart_base_architecture(args)
    return BARTModel.build_model(args, Namespace(source_dictionary=words, target_dictionary=words))


def transformer_align():
    """One head of the last layer is trained to align words."""
    torch.manual_seed(0)
    words = dictionary()
    args = Namespace(**SMALL_TRANSFORMER, alignment_heads=1, alignment_layer=1)
    transformer_base(args)
    task = Namespace(source_dictionary=words, target_dictionary=words)
    return TransformerAlignModel.build_model(args, task)


def lstm(**options):
    torch.manual_seed(0)
    words = dictionary()
    args = Namespace(**{**SMALL_LSTM, **options})
    lstm_base(args)
    return LSTMModel.build_model(args, Namespace(source_dictionary=words, target_dictionary=words))


def tagger(**options):
    torch.manual_seed(0)
    config = FixedAttentionLSTMConfig(dropout=0.0, encoder_hidden_size=8, decoder_hidden_size=8, **options)
    task = Namespace(source_dictionary=dictionary(30), target_dictionary=dictionary(6))
    return FixedAttentionLSTMModel.build_model(config, task)


def transformer_tagger(**options):
    torch.manual_seed(0)
    sizes = {"encoder_hidden_size": 16, "encoder_ffn_embed_dim": 32, "decoder_hidden_size": 8}
    config = FixedAttentionTransformerConfig(dropout=0.0, **sizes, **options)
    task = Namespace(source_dictionary=dictionary(30), target_dictionary=dictionary(6))
    return FixedAttentionTransformerModel.build_model(config, task)


def batch(model, sentences: int = 4, steps: int = 6, padded: bool = True):
    """Sources (longest first, padded as fairseq pads them), lengths, targets and previous outputs."""
    generator = torch.Generator().manual_seed(1)
    pad, eos = model.decoder.dictionary.pad(), model.decoder.dictionary.eos()
    lengths = torch.full((sentences,), steps)
    if padded:
        lengths -= torch.arange(sentences) % steps
    sources = torch.randint(4, len(model.encoder.dictionary), (sentences, steps), generator=generator)
    left = not hasattr(model.encoder, "output_units") or getattr(model.encoder, "left_pad", True)
    position = torch.arange(steps)
    inside = position >= steps - lengths[:, None] if left else position < lengths[:, None]
    sources = sources.masked_fill(~inside, pad)
    targets = torch.randint(4, len(model.decoder.dictionary), (sentences, steps), generator=generator)
    previous = torch.cat([torch.full((sentences, 1), eos), targets[:, :-1]], 1)
    return sources, lengths, targets, previous
