"""A semantic dependency parser, trained by its graphs and, through them, by the components after it."""

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

from diffdecode.structure import GraphParts, SemanticGraph
from spacy_components.ml.graphs.decisions import GraphDecision, GraphDecoder
from spacy_components.ml.graphs.losses import GRAPH_LOSSES
from spacy_components.ml.graphs.scorers import GraphScores
from spacy_components.ml.listening.standalone import replaced_graph_listener
from spacy_components.ml.listening.upstream import require_upstreams
from spacy_components.ml.thinc_glue.finite import culprit_named, require_finite
from spacy_components.ml.thinc_glue.hash_embed_cnn import warn_of_unused_vectors
from spacy_components.ml.trees.decisions import surrogate_from_config
from spacy_components.ml.trees.models import DocScores
from spacy_components.pipeline.gold_graphs import aligned_arcs, gold_batch
from spacy_components.pipeline.gold_trees import offsets
from spacy_components.pipeline.listened_pipe import ListenedPipe
from spacy_components.sdp_graph import has_graph, set_graph
from spacy_components.training.graph_labels import TOP, label_inventory


class SpigotSdp(ListenedPipe):
    """First-order semantic dependency parser: predicates, arcs and labelled arcs. Components after it can
    read its graphs through ``diffdecode.GraphListener.v1``, and their gradients tune it (SPIGOT).
    """

    kind = "graph"

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str = "spigot_sdp",
        *,
        deterministic: Sequence[str] | None = None,
        loss: str = "local",
        surrogate: str = "spigot",
        surrogate_options: dict[str, Any] | None = None,
        eta: float = 1.0,
        grad_factor: float = 1.0,
        scorer: Callable | None = None,
    ) -> None:
        """Initialize a semantic parser.

        vocab (Vocab): The shared vocabulary.
        model (Model[List[Doc], DocScores]): Scores of the parts.
        name (str): The component instance name.
        deterministic (Optional[Sequence[str]]): Labels that a predicate gives to one argument at most; None
            takes those for which this holds in all the training data, [] none.
        loss (str): ``local`` (each part by itself), ``likelihood`` (of the graph among all graphs) or
            ``hinge`` (structured, with cost augmentation: the SPIGOT paper's, which from scratch learns far
            more slowly than the others).
        surrogate (str): Name of the surrogate gradient of the graphs.
        surrogate_options (Optional[Dict[str, Any]]): Its options, besides ``eta``.
        eta (float): Step size of the surrogate (equation 4a of the paper), for those that have one.
        grad_factor (float): What the surrogate gradient is multiplied with; 0 is a pipeline.
        scorer (Optional[Callable]): The scoring method.
        """
        super().__init__(vocab, model, name)
        if loss not in GRAPH_LOSSES:
            raise ValueError(f"'{name}': no loss {loss!r}; there are {', '.join(sorted(GRAPH_LOSSES))}")
        chosen = surrogate_from_config(surrogate, eta, surrogate_options)
        self.decoder = GraphDecoder(chosen, grad_factor)
        self.loss = GRAPH_LOSSES[loss]
        self.scorer = scorer
        self._deterministic = deterministic
        self.cfg: dict[str, Any] = {"labels": [], "deterministic": []}
        decoding = {
            "surrogate": surrogate,
            "surrogate_options": dict(surrogate_options or {}),
            "eta": eta,
            "grad_factor": grad_factor,
        }
        model.attrs.update(replaced_graph_listener(decoding))

    @property
    def labels(self) -> tuple[str, ...]:
        """RETURNS (Tuple[str, ...]): The labels of arcs between words."""
        return tuple(self.cfg["labels"])

    @property
    def label_data(self) -> dict[str, list[str]]:
        """RETURNS (Dict[str, List[str]]): What ``initialize`` takes as ``labels``."""
        return {"labels": list(self.labels), "deterministic": list(self.cfg["deterministic"])}

    @property
    def deterministic(self) -> list[int]:
        """RETURNS (List[int]): Numbers of the deterministic labels."""
        every = [*self.labels, TOP]
        return [every.index(label) for label in self.cfg["deterministic"] if label in every]

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
        if label == TOP:
            raise ValueError(f"'{self.name}': the label {TOP} is kept for the arcs from the root")
        self.cfg["labels"].append(label)
        return 1

    def find_listeners(self, component: Any) -> None:
        """Add all layers of a component that listen to this one, and tell them the labels."""
        super().find_listeners(component)
        self._tell_labels()

    def _tell_labels(self) -> None:
        for listener in self.listeners:
            listener.attrs["labels"] = listener.attrs["labels"] or list(self.labels)

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: dict[str, list[str]] | None = None,
    ) -> None:
        """Build the model for the labels of the training data.

        get_examples (Callable[[], Iterable[Example]]): A function that returns a sample of examples.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Dict[str, List[str]]]): ``label_data``, instead of what is in the examples.
        """
        validate_get_examples(get_examples, "SpigotSdp.initialize")
        require_upstreams(nlp, get_examples)
        warn_of_unused_vectors(nlp)
        if labels is None:
            labels = label_inventory(example.reference for example in get_examples())
        if not labels["labels"]:
            raise ValueError(
                f"'{self.name}': no label found. At least one training example needs a graph with an arc in "
                "doc._.sdp, or [initialize.components] its labels."
            )
        for label in labels["labels"]:
            self.add_label(label)
        chosen = labels["deterministic"] if self._deterministic is None else self._deterministic
        self.cfg["deterministic"] = sorted(chosen)
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", len(self.labels) + 1)
        self.model.initialize(X=[example.predicted for example in islice(get_examples(), 10)])
        self._tell_labels()
        self.require_order(nlp)

    # Prediction

    def predict(self, docs: Iterable[Doc]) -> list[np.ndarray]:
        """Parse documents without changing them.

        Args:
            docs: the documents.

        Returns:
            For each document ``[arcs, 3]``: head (-1: the dependent is a top), dependent, and the label's
            number.
        """
        scores = self.model.predict(list(docs))
        with culprit_named(self.name, self.model):
            arcs = self.decoder.predict(scores, self.deterministic)
        arcs = arcs[np.argsort(arcs[:, 1], kind="stable")]
        lengths = scores.segments.doc_lengths
        doc = np.searchsorted(np.cumsum(lengths), arcs[:, 1], side="right")
        starts = offsets(lengths)[doc]
        arcs[:, 0] = np.where(arcs[:, 0] >= 0, arcs[:, 0] - starts, -1)
        arcs[:, 1] -= starts
        return np.split(arcs, np.searchsorted(doc, np.arange(1, len(lengths)))) if len(lengths) else []

    def set_annotations(self, docs: Iterable[Doc], graphs: Sequence[np.ndarray]) -> None:
        """Write the graphs to ``doc._.sdp``.

        docs (Iterable[Doc]): The documents.
        graphs (Sequence[numpy.ndarray]): What ``predict`` returned.
        """
        labels = self.labels
        for doc, rows in zip(docs, graphs):
            rows = rows.tolist()
            arcs = [(head, dep, labels[label]) for head, dep, label in rows if head >= 0]
            set_graph(doc, arcs, [dep for head, dep, _ in rows if head < 0])

    # Training

    def decide(self, scores: DocScores) -> GraphDecision:
        """The graphs for the listeners.

        scores (DocScores): The scores.
        RETURNS (GraphDecision): The graphs.
        """
        return self.decoder.decide(scores, self.deterministic)

    def get_loss(self, examples: Sequence[Example], scores: DocScores) -> tuple[float, list]:
        """The loss against the examples' graphs, summed.

        examples (Sequence[Example]): The examples; those without a graph add nothing.
        scores (DocScores): The scores.
        RETURNS (Tuple[float, list]): The loss, and what the model's backward pass takes.
        """
        if not scores.scores or not any(has_graph(example.reference) for example in examples):
            return 0.0, []
        arcs, known = aligned_arcs(examples, [*self.labels, TOP])
        losses = [self._loss_of(part, arcs, known) for part in scores.scores]
        losses = [loss for loss in losses if loss is not None]
        if not losses:
            return 0.0, []
        total = require_finite(torch.stack(losses).sum(), "the loss")
        return float(total.detach()), [(total, None)]

    def _loss_of(self, part: GraphScores, arcs: np.ndarray, known: np.ndarray) -> torch.Tensor | None:
        labels, annotated = gold_batch(part.batch, arcs, known)
        rows = np.flatnonzero(annotated[:, 1:, 1:].any((1, 2)))
        if not len(rows):
            return None
        device = part.lengths.device
        rows, labels, annotated = (torch.from_numpy(array).to(device) for array in (rows, labels, annotated))
        predicates, arc_scores, label_scores = part.parts
        arc_scores = arc_scores[rows].masked_fill(~annotated[rows], -torch.inf)
        scores = GraphParts(predicates[rows], arc_scores, label_scores[rows])
        gold = SemanticGraph(labels[rows], (labels[rows] >= 0).any(1))
        deterministic = torch.zeros(label_scores.shape[3], dtype=torch.bool, device=device)
        deterministic[self.deterministic] = True
        return self.loss(scores, gold, part.lengths[rows], deterministic)
