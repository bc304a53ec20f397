"""The sequence labeller with fixed attention, whose words are read by an encoder that fairseq has trained.

The state of a word is that of its first piece (Devlin et al. 2019, section 5.3); the decoder is that of
``fixed_attention_lstm``.
"""

# fairseq turns the fields of a config into command-line options and understands only typing.Optional.
# ruff: noqa: UP045

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

from fairseq import checkpoint_utils
from fairseq.data import Dictionary, encoders
from fairseq.models import FairseqEncoderDecoderModel, register_model
from fairseq.registry import REGISTRIES
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_plugins.models.fixed_attention_lstm import (
    LabelDecoderConfig,
    WordStatesEncoder,
    label_decoder,
    right_padded,
)
from fairseq_plugins.options import option
from fairseq_plugins.words import Pieces

NO_BPE = "none"


@dataclass
class FixedAttentionPretrainedConfig(LabelDecoderConfig):
    encoder_checkpoint: Optional[str] = option(
        None,
        "checkpoint of fairseq's `roberta` or `masked_lm`, with its `dict.txt` in the same folder; needed in "
        "decoding, too, for sizes and pieces",
        "fairseq",
    )
    encoder_bpe: str = option(
        NO_BPE,
        "how words are split into that encoder's pieces: fairseq's `--bpe` (`gpt2`, `sentencepiece`, ...); "
        "`none`: they are pieces",
        "fairseq",
    )
    encoder_bpe_args: str = option(
        "{}", 'options of that BPE, in JSON: `{"sentencepiece_model": "spm.model"}`', "fairseq"
    )
    encoder_freeze: bool = option(False, "leave the encoder as it is", "ours")


@register_model("fixed_attention_pretrained", dataclass=FixedAttentionPretrainedConfig)
class FixedAttentionPretrainedModel(FairseqEncoderDecoderModel):
    """Pretrained encoder over pieces of words, LSTM decoder with fixed attention."""

    @classmethod
    def build_model(
        cls, cfg: FixedAttentionPretrainedConfig, task: FairseqTask
    ) -> "FixedAttentionPretrainedModel":
        """A model with the encoder of the checkpoint.

        Raises:
            FileNotFoundError: the checkpoint or its dictionary is not there; names the option.
            ValueError: another kind of model, or a BPE that cannot be built.
        """
        trained = load_encoder(cfg.encoder_checkpoint)
        split = build_split(cfg.encoder_bpe, cfg.encoder_bpe_args)
        pieces = Pieces(task.source_dictionary, trained.dictionary, split)
        encoder = FixedAttentionPretrainedEncoder(pieces, trained, cfg.dropout, cfg.encoder_freeze)
        return cls(encoder, label_decoder(cfg, task.target_dictionary, encoder.output_units))


class Trained(NamedTuple):
    """The encoder of a masked language model.

    Attributes:
        layers: fairseq's module, without what predicts masked pieces.
        dictionary: of the pieces.
        longest: most pieces that it reads, ``<s>`` and ``</s>`` among them.
    """

    layers: nn.Module
    dictionary: Dictionary
    longest: int


class FixedAttentionPretrainedEncoder(WordStatesEncoder):
    """The states of the first pieces of words.

    ``forward`` returns ``{"states": [T, B, H]}``, right-padded with zeros whatever side *src_tokens* is
    padded on.

    Args:
        pieces: what is read of words.
        trained: the encoder.
        dropout: on states.
        freeze: leave its weights as they are.
    """

    def __init__(self, pieces: Pieces, trained: Trained, dropout: float = 0.1, freeze: bool = False):
        super().__init__(pieces.dictionary)
        self.padding_idx = pieces.dictionary.pad()
        self.pieces, self.layers, self.longest = pieces, trained.layers, trained.longest
        self.output_units = self.layers.embed_tokens.embedding_dim
        self.dropout = nn.Dropout(dropout)
        if freeze:
            self.layers.requires_grad_(False)

    def forward(self, src_tokens: Tensor, src_lengths: Tensor, **unused) -> dict[str, Tensor]:
        """Encode *src_tokens* ``[B, T]`` of *src_lengths* ``[B]`` words.

        Raises:
            ValueError: a sentence of more pieces than the encoder reads.
        """
        src_tokens = right_padded(src_tokens, self.padding_idx)
        sentence, first = self.pieces(src_tokens, src_lengths)
        if sentence.size(1) > self.longest:
            raise ValueError(
                f"a sentence of {sentence.size(1)} pieces: the encoder of --encoder-checkpoint reads at most "
                f"{self.longest}, <s> and </s> among them; split it"
            )
        found = self.layers(sentence)
        # fairseq's encoders: a dictionary, or, in masked_lm, the states of all layers and of the sentence.
        states = found["encoder_out"][0] if isinstance(found, dict) else found[0][-1]  # [S, B, H]
        states = states.gather(0, first.t()[..., None].expand(-1, -1, states.size(2)))
        states = states.masked_fill(first.t().eq(0)[..., None], 0.0)
        return {"states": self.dropout(states)}


def load_encoder(path: str | None) -> Trained:
    """The encoder of a masked language model that fairseq has saved.

    Raises:
        FileNotFoundError: the file, or ``dict.txt`` beside it, is not there.
        ValueError: no path, or another kind of model.
    """
    if path is None:
        raise ValueError("--arch fixed_attention_pretrained needs --encoder-checkpoint")
    folder = Path(path).parent
    for needed in (Path(path), folder / "dict.txt"):
        if not needed.is_file():
            raise FileNotFoundError(
                f"--encoder-checkpoint {path}: {needed} is not there (another place, in decoding: "
                "--model-overrides \"{'encoder_checkpoint': '...'}\")"
            )
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([path], {"data": str(folder)})
    layers = getattr(models[0].encoder, "sentence_encoder", None)
    if layers is None:
        raise ValueError(
            f"--encoder-checkpoint {path} holds a {type(models[0]).__name__}: a masked language model "
            "(roberta, masked_lm) is needed"
        )
    return Trained(layers, task.source_dictionary, int(models[0].max_positions()))


def build_split(name: str, arguments: str) -> Callable[[str], str]:
    """The BPE ``name`` of fairseq with ``arguments``, a JSON object, as a function of a text.

    Raises:
        ValueError: no such BPE, or arguments that are no JSON object.
    """
    if name == NO_BPE:
        return str
    names = sorted(REGISTRIES["bpe"]["registry"])
    if name not in names:
        raise ValueError(f"--encoder-bpe {name} must be {NO_BPE} or one of {', '.join(names)}")
    try:
        bpe = encoders.build_bpe(Namespace(bpe=name, **json.loads(arguments)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"--encoder-bpe {name} --encoder-bpe-args {arguments}: {error!r}") from None
    return bpe.encode
