"""A dependency parser that is trained by its treebank and, through its trees, by the components after it."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Model, Optimizer, set_dropout_rate
from torch.nn.functional import cross_entropy

from diffdecode.structure import TreeKind
from spacy_components.finetuning.drift import DRIFTS, drift
from spacy_components.finetuning.original import Original
from spacy_components.ml.listening.standalone import replaced_parse_listener
from spacy_components.ml.listening.upstream import require_upstreams
from spacy_components.ml.thinc_glue.finite import culprit_named, require_finite
from spacy_components.ml.thinc_glue.hash_embed_cnn import warn_of_unused_vectors
from spacy_components.ml.trees.decisions import TreeDecision, TreeDecoder, surrogate_from_config
from spacy_components.ml.trees.losses import TREE_LOSSES
from spacy_components.ml.trees.models import DocScores
from spacy_components.ml.trees.scorers import TreeScores
from spacy_components.ml.trees.sentences import trees_of
from spacy_components.pipeline.gold_trees import aligned_tree, gold_heads, offsets
from spacy_components.pipeline.listened_pipe import ListenedPipe

ROOT = "ROOT"
UNLABELLED = "dep"
"""Label of the arcs of a parser that was trained without labels, and of white space."""
TRAINING_SETTINGS = (
    "loss",
    "surrogate",
    "surrogate_options",
    "eta",
    "grad_factor",
    "freeze",
    "drift",
    "drift_weight",
)


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
        freeze: Sequence[str] = (),
        drift: str | None = None,
        drift_weight: float = 1.0,
        scorer: Callable | None = None,
    ) -> None:
        """Initialize a parser.

        vocab (Vocab): The shared vocabulary.
        model (Model[List[Doc], DocScores]): Scores of arcs and labels.
        name (str): The component instance name.
        projective (bool): Forbid crossing arcs.
        multi_root (bool): Whether a segment (see the model's ``segmenter``) may hold several trees; each is a
            sentence of its own. Sentence starts that are set before are kept, whatever this says.
        loss (str): ``cross_entropy`` (each head by itself), ``hinge`` (the best tree with cost augmentation)
            or ``likelihood`` (of the tree among all trees).
        surrogate (str): Name of the surrogate gradient of the trees.
        surrogate_options (Optional[Dict[str, Any]]): Its options, besides ``eta``.
        eta (float): Step size of the surrogate (equation 4a of the paper), for those that have one.
        grad_factor (float): What the surrogate gradient is multiplied with; 0 is a pipeline.
        freeze (Sequence[str]): Parts of the model that stay exactly as they are: ``tok2vec``, ``scorer`` (all
            the rest), or a module of the scorer. Gradients still pass through them.
        drift (Optional[str]): Penalise scores that are not those of the parser as it was at its first update
            after it was made, initialized or loaded: ``kl`` (of each head by itself), ``tree_kl`` (of the
            trees) or ``l2`` (of the scores); the labels' scores count, too. Needs the memory of a second
            model. It is what ``nlp.rehearse`` does, too.
        drift_weight (float): What the penalty, a sum over all words, is multiplied with.
        scorer (Optional[Callable]): The scoring method.
        """
        super().__init__(vocab, model, name)
        self.scorer = scorer
        self.cfg: dict[str, Any] = {"labels": []}
        self.trees = TreeKind(projective=projective, multi_root=multi_root)
        self.training: dict[str, Any] = {}
        self._original: Original | None = None
        self.configure(
            loss=loss,
            surrogate=surrogate,
            surrogate_options=surrogate_options,
            eta=eta,
            grad_factor=grad_factor,
            freeze=freeze,
            drift=drift,
            drift_weight=drift_weight,
        )

    def configure(self, **settings) -> None:
        """Change how the parser is trained from here on. What it predicts stays the same.

        Args:
            **settings: any of ``loss``, ``surrogate``, ``surrogate_options``, ``eta``, ``grad_factor``,
                ``freeze``, ``drift`` and ``drift_weight``, as ``__init__`` takes them.

        Raises:
            ValueError: another setting, or an impossible value.
        """
        unknown = set(settings) - set(TRAINING_SETTINGS)
        if unknown:
            raise ValueError(
                f"'{self.name}': no training setting {', '.join(sorted(unknown))}; there are "
                f"{', '.join(TRAINING_SETTINGS)}"
            )
        new = self.training | settings
        self._check("loss", new["loss"], TREE_LOSSES)
        self._check("drift", new["drift"], [None, *DRIFTS])
        if isinstance(new["freeze"], str):
            raise ValueError(f"'{self.name}': freeze takes a list, such as [{new['freeze']!r}]")
        chosen = surrogate_from_config(new["surrogate"], new["eta"], new["surrogate_options"])
        self.training = new
        self.decoder = TreeDecoder(self.trees, chosen, new["grad_factor"])
        self.loss = TREE_LOSSES[new["loss"]]
        self.freeze = tuple(new["freeze"])
        decoding = {name: new[name] for name in ("surrogate", "eta", "grad_factor")}
        decoding["surrogate_options"] = dict(new["surrogate_options"] or {})
        self.model.attrs.update(replaced_parse_listener(asdict(self.trees) | decoding))

    def _check(self, setting: str, value: Any, known: Iterable) -> None:
        if value not in known:
            raise ValueError(f"'{self.name}': no {setting} {value!r}; there are {', '.join(map(str, known))}")

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
        require_upstreams(nlp, get_examples)
        warn_of_unused_vectors(nlp)
        found = self._labels_of(get_examples()) if labels is None else labels
        if "pretrained_labels" in self.model.attrs:
            self._take_labels(self.model.attrs["pretrained_labels"](self.model), found)
        else:
            for label in found:
                self.add_label(label)
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", max(1, len(self.labels)))
        self.model.initialize(X=[example.predicted for example in islice(get_examples(), 10)])
        self._original = None
        self.require_frozen_parts()
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

        Args:
            docs: the documents.

        Returns:
            For each document ``[n, 2]``: the position of each token's head (its own for a root), and its
            label's number (-1 for a root and for white space).
        """
        scores = self.model.predict(list(docs))
        with culprit_named(self.name, self.model):
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

    def get_drift(self, docs: Sequence[Doc], scores: DocScores) -> tuple[float, list]:
        """The weighted drift from the original parser, if ``drift`` is set, summed over the words.

        docs (Sequence[Doc]): The documents, with or without annotation.
        scores (DocScores): The parser's scores.
        RETURNS (Tuple[float, list]): The penalty, and what the model's backward pass takes.
        """
        kind = self.training["drift"]
        if kind is None or not scores.scores:
            return 0.0, []
        if self._original is None:
            self._original = Original(self.model, self.name)
        original = self._original.scores(docs, self.model)
        parts = [
            drift(kind, now, before, trees_of(now.batch, self.trees))
            for now, before in zip(scores.scores, original.scores)
        ]
        total = require_finite(self.training["drift_weight"] * torch.stack(parts).sum(), "the drift")
        return float(total.detach()), [(total, None)]

    def rehearse(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn to score documents as the original did; see ``drift``, without which this does nothing.

        examples (Iterable[Example]): The documents; they need no annotation.
        drop (float): The dropout rate.
        sgd (Optional[Optimizer]): The optimizer.
        losses (Optional[Dict[str, float]]): Losses of all components so far.
        RETURNS (Dict[str, float]): The losses with this component's added.
        """
        losses = {} if losses is None else losses
        docs = [example.predicted for example in examples]
        self.close_batch()
        if self.training["drift"] is not None:
            set_dropout_rate(self.model, drop)
            scores, backprop = self.model.begin_update(docs)
            with culprit_named(self.name, self.model):
                scores.require_finite()
                loss, pairs = self.get_drift(docs, scores)
            losses[self.name] = losses.get(self.name, 0.0) + loss
            backprop(pairs)
            if sgd is not None:
                self.step(sgd)
        return losses

    def from_bytes(self, bytes_data: bytes, *, exclude=()) -> "SpigotParser":
        """Load the component; the original that ``drift`` compares with is then what was loaded.

        bytes_data (bytes): The output of ``to_bytes``.
        RETURNS (SpigotParser): Itself.
        """
        self._original = None
        return super().from_bytes(bytes_data, exclude=exclude)

    def from_disk(self, path, *, exclude=()) -> "SpigotParser":
        """Load the component; the original that ``drift`` compares with is then what was loaded.

        path (Path): The directory.
        RETURNS (SpigotParser): Itself.
        """
        self._original = None
        return super().from_disk(path, exclude=exclude)

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
            gold = gold_heads(part.batch, heads, trees_of(part.batch, self.trees).multi_root)
            if (gold >= 0).any():
                losses.append(self._loss_of(part, gold, labels))
        if not losses:
            return 0.0, []
        total = require_finite(torch.stack(losses).sum(), "the loss")
        return float(total.detach()), [(total, None)]

    def _gold(self, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
        """Heads and labels' numbers of all tokens, counted through; -1 = unknown."""
        trees = [aligned_tree(example, self.decoder.trees.projective) for example in examples]
        starts = offsets([len(heads) for heads, _ in trees])
        heads = np.concatenate([np.where(h >= 0, h + start, h) for (h, _), start in zip(trees, starts)])
        values, place = np.unique(np.concatenate([labels for _, labels in trees]), return_inverse=True)
        number = {self.vocab.strings[label]: i for i, label in enumerate(self.labels)}
        labels = np.array([number.get(int(value), -1) for value in values])[place]
        roots = heads == np.arange(len(heads))
        labels[roots] = number.get(self.vocab.strings["root"], -1)  # a pretrained parser may label them, too
        return heads, labels

    def _loss_of(self, part: TreeScores, gold: np.ndarray, labels: np.ndarray) -> torch.Tensor:
        device = part.arcs.device
        annotated = torch.from_numpy(np.flatnonzero((gold >= 0).any(1))).to(device)
        heads = torch.from_numpy(gold).to(device)
        rows = (part.arcs, part.lengths, heads)
        if len(annotated) < len(gold):
            rows = tuple(tensor[annotated] for tensor in rows)
        loss = self.loss(*rows, trees_of(part.batch, self.trees))
        label = np.where(gold >= 0, labels[np.minimum(part.batch.tokens, len(labels) - 1)], -1)
        if (label >= 0).any():
            predicted = part.label_scores(heads).flatten(0, 1)
            target = torch.from_numpy(label).to(device).flatten()
            loss = loss + cross_entropy(predicted, target, ignore_index=-1, reduction="sum")
        return loss
