"""A sequence labeller with fixed attention: the i-th label is predicted from the i-th encoder state.

Goyal, Neubig, Dyer and Berg-Kirkpatrick (2018), "A Continuous Relaxation of Beam Search for End-to-end
Training of Neural Sequence Models", section 3, and Goyal, Dyer and Berg-Kirkpatrick (2017), "Differentiable
Scheduled Sampling for Credit Assignment", section 4: a bidirectional LSTM reads the words, an LSTM writes the
labels and, at step i, looks at the state of word i. No attention is learned.
"""

from argparse import Namespace
from dataclasses import dataclass
from typing import NamedTuple

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import (
    FairseqEncoder,
    FairseqEncoderDecoderModel,
    FairseqIncrementalDecoder,
    register_model,
    register_model_architecture,
)
from fairseq.models.lstm import LSTM, Embedding, Linear
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from diffdecode.recurrent import lstm_states
from fairseq_plugins.models.lstm_step import known_gates, lstm_step
from fairseq_plugins.options import option
from fairseq_plugins.words import NONE, WordEmbedding, WordEmbeddingConfig, word_embedding

STATE = "tagger_state"
DIRECTIONS = ("both", "forward", "word")


@dataclass
class LabelDecoderConfig(FairseqDataclass):
    """Options of the decoder, whatever encoder is below it."""

    dropout: float = option(0.1, "on embeddings, encoder states and decoder states", "ours")
    decoder_embed_dim: int = option(32, "size of the label embeddings", "2018, 3.1, 3.2")
    decoder_hidden_size: int = option(128, "size of the decoder", "2018, 3.1, 3.2")
    decoder_layers: int = option(1, "layers of the decoder", "2018, 3")
    no_label_history: bool = option(
        False,
        "do not show the decoder the labels before: a control, which bounds what training on the model's own "
        "labels can gain",
        "ours",
    )


@dataclass
class FixedAttentionConfig(LabelDecoderConfig, WordEmbeddingConfig):
    """Options of words and of the decoder, whatever encoder is between them."""


@dataclass
class FixedAttentionLSTMConfig(FixedAttentionConfig):
    encoder_hidden_size: int = option(128, "size of the encoder, in each direction", "2018, 3.1, 3.2")
    encoder_layers: int = option(1, "layers of the encoder", "2018, 3")
    encoder_direction: ChoiceEnum(DIRECTIONS) = option(
        "both",
        "what a label sees: `both` all words; `forward` those up to its own, which an LSTM reads; "
        "`word` its own, without an LSTM (the decoder remembers labels, not words)",
        "2018, 3; ours, for incremental tagging",
    )
    encoder_lookahead: int = option(
        0, "`forward` and `word`: how many words after its own a label sees as well", "ours"
    )


@register_model("fixed_attention_lstm", dataclass=FixedAttentionLSTMConfig)
class FixedAttentionLSTMModel(FairseqEncoderDecoderModel):
    """LSTM encoder, by default in both directions, and LSTM decoder with fixed attention."""

    @classmethod
    def build_model(cls, cfg: FixedAttentionLSTMConfig, task: FairseqTask) -> "FixedAttentionLSTMModel":
        """A model of the sizes ``cfg`` for the dictionaries of the task."""
        encoder = FixedAttentionLSTMEncoder(
            task.source_dictionary,
            word_embedding(cfg, task.source_dictionary),
            cfg.encoder_hidden_size,
            cfg.encoder_layers,
            cfg.dropout,
            str(cfg.encoder_direction),
            cfg.encoder_lookahead,
        )
        return cls(encoder, label_decoder(cfg, task.target_dictionary, encoder.output_units))


class Reading(NamedTuple):
    """What an encoder keeps of a sentence whose words arrive one by one.

    Attributes:
        waiting: ``[n, B, d]`` vectors of the last n words, whose states depend on words to come.
        memory: hidden and cell of the LSTM; ``None`` before the first state, or without an LSTM.
    """

    waiting: Tensor
    memory: tuple[Tensor, Tensor] | None


class WordStatesEncoder(FairseqEncoder):
    """An encoder that returns ``{"states": [T, B, H]}``, one state for each label to be written."""

    def reorder_encoder_out(self, encoder_out: dict[str, Tensor], new_order: Tensor) -> dict[str, Tensor]:
        """Pick sentences: *new_order* ``[R]`` holds rows of the batch."""
        return {"states": encoder_out["states"].index_select(1, new_order)}


class FixedAttentionLSTMEncoder(WordStatesEncoder):
    """The states of the words, one for each label to be written.

    ``forward`` returns ``{"states": [T, B, H']}``, H' being ``output_units``, right-padded with zeros
    whatever side *src_tokens* is padded on. State t knows the words up to t + *lookahead*, or all of them.

    Args:
        dictionary: of the words.
        embed_tokens: vectors of the words.
        hidden_size: size of the LSTM, in each direction.
        num_layers: of the LSTM.
        dropout: on embeddings and states.
        direction: ``both`` directions of the LSTM, ``forward`` alone, or ``word``: no LSTM.
        lookahead: how many words after its own a state knows, if it does not know all.

    Raises:
        ValueError: a direction that there is not, or a lookahead that is negative or has no meaning.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        embed_tokens: WordEmbedding,
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.1,
        direction: str = "both",
        lookahead: int = 0,
    ):
        super().__init__(dictionary)
        _check_context(direction, lookahead)
        self.padding_idx = dictionary.pad()
        self.lookahead = lookahead
        self.embed_tokens = embed_tokens
        self.dropout = nn.Dropout(dropout)
        window = embed_tokens.output_dim * (1 + lookahead)
        self.lstm = None
        self.output_units = window
        if direction != "word":
            self.lstm = LSTM(
                window,
                hidden_size,
                num_layers=num_layers,
                dropout=dropout if num_layers > 1 else 0.0,
                bidirectional=direction == "both",
            )
            self.output_units = hidden_size * (2 if direction == "both" else 1)

    def forward(self, src_tokens: Tensor, src_lengths: Tensor, **unused) -> dict[str, Tensor]:
        """Encode *src_tokens* ``[B, T]`` of *src_lengths* ``[B]`` words."""
        src_tokens = right_padded(src_tokens, self.padding_idx)
        x = self.dropout(self.embed_tokens(src_tokens)).transpose(0, 1)
        x = _with_following(x, self.lookahead)
        if self.lstm is None:
            return {"states": x}
        # An empty sentence in a batch (possible when words are typed in) is read as one padding symbol.
        lengths = src_lengths.cpu().clamp(min=1)
        return {"states": self.dropout(lstm_states(self.lstm, x, lengths))}

    def begin_reading(self, sentences: int) -> Reading:
        """Before the first word of B = *sentences* sentences, for :meth:`read_on`.

        Raises:
            ValueError: states that depend on all words; says which encoder to train.
        """
        if self.lstm is not None and self.lstm.bidirectional:
            raise ValueError(
                "the encoder reads in both directions (--encoder-direction both), so that no label can be "
                "written before the last word: train with --encoder-direction forward or word (and, to see n "
                "words more, --encoder-lookahead n)"
            )
        return Reading(self.embed_tokens.weight.new_zeros(0, sentences, self.embed_tokens.output_dim), None)

    def read_on(self, reading: Reading, src_tokens: Tensor, last: bool = False) -> tuple[Tensor, Reading]:
        """The states ``[m, B, H']`` that more words make known: in the end, one by one, those of ``forward``.

        A state is known with the *lookahead*-th word after its own, or with the last word.

        Args:
            reading: of the words before.
            src_tokens: ``[B, n]`` words, without padding; n may be 0.
            last: whether they are the last of the sentence.
        """
        x = self.dropout(self.embed_tokens(src_tokens)).transpose(0, 1)
        x = torch.cat([reading.waiting, x])
        known = len(x) if last else max(0, len(x) - self.lookahead)
        states, memory = _with_following(x, self.lookahead)[:known], reading.memory
        if self.lstm is not None and known:
            states, memory = self.lstm(states, memory)
            states = self.dropout(states)
        elif self.lstm is not None:
            states = states.new_zeros(0, states.size(1), self.output_units)
        return states, Reading(x[known:], memory)


def _check_context(direction, lookahead):
    if direction not in DIRECTIONS:
        raise ValueError(f"--encoder-direction {direction} must be one of {', '.join(DIRECTIONS)}")
    if lookahead < 0:
        raise ValueError(f"--encoder-lookahead {lookahead} must not be negative")
    if lookahead and direction == "both":
        raise ValueError(
            f"--encoder-lookahead {lookahead} has no meaning for --encoder-direction both, which sees all "
            "words: use forward or word"
        )


def _with_following(x, lookahead):
    """``x [T, B, d]`` with the next *lookahead* positions beside each, zeros after the end."""
    following = [nn.functional.pad(x[n:], (0, 0, 0, 0, 0, min(n, len(x)))) for n in range(1, 1 + lookahead)]
    return torch.cat([x, *following], dim=2)


def right_padded(tokens: Tensor, pad: int) -> Tensor:
    """Each row of *tokens* ``[B, T]`` without the padding before it, which is put behind it.

    Row by row: fairseq's ``convert_padding_direction`` takes every row for left-padded as soon as one begins
    with padding, as an empty sentence does on either side.
    """
    before = tokens.ne(pad).cumsum(1).eq(0).sum(1, keepdim=True)
    index = torch.arange(tokens.size(1), device=tokens.device) + before
    return tokens.gather(1, index.remainder(tokens.size(1)))


class FixedAttentionLSTMDecoder(FairseqIncrementalDecoder):
    """LSTM over [embedding of label i-1 ; encoder state i], and a linear layer over its hidden state.

    Without *label_history* zeros stand for the embedding: a label depends on words alone.

    The incremental state holds, under one key, ``hidden`` and ``cell`` ``[layers, R, H]``, ``step`` (the
    number of labels already written), and the encoder ``states`` with what they add to the ``gates``, T
    times ``[B, 4 H]``. ``R`` may be any multiple of the ``B`` sentences in *encoder_out*: rows
    ``b * R/B ... (b + 1) * R/B - 1`` then belong to sentence ``b``, and the encoder output need not be
    copied.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        encoder_units: int,
        embed_dim: int = 32,
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.1,
        label_history: bool = True,
    ):
        super().__init__(dictionary)
        self.embed_tokens = Embedding(len(dictionary), embed_dim, dictionary.pad())
        self.label_history = label_history
        # A parameter without gradient would stop training on several workers.
        self.embed_tokens.weight.requires_grad_(label_history)
        self.dropout = nn.Dropout(dropout)
        self.lstm = LSTM(
            embed_dim + encoder_units,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.output_projection = Linear(hidden_size, len(dictionary))

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Tensor] | None = None,
        incremental_state: dict | None = None,
        **unused,
    ) -> tuple[Tensor, None]:
        """Logits ``[B, T, V]`` for *prev_output_tokens* ``[B, T]``, or ``[R, 1, V]`` for the next step."""
        features, extra = self.extract_features(prev_output_tokens, encoder_out, incremental_state)
        return self.output_layer(features), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Tensor] | None = None,
        incremental_state: dict | None = None,
        **unused,
    ) -> tuple[Tensor, None]:
        """Hidden states ``[B, T, H]``, or ``[R, 1, H]`` with *incremental_state*."""
        if incremental_state is not None:
            prev_output_tokens = prev_output_tokens[:, -1:]
        labels = self.dropout(self.embed_tokens(prev_output_tokens)).transpose(0, 1)
        if not self.label_history:
            labels = torch.zeros_like(labels)
        if incremental_state is None:
            context = self._all_states(encoder_out["states"], labels.size(0))
            output, _ = self.lstm(torch.cat([labels, context], dim=2))
        else:
            output = self._next(labels[0], encoder_out["states"], incremental_state)[None]
        return self.dropout(output).transpose(0, 1), None

    def _next(self, labels, states, incremental_state):
        """The next step ``[R, H]``, fed ``labels [R, d]``."""
        cached = self.get_incremental_state(incremental_state, STATE) or {}
        if cached.get("states") is not states:  # at the first step, or where sentences have been dropped
            # Taken apart at once: each step's gradient alone would be as large as that of all of them.
            cached = {**cached, "states": states, "gates": known_gates(self.lstm, states).unbind()}
        step = cached.get("step", 0)
        known = cached["gates"][step]
        known = known.repeat_interleave(labels.size(0) // known.size(0), dim=0)
        start = (cached["hidden"], cached["cell"]) if "hidden" in cached else None
        output, (hidden, cell) = lstm_step(self.lstm, labels, known, start)
        new = {**cached, "hidden": hidden, "cell": cell, "step": step + 1}
        self.set_incremental_state(incremental_state, STATE, new)
        return output

    def _all_states(self, states, num_labels):
        if num_labels > states.size(0):
            raise ValueError(
                f"{num_labels} labels for {states.size(0)} words: fixed attention needs one label per word "
                "(train with --task sequence_tagging)"
            )
        return states[:num_labels]

    def output_layer(self, features: Tensor, **unused) -> Tensor:
        """Logits ``[..., V]`` of hidden states ``[..., H]``."""
        return self.output_projection(features)

    def reorder_incremental_state(self, incremental_state: dict, new_order: Tensor) -> None:
        """Pick rows: *new_order* ``[R']`` holds rows of the state."""
        cached = self.get_incremental_state(incremental_state, STATE)
        if cached is not None:
            picked = {name: cached[name].index_select(1, new_order) for name in ("hidden", "cell")}
            self.set_incremental_state(incremental_state, STATE, {**cached, **picked})


def label_decoder(
    cfg: LabelDecoderConfig, labels: Dictionary, encoder_units: int
) -> FixedAttentionLSTMDecoder:
    """The decoder that the options ask for, over encoder states of *encoder_units* numbers."""
    return FixedAttentionLSTMDecoder(
        labels,
        encoder_units,
        cfg.decoder_embed_dim,
        cfg.decoder_hidden_size,
        cfg.decoder_layers,
        cfg.dropout,
        not cfg.no_label_history,
    )


@register_model_architecture("fixed_attention_lstm", "fixed_attention_lstm_ner")
def fixed_attention_lstm_ner(args: Namespace) -> None:
    """The sizes for named entities: hidden layers of 64, label embeddings of 8 (2018, section 3.1)."""
    _default_sizes(args, hidden_size=64, label_embed_dim=8)


@register_model_architecture("fixed_attention_lstm", "fixed_attention_lstm_ccg")
def fixed_attention_lstm_ccg(args: Namespace) -> None:
    """The sizes for CCG supertags: hidden layers and label embeddings of 512 (2018, section 3.2)."""
    _default_sizes(args, hidden_size=512, label_embed_dim=512)


def _default_sizes(args, hidden_size, label_embed_dim):
    # The papers' models read no letters. They do not give the size of the word embeddings: that of the hidden
    # layers is used.
    args.char_features = getattr(args, "char_features", NONE)
    args.word_dropout = getattr(args, "word_dropout", 0.0)
    args.encoder_embed_dim = getattr(args, "encoder_embed_dim", hidden_size)
    args.encoder_hidden_size = getattr(args, "encoder_hidden_size", hidden_size)
    args.decoder_embed_dim = getattr(args, "decoder_embed_dim", label_embed_dim)
    args.decoder_hidden_size = getattr(args, "decoder_hidden_size", hidden_size)
