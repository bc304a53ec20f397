"""A pretrained parser of Stanza as the model of ``spigot_parser``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from spacy import registry
from spacy.tokens import Doc
from thinc.api import ArgsKwargs, Model
from torch import Tensor, nn
from torch.nn.functional import pad

from diffdecode.moves import moved
from spacy_components.ml.batch_size import arcs_per_batch
from spacy_components.ml.segments import SegmentBatch, Segmenter, segment_docs, sentences
from spacy_components.ml.stanza.checkpoint import (
    CheckpointFiles,
    build_net,
    read_checkpoint,
    require_vocabulary,
)
from spacy_components.ml.stanza.inputs import (
    Word,
    WordBatch,
    attributes_used,
    read_words,
    stanza_batch,
    word_batches,
)
from spacy_components.ml.thinc_glue.torch_shim import TorchShim
from spacy_components.ml.thinc_glue.untrusted import MemoryBudget, UnusableFile, blamed_on
from spacy_components.ml.trees.models import DocScores
from spacy_components.ml.trees.scorers import TreeScores

DROPOUTS = {
    "Dropout": "p",
    "LSTM": "dropout",
    "WordDropout": "dropprob",
    "LockedDropout": "dropprob",
    "SequenceUnitDropout": "dropprob",
}
"""Layers that drop something, and the attribute that says how often."""


@registry.architectures("diffdecode.StanzaParser.v1")
def build_stanza_parser(
    segmenter: Segmenter | None = None,
    checkpoint: str | None = None,
    pretrain: str | None = None,
    charlm_forward: str | None = None,
    charlm_backward: str | None = None,
    transformer: str | None = None,
) -> Model[list[Doc], DocScores]:
    """A graph-based dependency parser trained with Stanza (Qi et al., CoNLL 2018; Dozat and Manning, 2017).

    Stanza decodes non-projective trees with one root: use ``projective = false`` and ``multi_root = false``.
    The files are read by ``initialize``; a saved pipeline holds all that it needs of them.

    Args:
        segmenter: which stretches of a document are parsed as one; by default sentences, and the whole
            document where it has no sentence boundaries.
        checkpoint: the parser's ``.pt`` file.
        pretrain: its word vectors, if it was trained with any.
        charlm_forward: its character language models, if it was trained with any.
        charlm_backward: the one that reads backwards.
        transformer: folder or name of its transformer, if not the one in the checkpoint.

    Returns:
        the model; its dimension ``nO`` is the number of labels.
    """
    files = None
    if checkpoint is not None:
        files = CheckpointFiles(checkpoint, pretrain, charlm_forward, charlm_backward, transformer)
    return Model(
        "stanza_parser",
        _forward,
        init=partial(_init, files),
        shims=[TorchShim(build_scorer)],
        dims={"nO": None},
        attrs={
            "segmenter": segmenter or sentences(required=False),
            "dropout_rate": 0.0,
            "pretrained_labels": partial(_labels, files),
        },
    )


class StanzaScorer(nn.Module):
    """Scores of arcs and labels as Stanza's own parser computes them.

    Args:
        net: Stanza's ``GraphParser``.
        pretrain_vocab: vocabulary of its word vectors, or None.
    """

    def __init__(self, net: nn.Module, pretrain_vocab=None):
        super().__init__()
        self.net = net
        self.pretrain_vocab = pretrain_vocab
        self.attributes = attributes_used(net.args, net.vocab)
        self._dropouts = [
            (layer, rate)
            for name, layer in net.named_modules()
            if not name.startswith("bert_model") and (rate := DROPOUTS.get(type(layer).__name__)) is not None
            if getattr(layer, rate) > 0
        ]

    @property
    def labels(self) -> list[str]:
        """The labels in the order of their numbers."""
        from stanza.models.common.vocab import VOCAB_PREFIX_SIZE

        return list(self.net.vocab["deprel"])[VOCAB_PREFIX_SIZE:]

    def forward(self, batches: Sequence[WordBatch], drop: float) -> list[TreeScores]:
        """Scores of all segments.

        Args:
            batches: the words.
            drop: the rate, in training, of each kind of dropout that the parser was trained with, word
                dropout included. A transformer keeps its own rates, and drops nothing if this is 0.

        Returns:
            the scores.
        """
        for layer, rate in self._dropouts:
            setattr(layer, rate, drop)
        if self.net.bert_model is not None:
            self.net.bert_model.train(self.training and drop > 0)
        return [self._score(batch) for batch in batches]

    def _score(self, batch: WordBatch) -> TreeScores:
        device = self.net.drop_replacement.device
        inputs = stanza_batch(batch.sentences, self.net.vocab, self.pretrain_vocab, device)
        arcs, labels, *_ = self.net.forward_scores(**inputs)
        diagonal = torch.eye(arcs.shape[1], dtype=torch.bool, device=device)
        arcs = arcs.masked_fill(diagonal, 0.0)  # -inf in Stanza; ours never looks at it
        arcs = pad(arcs[:, 1:], (0, 0, 1, 0))  # the root's own heads mean nothing
        lengths = moved(torch.from_numpy(batch.segments.lengths), device)
        return TreeScores(batch.segments, lengths, arcs, partial(_label_scores, labels[:, 1:]))


def _label_scores(labels: Tensor, heads: Tensor) -> Tensor:
    """``labels [B, N, N+1, L]`` at ``heads [B, N]`` (negative: the root's) to ``[B, N, L]``."""
    index = heads.clamp(min=0)[:, :, None, None].expand(-1, -1, 1, labels.shape[3])
    return labels.gather(2, index).squeeze(2)


def build_scorer(**parts) -> StanzaScorer:
    """The module for what ``read_checkpoint`` returned, with values yet to be loaded."""
    pretrain_vocab = None
    if "pretrain" in parts:
        from stanza.models.common.pretrain import PretrainedWordVocab

        pretrain_vocab = PretrainedWordVocab.load_state_dict(parts["pretrain"]["vocab"])
        require_vocabulary(pretrain_vocab)
        if len(pretrain_vocab) > parts["pretrain"]["shape"][0]:
            raise UnusableFile("the word vectors of this Stanza parser are fewer than its words")
    return StanzaScorer(build_net(**parts), pretrain_vocab)


def load_parser(
    model: Model, files: CheckpointFiles, parts: dict[str, Any], state: dict[str, Tensor]
) -> None:
    """Give the model of ``diffdecode.StanzaParser.v1`` a parser, once it has parsed a word.

    Args:
        model: the model.
        files: where it comes from.
        parts, state: what ``read_checkpoint`` returned of them.

    Raises:
        UnusableFile: the parameters do not fit the settings, or there is no parsing with them.
    """
    with blamed_on(str(files.checkpoint)):
        with MemoryBudget(sum(value.numel() for value in state.values())):
            scorer = build_scorer(**parts)
        try:
            scorer.net.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UnusableFile(f"the parameters do not fit the settings: {reason:.300}") from error
        scorer.eval()
        with torch.no_grad():
            scorer([_probe()], 0.0)
        scorer.train()
    model.shims[0].adopt(scorer, **parts)


def _probe() -> WordBatch:
    """A sentence of one word."""
    word = Word("a", "X", "X", "A=B|C=D", "a")
    return WordBatch(SegmentBatch(np.zeros((1, 1), dtype=np.int64), np.ones(1, dtype=np.int64)), [[word]])


def _init(files: CheckpointFiles | None, model: Model, X=None, Y=None) -> None:
    if files is not None and model.shims[0].module is None:
        load_parser(model, files, *read_checkpoint(files))
    _parser(model)


def _labels(files: CheckpointFiles | None, model: Model) -> list[str]:
    _init(files, model)
    return _parser(model).labels


def _parser(model: Model) -> StanzaScorer:
    parser = model.shims[0].module
    if parser is None:
        raise ValueError(
            'diffdecode.StanzaParser.v1 has no parser yet. Name its file (checkpoint = "model.pt" in '
            "[components.spigot_parser.model]) and initialize the pipeline, or make a pipeline with "
            "python -m spacy_components.stanza.import_parser, and source the component from there."
        )
    return parser


def _forward(model: Model, docs: Sequence[Doc], is_train: bool):
    parser = _parser(model)
    segments = segment_docs(docs, model.attrs["segmenter"], arcs_per_batch(parser))
    if not segments.batches:
        return DocScores(segments, []), lambda pairs: []
    words = word_batches(segments.batches, read_words(docs, parser.attributes))
    scores, backprop_module = model.shims[0](ArgsKwargs((words, model.attrs["dropout_rate"]), {}), is_train)

    def backprop(pairs) -> list:
        pairs = list(pairs)
        if pairs:
            tensors, gradients = zip(*pairs)
            backprop_module(ArgsKwargs((list(tensors),), {"grad_tensors": list(gradients)}))
        return []

    return DocScores(segments, scores), backprop
