"""Two semantic parsers with parts across their formalisms, in one component."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab
from thinc.api import Model

from diffdecode.moves import moved
from diffdecode.structure import SemanticGraph, looked_at_once
from spacy_components.ml.graphs.joint import LABELS, JointDecision, JointDecoder, JointScores
from spacy_components.ml.graphs.losses import JOINT_LOSSES
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
from spacy_components.pipeline.spigot_sdp import DEFAULT_SDP_MODEL, SCORE_WEIGHTS
from spacy_components.sdp_graph import has_graph, make_key, set_graph
from spacy_components.settings import JointSdpSettings, as_config, takes_settings, values_of
from spacy_components.training.graph_labels import TOP, label_inventory, require_labels

DEFAULT_JOINT_MODEL = DEFAULT_SDP_MODEL | {
    "@architectures": "diffdecode.JointGraphParser.v1",
    "first": None,
    "second": None,
    "rank": 16,
    "pair_heads": 4,
}


@Language.factory(
    "joint_sdp",
    default_config={
        "model": DEFAULT_JOINT_MODEL,
        **as_config(values_of(JointSdpSettings())),
        "scorer": {"@scorers": "diffdecode.sdp_scorer.v1"},
    },
    default_score_weights=SCORE_WEIGHTS,
)
@takes_settings(JointSdpSettings)
def make_joint_sdp(
    nlp: Language, name: str, model: Model, scorer: Callable | None, **settings: Any
) -> "JointSdp":
    """Make two semantic parsers that decide together.

    Args:
        nlp: the pipeline.
        name: the component's name.
        model: scores of the parts.
        scorer: the scoring method, for one graph at a time.
        **settings: see ``JointSdpSettings``.
    """
    return JointSdp(nlp.vocab, model, name, JointSdpSettings.made(name, settings), scorer=scorer)


class JointSdp(ListenedPipe):
    """Two first-order semantic dependency parsers, and parts for two arcs between the same words.

    The best two graphs are decided together, exactly (``diffdecode.structure.joint_semantic_graphs``). Texts
    may have one of the graphs or both. Components after it read either through
    ``diffdecode.GraphListener.v1``, which says by its ``key`` which, and their gradients tune it.
    """

    kind = "graph"

    settings: JointSdpSettings

    def __init__(
        self,
        vocab: Vocab,
        model: Model[list[Doc], DocScores],
        name: str = "joint_sdp",
        settings: JointSdpSettings = JointSdpSettings(),  # noqa: B008 - it is frozen
        *,
        scorer: Callable | None = None,
    ) -> None:
        """Initialize the component.

        Args:
            vocab: the shared vocabulary.
            model: scores of the parts.
            name: the component's name.
            settings: how it decides and learns.
            scorer: the scoring method, for one graph at a time.
        """
        for key in settings.keys:
            make_key(key)
        super().__init__(vocab, model, name, settings)
        self.scorer = scorer
        self.cfg: dict[str, Any] = {"labels": {key: [] for key in settings.keys}}

    def apply_settings(self) -> None:
        """Do what the settings say, after they have changed."""
        self.decoder = JointDecoder(self.settings.surrogate, self.settings.grad_factor)
        self.loss = JOINT_LOSSES[self.settings.loss]
        self.model.attrs.update(replace_listener=_no_private_copy, replace_listener_cfg=_no_private_copy)

    @property
    def keys(self) -> tuple[str, ...]:
        """Where its graphs are."""
        return tuple(self.settings.keys)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of arcs between words, with the key before them."""
        return tuple(f"{key}:{label}" for key in self.keys for label in self.cfg["labels"][key])

    @property
    def label_data(self) -> dict[str, dict[str, list[str]]]:
        """What ``initialize`` takes as ``labels``."""
        return {key: {"labels": list(self.cfg["labels"][key])} for key in self.keys}

    def find_listeners(self, component: Any) -> None:
        """Add all layers of a component that listen to this one, and tell them the labels."""
        super().find_listeners(component)
        self._tell_listeners()

    def _tell_listeners(self) -> None:
        for listener in self.listeners:
            key = listener.attrs["mailbox"].key
            if key not in self.keys:
                reader, keys = listener.attrs["component"], " and ".join(self.keys)
                asked = f"graphs of key {key!r}" if key else "a graph without a key"
                raise ValueError(f"'{reader}' reads {asked}, '{self.name}' makes {keys}")
            listener.attrs["labels"] = listener.attrs["labels"] or list(self.cfg["labels"][key])
            listener.attrs["key"] = key

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Build the model for the labels of the training data.

        Args:
            get_examples: a function that returns a sample of examples.
            nlp: the pipeline.
            labels: ``label_data``, instead of what is in the examples; ``diffdecode.GraphLabels.v1`` reads
                those of a key.
        """
        docs = self.some_docs(get_examples, nlp)
        warn_of_unused_vectors(nlp)
        for key in self.keys:
            if labels is not None and key in labels:
                found = labels[key]["labels"]
            else:
                found = label_inventory((example.reference for example in get_examples()), key)["labels"]
            require_labels(self.name, found, key)
            self.cfg["labels"][key] = sorted(found)
        self.model.attrs[LABELS] = [len(self.cfg["labels"][key]) + 1 for key in self.keys]
        self.model.initialize(X=docs)
        self.begin_training()
        self._tell_listeners()
        weigh_by_key(nlp)
        self.require_place(nlp)

    # Prediction

    def predict(self, docs: Iterable[Doc]) -> list[tuple[np.ndarray, ...]]:
        """Parse documents without changing them.

        Args:
            docs: the documents.

        Returns:
            For each document and each graph ``[arcs, 3]``: head (-1: the dependent is a top), dependent, and
            the label's number.
        """
        scores = self.model.predict(list(docs))
        with culprit_named(self.name, self.model):
            found = self.decoder.arcs(scores)
        by_graph = []
        for arcs in found:
            arcs, doc = within_docs(arcs[np.argsort(arcs[:, 1], kind="stable")], scores)
            by_graph.append(split_by_doc(arcs, doc, scores))
        return list(zip(*by_graph))

    def set_annotations(self, docs: Iterable[Doc], graphs: Sequence[tuple[np.ndarray, ...]]) -> None:
        """Write the graphs to the places that ``keys`` says.

        Args:
            docs: the documents.
            graphs: what ``predict`` returned.
        """
        for doc, of_doc in zip(docs, graphs):
            for key, arcs in zip(self.keys, of_doc):
                named = named_arcs(arcs.tolist(), self.cfg["labels"][key])
                set_graph(doc, *arcs_and_tops(named), key)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score both graphs.

        Args:
            examples: the examples.
            **kwargs: further settings of the scorer.

        Returns:
            What the scorer returns for either.
        """
        examples, scores = list(examples), {}
        for key in self.keys:
            scores |= super().score(examples, key=key, **kwargs)
        return scores

    # Training

    def wish(self, listener: Model) -> int:
        """Which of the graphs a listener reads."""
        return self.keys.index(listener.attrs["mailbox"].key)

    def decide_as(self, which: int, scores: DocScores) -> JointDecision:
        """The graphs of one kind, for the listeners.

        Args:
            which: of the two.
            scores: the scores.
        """
        return self.decoder.decide(which, scores)

    def get_loss(self, examples: Sequence[Example], scores: DocScores) -> tuple[float, list]:
        """The loss against the examples' graphs, summed.

        Args:
            examples: the examples; a graph that is not there adds nothing.
            scores: the scores.

        Returns:
            the loss, and what the model's backward pass takes.
        """
        annotated = any(has_graph(eg.reference, key) for eg in examples for key in self.keys)
        if not scores.scores or not annotated:
            return 0.0, []
        total = looked_at_once(lambda: self._summed_loss(examples, scores))
        return float(total.detach()), [(total, None)]

    def _summed_loss(self, examples: Sequence[Example], scores: DocScores) -> torch.Tensor:
        gold = [aligned_arcs(examples, [*self.cfg["labels"][key], TOP], key) for key in self.keys]
        losses = [self._loss_of(part, gold) for part in scores.scores]
        return require_finite(torch.stack(losses).sum(), "the loss")

    def _loss_of(self, part: JointScores, gold: Sequence[tuple[np.ndarray, np.ndarray]]) -> torch.Tensor:
        graphs, known = [], []
        for arcs, annotated in gold:
            arrays = gold_batch(part.batch, arcs, annotated)
            labels, of_pairs = (moved(torch.from_numpy(array), part.lengths.device) for array in arrays)
            graphs.append(SemanticGraph(labels, (labels >= 0).any(1)))
            known.append(of_pairs)
        return self.loss(part.parts, tuple(graphs), tuple(known), part.lengths)


def _no_private_copy(*_: Any) -> None:
    raise ValueError(
        "a listener to joint_sdp cannot be replaced with a copy of its own: keep them connected, or listen "
        "to a spigot_sdp"
    )
