"""A dependency parser that is trained by its treebank and, through its trees, by the components after it."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Model
from torch.nn.functional import cross_entropy

from spacy_components.ml.parser_models import DocScores
from spacy_components.ml.standalone import replaced_parse_listener
from spacy_components.ml.tree_decisions import TreeDecision, TreeDecoder, surrogate_from_config
from spacy_components.ml.tree_losses import TREE_LOSSES, TreeSet
from spacy_components.ml.tree_scorers import TreeScores
from spacy_components.pipeline.gold_trees import aligned_tree, gold_heads, offsets
from spacy_components.pipeline.listened_pipe import ListenedPipe

ROOT = "ROOT"
UNLABELLED = "dep"
"""Label of the arcs of a parser that was trained without labels, and of white space."""


class SpigotParser(ListenedPipe):
    """Graph-based dependency parser. Components after it can read its trees through
    ``diffdecode.ParseListener.v1``, and their gradients tune it (SPIGOT; Peng, Thomson and Smith, 2018).
    """

    kind = "parse"

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str = "spigot_parser",
        *,
        projective: bool = True,
        multi_root: bool = True,
        loss: str = "cross_entropy",
        surrogate: str = "spigot",
        surrogate_options: dict[str, Any] | None = None,
        eta: float = 1.0,
        grad_factor: float = 1.0,
        scorer: Callable | None = None,
    ) -> None:
        """Initialize a parser.

        vocab (Vocab): The shared vocabulary.
        model (Model[List[Doc], DocScores]): Scores of arcs and labels.
        name (str): The component instance name.
        projective (bool): Forbid crossing arcs.
        multi_root (bool): Whether a segment (see the model's ``segmenter``) may hold several trees; each is a
            sentence of its own.
        loss (str): ``cross_entropy`` (each head by itself), ``hinge`` (the best tree with cost augmentation)
            or ``likelihood`` (of the tree among all trees).
        surrogate (str): Name of the surrogate gradient of the trees.
        surrogate_options (Optional[Dict[str, Any]]): Its options, besides ``eta``.
        eta (float): Step size of the surrogate (equation 4a of the paper), for those that have one.
        grad_factor (float): What the surrogate gradient is multiplied with; 0 is a pipeline.
        scorer (Optional[Callable]): The scoring method.
        """
        super().__init__(vocab, model, name)
        if loss not in TREE_LOSSES:
            raise ValueError(f"'{name}': no loss {loss!r}; there are {', '.join(sorted(TREE_LOSSES))}")
        trees = TreeSet(projective=projective, multi_root=multi_root)
        chosen = surrogate_from_config(surrogate, eta, surrogate_options)
        self.decoder = TreeDecoder(trees, chosen, grad_factor)
        self.loss = TREE_LOSSES[loss]
        self.scorer = scorer
        self.cfg: dict[str, Any] = {"labels": []}
        decoding = {
            "projective": projective,
            "multi_root": multi_root,
            "surrogate": surrogate,
            "surrogate_options": dict(surrogate_options or {}),
            "eta": eta,
            "grad_factor": grad_factor,
        }
        model.attrs.update(replaced_parse_listener(decoding))

    @property
    def labels(self) -> tuple[str, ...]:
        """RETURNS (Tuple[str, ...]): The labels of arcs between words; a root's is always ``ROOT``."""
        return tuple(self.cfg["labels"])

    @property
    def label_data(self) -> tuple[str, ...]:
        """RETURNS (Tuple[str, ...]): What ``initialize`` takes as ``labels``."""
        return self.labels

    def add_label(self, label: str) -> int:
        """Add a label, before the component is initialized.

        label (str): The label.
        RETURNS (int): 0 if it was there already, else 1.
        """
        if label in self.labels:
            return 0
        if self.model.shims[0].module is not None:
            raise ValueError(
                f"'{self.name}' is initialized with {len(self.labels)} labels and cannot take more"
            )
        self.cfg["labels"].append(label)
        self.vocab.strings.add(label)
        return 1

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Build the model for the labels of the training data.

        Without any parse in the data the arcs stay unlabelled: the trees are then learned from the
        components downstream alone.

        get_examples (Callable[[], Iterable[Example]]): A function that returns a sample of examples.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Sequence[str]]): The labels, instead of those of the examples.
        """
        validate_get_examples(get_examples, "SpigotParser.initialize")
        found = self._labels_of(get_examples()) if labels is None else labels
        if "pretrained_labels" in self.model.attrs:
            self._take_labels(self.model.attrs["pretrained_labels"](self.model), found)
        else:
            for label in found:
                self.add_label(label)
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", max(1, len(self.labels)))
        self.model.initialize(X=[example.predicted for example in islice(get_examples(), 10)])
        self.require_order(nlp)

    def _take_labels(self, known: Sequence[str], wanted: Iterable[str]) -> None:
        """The labels of a pretrained model, which are fixed."""
        self.cfg["labels"] = list(known)
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            warnings.warn(
                f"'{self.name}' is pretrained with {len(known)} labels, and will not learn these others of "
                f"the training data: {', '.join(unknown)}",
                stacklevel=3,
            )

    def _labels_of(self, examples: Iterable[Example]) -> list[str]:
        found = {
            token.dep_
            for example in examples
            for token in example.reference
            if token.has_dep() and token.head.i != token.i
        }
        return sorted(found - {""})

    # Prediction

    def predict(self, docs: Iterable[Doc]) -> list[np.ndarray]:
        """Parse documents without changing them.

        docs (Iterable[Doc]): The documents.
        RETURNS (List[numpy.ndarray]): For each document ``[n, 2]``: the position of each token's head (its
            own for a root), and its label's number (-1 for a root and for white space).
        """
        scores = self.model.predict(list(docs))
        heads, labels = self.decoder.predict(scores)
        within = heads - np.repeat(offsets(scores.segments.doc_lengths), scores.segments.doc_lengths)
        return scores.segments.by_doc(np.stack([within, labels], axis=1))

    def set_annotations(self, docs: Iterable[Doc], parses: Sequence[np.ndarray]) -> None:
        """Write heads, labels and, by the roots, sentence boundaries.

        docs (Iterable[Doc]): The documents.
        parses (Sequence[numpy.ndarray]): What ``predict`` returned.
        """
        add = self.vocab.strings.add
        hashes = np.array(
            [*map(add, self.labels or [UNLABELLED]), add(UNLABELLED), add(ROOT)], dtype=np.uint64
        )
        for doc, parse in zip(docs, parses):
            if len(doc):
                relative = parse[:, 0] - np.arange(len(doc))
                label = np.where(relative == 0, -1, np.where(parse[:, 1] < 0, -2, parse[:, 1]))
                doc.from_array(["HEAD", "DEP"], np.stack([relative.astype(np.uint64), hashes[label]], axis=1))

    # Training

    def decide(self, scores: DocScores) -> TreeDecision:
        """The trees for the listeners.

        scores (DocScores): The scores.
        RETURNS (TreeDecision): The trees.
        """
        return self.decoder.decide(scores)

    def get_loss(self, examples: Sequence[Example], scores: DocScores) -> tuple[float, list]:
        """The loss of the trees plus the cross-entropy of the labels of gold arcs, summed over the words.

        examples (Sequence[Example]): The examples; words without annotation add nothing.
        scores (DocScores): The scores.
        RETURNS (Tuple[float, list]): The loss, and what the model's backward pass takes.
        """
        if not scores.scores or not any(example.reference.has_annotation("DEP") for example in examples):
            return 0.0, []
        heads, labels = self._gold(examples)
        losses = []
        for part in scores.scores:
            gold = gold_heads(part.batch, heads, self.decoder.trees.multi_root)
            if (gold >= 0).any():
                losses.append(self._loss_of(part, gold, labels))
        if not losses:
            return 0.0, []
        total = torch.stack(losses).sum()
        return float(total.detach()), [(total, None)]

    def _gold(self, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
        """Heads and labels' numbers of all tokens, counted through; -1 = unknown."""
        trees = [aligned_tree(example, self.decoder.trees.projective) for example in examples]
        starts = offsets([len(heads) for heads, _ in trees])
        heads = np.concatenate([np.where(h >= 0, h + start, h) for (h, _), start in zip(trees, starts)])
        values, place = np.unique(np.concatenate([labels for _, labels in trees]), return_inverse=True)
        number = {self.vocab.strings[label]: i for i, label in enumerate(self.labels)}
        return heads, np.array([number.get(int(value), -1) for value in values])[place]

    def _loss_of(self, part: TreeScores, gold: np.ndarray, labels: np.ndarray) -> torch.Tensor:
        device = part.arcs.device
        annotated = torch.from_numpy(np.flatnonzero((gold >= 0).any(1))).to(device)
        heads = torch.from_numpy(gold).to(device)
        rows = (part.arcs, part.lengths, heads)
        if len(annotated) < len(gold):
            rows = tuple(tensor[annotated] for tensor in rows)
        loss = self.loss(*rows, self.decoder.trees)
        label = np.where(gold > 0, labels[np.minimum(part.batch.tokens, len(labels) - 1)], -1)
        if (label >= 0).any():
            predicted = part.label_scores(heads).flatten(0, 1)
            target = torch.from_numpy(label).to(device).flatten()
            loss = loss + cross_entropy(predicted, target, ignore_index=-1, reduction="sum")
        return loss
