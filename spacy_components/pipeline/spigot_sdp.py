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
from thinc.api import Config, Model

from diffdecode.structure import GraphParts, SemanticGraph
from spacy_components.finetuning.graph_drift import graph_drift
from spacy_components.ml.graphs.decisions import GraphDecision, GraphDecoder
from spacy_components.ml.graphs.losses import GRAPH_LOSSES
from spacy_components.ml.graphs.scorers import PartScores
from spacy_components.ml.listening.standalone import replaced_graph_listener
from spacy_components.ml.listening.upstream import require_upstreams
from spacy_components.ml.thinc_glue.finite import culprit_named, require_finite
from spacy_components.ml.thinc_glue.hash_embed_cnn import warn_of_unused_vectors
from spacy_components.ml.trees.models import DocScores
from spacy_components.pipeline.gold_graphs import aligned_arcs, gold_batch
from spacy_components.pipeline.gold_trees import offsets
from spacy_components.pipeline.listened_pipe import ListenedPipe
from spacy_components.sdp_graph import has_graph, set_graph
from spacy_components.settings import SpigotSdpSettings, as_config, takes_settings, values_of
from spacy_components.training.graph_labels import TOP, label_inventory

default_sdp_config = """
[model]
@architectures = "diffdecode.BiaffineGraphParser.v1"
hidden_width = 128
label_width = 48
max_distance = 16
lstm_width = 0
lstm_depth = 0

[model.segmenter]
@misc = "diffdecode.lazy_segments.v1"
max_length = 96

[model.tok2vec]
@architectures = "diffdecode.HashEmbedCNN.v1"
vectors = null
width = 96
depth = 4
embed_size = 2000
window_size = 1
maxout_pieces = 3
subword_features = true
"""
DEFAULT_SDP_MODEL = Config().from_str(default_sdp_config)["model"]


@Language.factory(
    "spigot_sdp",
    assigns=["doc._.sdp"],
    default_config={
        "model": DEFAULT_SDP_MODEL,
        **as_config(values_of(SpigotSdpSettings())),
        "scorer": {"@scorers": "diffdecode.sdp_scorer.v1"},
    },
    default_score_weights={
        "sdp_lf": 1.0,
        "sdp_uf": None,
        "sdp_up": None,
        "sdp_ur": None,
        "sdp_um": None,
        "sdp_lp": None,
        "sdp_lr": None,
        "sdp_lm": None,
        "sdp_lf_per_type": None,
    },
)
@takes_settings(SpigotSdpSettings)
def make_spigot_sdp(
    nlp: Language, name: str, model: Model, scorer: Callable | None, **settings: Any
) -> "SpigotSdp":
    """Make a semantic parser.

    Args:
        nlp: the pipeline.
        name: the component's name.
        model: scores of the parts.
        scorer: the scoring method.
        **settings: see ``SpigotSdpSettings``.
    """
    return SpigotSdp(nlp.vocab, model, name, SpigotSdpSettings.made(name, settings), scorer=scorer)


class SpigotSdp(ListenedPipe):
    """First-order semantic dependency parser: predicates, arcs and labelled arcs. Components after it can
    read its graphs through ``diffdecode.GraphListener.v1``, and their gradients tune it (SPIGOT).
    """

    kind = "graph"

    settings: SpigotSdpSettings

    def __init__(
        self,
        vocab: Vocab,
        model: Model[list[Doc], DocScores],
        name: str = "spigot_sdp",
        settings: SpigotSdpSettings = SpigotSdpSettings(),  # noqa: B008 - it is frozen
        *,
        scorer: Callable | None = None,
    ) -> None:
        """Initialize a semantic parser.

        Args:
            vocab: the shared vocabulary.
            model: scores of the parts.
            name: the component's name.
            settings: how it decides and learns.
            scorer: the scoring method.
        """
        super().__init__(vocab, model, name, settings)
        self.scorer = scorer
        self.cfg: dict[str, Any] = {"labels": [], "deterministic": []}

    def apply_settings(self) -> None:
        """Do what the settings say, after they have changed."""
        settings = self.settings
        self.decoder = GraphDecoder(settings.surrogate, settings.grad_factor)
        self.loss = GRAPH_LOSSES[settings.loss]
        self.model.attrs.update(replaced_graph_listener(settings))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of arcs between words."""
        return tuple(self.cfg["labels"])

    @property
    def label_data(self) -> dict[str, list[str]]:
        """What ``initialize`` takes as ``labels``."""
        return {"labels": list(self.labels), "deterministic": list(self.cfg["deterministic"])}

    @property
    def deterministic(self) -> list[int]:
        """Numbers of the deterministic labels."""
        every = [*self.labels, TOP]
        return [every.index(label) for label in self.cfg["deterministic"] if label in every]

    def add_label(self, label: str) -> int:
        """Add a label, before the component is initialized.

        Args:
            label: the label.

        Returns:
            0 if it was there already, else 1.
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
        self._tell_listeners()

    def _tell_listeners(self) -> None:
        key = self.settings.key
        for listener in self.listeners:
            expected = listener.attrs["mailbox"].key
            if expected not in ("", key):
                reader = listener.attrs["component"]
                raise ValueError(f"'{reader}' reads graphs of key {expected!r}, '{self.name}' makes {key!r}")
            listener.attrs["labels"] = listener.attrs["labels"] or list(self.labels)
            listener.attrs["key"] = key

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: dict[str, list[str]] | None = None,
    ) -> None:
        """Build the model for the labels of the training data.

        Args:
            get_examples: a function that returns a sample of examples.
            nlp: the pipeline.
            labels: ``label_data``, instead of what is in the examples.
        """
        validate_get_examples(get_examples, "SpigotSdp.initialize")
        require_upstreams(nlp, get_examples)
        warn_of_unused_vectors(nlp)
        if labels is None:
            labels = label_inventory((example.reference for example in get_examples()), self.settings.key)
        if not labels["labels"]:
            raise ValueError(
                f"'{self.name}': no label found. At least one training example needs a graph with an arc in "
                f"doc._.{self.settings.key}, or [initialize.components] its labels."
            )
        for label in labels["labels"]:
            self.add_label(label)
        given = self.settings.deterministic
        chosen = labels["deterministic"] if given is None else given
        self.cfg["deterministic"] = sorted(chosen)
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", len(self.labels) + 1)
        self.model.initialize(X=[example.predicted for example in islice(get_examples(), 10)])
        self.begin_training()
        self._tell_listeners()
        self.require_frozen_parts()
        self.require_order(nlp)
        self.warn_if_unheard(nlp)

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
        """Write the graphs to ``doc._.sdp``, or where the setting ``key`` says.

        Args:
            docs: the documents.
            graphs: what ``predict`` returned.
        """
        labels = self.labels
        for doc, rows in zip(docs, graphs):
            rows = rows.tolist()
            arcs = [(head, dep, labels[label]) for head, dep, label in rows if head >= 0]
            set_graph(doc, arcs, [dep for head, dep, _ in rows if head < 0], self.settings.key)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score the graphs of the component's key.

        Args:
            examples: the examples.
            **kwargs: further settings of the scorer.

        Returns:
            What the scorer returns.
        """
        return super().score(examples, key=self.settings.key, **kwargs)

    # Training

    def distance(self, kind: str, now: PartScores, original: PartScores) -> torch.Tensor:
        """How far the scores of a batch of segments are from what they were; see ``graph_drift``."""
        return graph_drift(kind, now, original)

    def decide(self, scores: DocScores) -> GraphDecision:
        """The graphs for the listeners.

        Args:
            scores: the scores.

        Returns:
            the graphs.
        """
        return self.decoder.decide(scores, self.deterministic)

    def get_loss(self, examples: Sequence[Example], scores: DocScores) -> tuple[float, list]:
        """The loss against the examples' graphs, summed.

        Args:
            examples: the examples; those without a graph add nothing.
            scores: the scores.

        Returns:
            the loss, and what the model's backward pass takes.
        """
        if not scores.scores or not any(has_graph(eg.reference, self.settings.key) for eg in examples):
            return 0.0, []
        arcs, known = aligned_arcs(examples, [*self.labels, TOP], self.settings.key)
        losses = [self._loss_of(part, arcs, known) for part in scores.scores]
        losses = [loss for loss in losses if loss is not None]
        if not losses:
            return 0.0, []
        total = require_finite(torch.stack(losses).sum(), "the loss")
        return float(total.detach()), [(total, None)]

    def _loss_of(self, part: PartScores, arcs: np.ndarray, known: np.ndarray) -> torch.Tensor | None:
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
