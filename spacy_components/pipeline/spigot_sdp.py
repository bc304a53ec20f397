"""A semantic dependency parser, trained by its graphs and, through them, by the components after it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab
from thinc.api import Config, Model

from diffdecode.moves import moved
from diffdecode.structure import GraphParts, SemanticGraph, looked_at_once
from spacy_components.confidence.annotations import ARC_PROBS, write_graphs
from spacy_components.confidence.decided import Decided
from spacy_components.confidence.graph_distribution import GraphDistribution, ScoredGraph, scaled
from spacy_components.confidence.measures import measure_graphs
from spacy_components.confidence.temperature import TEMPERATURE, Tempered
from spacy_components.finetuning.graph_drift import graph_drift
from spacy_components.ml.graphs.decisions import GraphDecision, GraphDecoder
from spacy_components.ml.graphs.losses import GRAPH_LOSSES, GraphLoss, likelihood
from spacy_components.ml.graphs.scorers import PartScores
from spacy_components.ml.listening.standalone import replaced_graph_listener
from spacy_components.ml.thinc_glue.finite import culprit_named, require_finite
from spacy_components.ml.thinc_glue.hash_embed_cnn import warn_of_unused_vectors
from spacy_components.ml.trees.models import DocScores
from spacy_components.pipeline.gold_graphs import aligned_arcs, gold_batch
from spacy_components.pipeline.graph_arcs import (
    arcs_and_tops,
    named_arcs,
    split_by_doc,
    weigh_by_key,
    within_docs,
)
from spacy_components.pipeline.listened_pipe import ListenedPipe
from spacy_components.sdp_graph import SdpGraph, get_graph, has_graph, set_graph
from spacy_components.settings import SpigotSdpSettings, as_config, takes_settings, values_of
from spacy_components.training.graph_labels import TOP, label_inventory, require_labels

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
SCORE_WEIGHTS = {
    "sdp_lf": 1.0,
    **dict.fromkeys(f"sdp_{name}" for name in ("uf", "up", "ur", "um", "lp", "lr", "lm", "lf_per_type")),
}


@Language.factory(
    "spigot_sdp",
    assigns=["doc._.sdp"],
    default_config={
        "model": DEFAULT_SDP_MODEL,
        **as_config(values_of(SpigotSdpSettings())),
        "scorer": {"@scorers": "diffdecode.sdp_scorer.v1"},
    },
    default_score_weights=SCORE_WEIGHTS,
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


class SpigotSdp(Tempered, ListenedPipe):
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
        self.cfg: dict[str, Any] = {"labels": [], "deterministic": [], TEMPERATURE: 1.0}

    def apply_settings(self) -> None:
        """Do what the settings say, after they have changed."""
        settings = self.settings
        self.decoder = GraphDecoder(settings.surrogate, settings.grad_factor)
        self.loss = GRAPH_LOSSES[settings.loss]
        self.model.attrs.update(replaced_graph_listener(settings))

    @property
    def keys(self) -> tuple[str, ...]:
        """Where its graphs are."""
        return (self.settings.key,)

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
        docs = self.some_docs(get_examples, nlp)
        warn_of_unused_vectors(nlp)
        if labels is None:
            labels = label_inventory((example.reference for example in get_examples()), self.settings.key)
        require_labels(self.name, labels["labels"], self.settings.key)
        for label in labels["labels"]:
            self.add_label(label)
        given = self.settings.deterministic
        chosen = labels["deterministic"] if given is None else given
        self.cfg["deterministic"] = sorted(chosen)
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", len(self.labels) + 1)
        self.model.initialize(X=docs)
        self.temperature = 1.0
        self.begin_training()
        self._tell_listeners()
        weigh_by_key(nlp)
        self.require_place(nlp)

    # Prediction

    def predict(self, docs: Iterable[Doc]) -> Decided:
        """Parse documents without changing them.

        Args:
            docs: the documents.

        Returns:
            For each document ``[arcs, 3]``: head (-1: the dependent is a top), dependent, and the label's
            number.
        """
        scores = self.model.predict(list(docs))
        with culprit_named(self.name, self.model):
            chosen = self.decoder.best(scores, self.deterministic)
        arcs = self.decoder.arcs(scores, chosen)
        order = np.argsort(arcs[:, 1], kind="stable")
        arcs, doc = within_docs(arcs[order], scores)
        measured = measure_graphs(self.settings.confidence, scores, chosen, self.temperature)
        if ARC_PROBS in measured:
            measured[ARC_PROBS] = split_by_doc(measured[ARC_PROBS][order], doc, scores)
        return Decided(split_by_doc(arcs, doc, scores), measured)

    def set_annotations(self, docs: Iterable[Doc], graphs: Sequence[np.ndarray]) -> None:
        """Write the graphs to ``doc._.sdp``, or where the setting ``key`` says; and the confidence.

        Args:
            docs: the documents.
            graphs: what ``predict`` returned.
        """
        docs, key = list(docs), self.settings.key
        named = [named_arcs(rows.tolist(), self.labels) for rows in graphs]
        for doc, arcs in zip(docs, named):
            set_graph(doc, *arcs_and_tops(arcs), key)
        measured = dict(getattr(graphs, "confidence", {}))
        if ARC_PROBS in measured:
            pairs = zip(named, measured[ARC_PROBS])
            measured[ARC_PROBS] = [dict(zip(arcs, probs.tolist())) for arcs, probs in pairs]
        write_graphs(docs, key, measured)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score the graphs of the component's key.

        Args:
            examples: the examples.
            **kwargs: further settings of the scorer.

        Returns:
            What the scorer returns.
        """
        return super().score(examples, key=self.settings.key, **kwargs)

    # Confidence

    def k_best(self, doc: Doc, k: int = 10, *, determinism: bool = True) -> list[ScoredGraph]:
        """The likeliest graphs of a document, likeliest first; the first is what the parser predicts.

        A graph in which a word has no arguments can come from two decisions, on whether that is a predicate:
        the graphs are in the order of the likelier of them.

        Args:
            doc: the document; it is not changed.
            k: how many graphs; fewer come where there are no more.
            determinism: False takes graphs in which a predicate gives a deterministic label twice, too.

        Returns:
            the graphs, without two that are the same.

        Raises:
            ValueError: ``k`` below 1; deterministic labels, unless ``determinism`` is False.
        """
        self._refuse_determinism("k_best", determinism)
        return [self._scored(*graph) for graph in self._distribution(doc).k_best(k)]

    def sample(
        self,
        doc: Doc,
        n: int = 1,
        *,
        determinism: bool = True,
        generator: torch.Generator | None = None,
    ) -> list[ScoredGraph]:
        """Independent samples from the parser's distribution over the graphs of a document.

        Args:
            doc: the document; it is not changed.
            n: how many.
            determinism: as for ``k_best``.
            generator: of the random numbers, on the CPU; by default torch's own.

        Returns:
            the samples.

        Raises:
            ValueError: ``n`` below 1; deterministic labels, unless ``determinism`` is False.
        """
        self._refuse_determinism("sample", determinism)
        return [self._scored(*graph) for graph in self._distribution(doc).sample(n, generator)]

    def log_prob(self, doc: Doc, graph: SdpGraph | None = None) -> float:
        """The natural logarithm of the probability that the parser gives to a graph, determinism left out.

        Args:
            doc: the document.
            graph: by default that of the document.

        Returns:
            the logarithm; -inf for a graph that the parser cannot give.

        Raises:
            ValueError: no graph, here or on the document.
        """
        key = self.settings.key
        graph = get_graph(doc, key) if graph is None else graph
        if graph is None:
            raise ValueError(f"{doc.text!r:.60} has no graph in doc._.{key}; say which graph you mean")
        number = {label: i for i, label in enumerate(self.labels)}
        arcs = [(head, dep, number.get(label, -1)) for head, dep, label in graph.arcs]
        tops = [(-1, top, len(self.labels)) for top in graph.top]
        return self._distribution(doc).log_prob([*arcs, *tops])

    def _refuse_determinism(self, what: str, determinism: bool) -> None:
        labels = self.cfg["deterministic"]
        if determinism and labels:
            shown = f"{', '.join(labels[:3])}{' ...' if labels[3:] else ''}"
            raise ValueError(
                f"'{self.name}': {what} does not know that {shown} are deterministic; with "
                "determinism=False it takes graphs that give such a label twice, too"
            )

    def _distribution(self, doc: Doc) -> GraphDistribution:
        scores = self.model.predict([doc])
        with culprit_named(self.name, self.model):
            scores.require_finite()
        return GraphDistribution(scores, self.temperature)

    def _scored(self, arcs: Iterable[tuple[int, int, int]], log_prob: float) -> ScoredGraph:
        return ScoredGraph(*arcs_and_tops(sorted(named_arcs(arcs, self.labels))), log_prob, self.settings.key)

    @property
    def annotation(self) -> dict[str, Any]:
        """What readers have to read for the two methods below."""
        return {"graph": True, "key": self.settings.key}

    def verdicts(self, examples: Sequence[Example], scores: DocScores) -> tuple[np.ndarray, np.ndarray]:
        """How sure the parser is of each labelled arc and top that it decides on, and whether it is right.

        Args:
            examples: the examples; what is not annotated is left out.
            scores: the scores of their predicted documents.

        Returns:
            probabilities ``[n]``, and bool ``[n]``.
        """
        chosen = self.decoder.best(scores, self.deterministic)
        found = self.decoder.arcs(scores, chosen)
        probs = measure_graphs([ARC_PROBS], scores, chosen, self.temperature)[ARC_PROBS]
        gold, known = aligned_arcs(examples, [*self.labels, TOP], self.settings.key)
        counts = known[found[:, 1]] & ((found[:, 0] < 0) | known[found[:, 0]])
        right = set(map(tuple, gold.tolist()))
        return probs[counts], np.array([tuple(arc) in right for arc in found[counts].tolist()], dtype=bool)

    def surprise(self, examples: Sequence[Example], scores: DocScores) -> Callable[[float], float]:
        """The negative log-likelihood of annotated graphs, in nats, as a function of the temperature.

        Args:
            examples: the examples; what is not annotated is left out.
            scores: the scores of their predicted documents.
        """
        arcs, known = aligned_arcs(examples, [*self.labels, TOP], self.settings.key)

        def at(temperature: float) -> float:
            parts = (replace(part, parts=scaled(part, temperature)) for part in scores.scores)
            losses = (self._loss_of(part, arcs, known, likelihood) for part in parts)
            return sum(float(loss) for loss in losses if loss is not None)

        return at

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
        total = looked_at_once(lambda: self._summed_loss(examples, scores))
        return (0.0, []) if total is None else (float(total.detach()), [(total, None)])

    def _summed_loss(self, examples: Sequence[Example], scores: DocScores) -> torch.Tensor | None:
        arcs, known = aligned_arcs(examples, [*self.labels, TOP], self.settings.key)
        losses = [self._loss_of(part, arcs, known, self.loss) for part in scores.scores]
        losses = [loss for loss in losses if loss is not None]
        return require_finite(torch.stack(losses).sum(), "the loss") if losses else None

    def _loss_of(
        self, part: PartScores, arcs: np.ndarray, known: np.ndarray, loss: GraphLoss
    ) -> torch.Tensor | None:
        labels, annotated = gold_batch(part.batch, arcs, known)
        rows = np.flatnonzero(annotated[:, 1:, 1:].any((1, 2)))
        if not len(rows):
            return None
        device = part.lengths.device
        of_rows = (rows, labels[rows], annotated[rows])
        rows, labels, annotated = (moved(torch.from_numpy(array), device) for array in of_rows)
        predicates, arc_scores, label_scores = part.parts
        arc_scores = arc_scores[rows].masked_fill(~annotated, -torch.inf)
        scores = GraphParts(predicates[rows], arc_scores, label_scores[rows])
        gold = SemanticGraph(labels, (labels >= 0).any(1))
        deterministic = torch.zeros(label_scores.shape[3], dtype=torch.bool)
        deterministic[self.deterministic] = True
        return loss(scores, gold, part.lengths[rows], deterministic)
