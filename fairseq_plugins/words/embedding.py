"""The first layer of a tagger: words become vectors."""

# fairseq turns the fields of a config into command-line options and understands only typing.Optional.
# ruff: noqa: UP045

from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any, Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import OmegaConf, open_dict
from torch import Tensor, nn

from fairseq_plugins.options import option
from fairseq_plugins.words.pretrained import load_vectors
from fairseq_plugins.words.spelling import NONE, SPELLINGS, Spelling


@dataclass
class WordEmbeddingConfig(FairseqDataclass):
    encoder_embed_dim: int = option(128, "size of the word embeddings (the papers do not give it)", "ours")
    encoder_embed_path: Optional[str] = option(
        None,
        "file of word vectors to begin with: a header line, then a word and its numbers on each",
        "fairseq",
    )
    char_features: ChoiceEnum([*SPELLINGS, NONE]) = option(
        "affixes",
        "what is read of a word's letters: `affixes` (hashed prefixes, suffixes, lower case, shape), "
        "`suffix` (the last three and the case of the first, for little data), `cnn` (filters over its "
        "bytes) or `none`; unknown words need `--dataset-impl raw` in preprocessing",
        "ours; dos Santos and Zadrozny 2014",
    )
    char_embed_dim: int = option(64, "size of the vector of a word's letters", "ours")
    word_dropout: float = option(
        0.25,
        "a in a / (a + count): how often a word of training is read as the unknown word (its letters stay)",
        "Kiperwasser and Goldberg 2016, 3",
    )


class WordEmbedding(nn.Embedding):
    """Vectors ``[..., output_dim]`` of words ``[...]``: the word's row of a table, and its spelling's vector.

    In training a word that is seen ``count`` times is read as ``<unk>`` with the probability
    ``word_dropout / (word_dropout + count)``, but for its spelling.

    Args:
        dictionary: of the words.
        dim: size of a row of the table.
        spelling: what is made of the letters, or ``None``.
        word_dropout: 0 never reads a known word as ``<unk>``.

    Raises:
        ValueError: a negative ``word_dropout``.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        dim: int,
        spelling: Spelling | None = None,
        word_dropout: float = 0.0,
    ):
        if not word_dropout >= 0:
            raise ValueError(f"--word-dropout {word_dropout} must not be negative")
        super().__init__(len(dictionary), dim, dictionary.pad())
        nn.init.uniform_(self.weight, -0.1, 0.1)
        nn.init.zeros_(self.weight[self.padding_idx])
        self.unk, self.word_dropout = dictionary.unk(), word_dropout
        self.spelling = spelling
        self.output_dim = dim + (0 if spelling is None else spelling.dim)
        counts = torch.tensor(dictionary.count, dtype=torch.float)
        rates = word_dropout / (word_dropout + counts).clamp_min(1e-9)
        rates[: dictionary.nspecial] = 0.0
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors ``[..., output_dim]`` of *tokens* ``[...]``."""
        known = tokens.masked_fill(tokens >= self.num_embeddings, self.unk)
        if self.training and self.word_dropout:
            known = known.masked_fill(torch.rand_like(self.rates[known]) < self.rates[known], self.unk)
        vectors = super().forward(known)
        return vectors if self.spelling is None else torch.cat([vectors, self.spelling(tokens)], -1)

    def _load_from_state_dict(self, state_dict, prefix, *unused):
        """Refuse a checkpoint whose model reads other letters, or none.

        Raises:
            ValueError: naming the option.
        """
        spelling = prefix + "spelling."
        stored = {key for key in state_dict if key.startswith(spelling)}
        own = set() if self.spelling is None else {spelling + key for key in self.spelling.state_dict()}
        if stored != own:
            raise ValueError(
                "the checkpoint was trained with other --char-features"
                if stored
                else "the checkpoint was trained with --char-features none: give it here, too"
            )
        super()._load_from_state_dict(state_dict, prefix, *unused)


def trained_options(cfg: Any) -> Any:
    """The options of the model in a checkpoint, a namespace or fairseq's container: a copy.

    Options that it does not have are newer than it and off, whatever their defaults. Vectors that training
    began with are in the checkpoint and are not read again.
    """
    name = str(getattr(cfg, "_name", None) or getattr(cfg, "arch", None))
    if not name.startswith("fixed_attention"):
        return cfg
    cfg = copy(cfg)
    with open_dict(cfg) if OmegaConf.is_config(cfg) else nullcontext():
        for option_name, off in (("char_features", NONE), ("word_dropout", 0.0)):
            if getattr(cfg, option_name, None) is None:
                setattr(cfg, option_name, off)
        cfg.encoder_embed_path = None
    return cfg


def word_embedding(cfg: WordEmbeddingConfig, dictionary: Dictionary) -> WordEmbedding:
    """The embedding that the options ask for.

    Raises:
        FileNotFoundError: the file of word vectors is not there.
        ValueError: an option that cannot work; names it.
    """
    kind = str(cfg.char_features)
    spelling = None
    if kind != NONE:
        if cfg.char_embed_dim < 1:
            raise ValueError(f"--char-embed-dim {cfg.char_embed_dim} must be at least 1")
        spelling = SPELLINGS[kind](dictionary, cfg.char_embed_dim)
    embedding = WordEmbedding(dictionary, cfg.encoder_embed_dim, spelling, cfg.word_dropout)
    if cfg.encoder_embed_path:
        load_vectors(cfg.encoder_embed_path, dictionary, embedding)
    return embedding
