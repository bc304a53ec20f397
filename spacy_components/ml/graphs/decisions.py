"""From part scores to graphs: for prediction, and for other layers that send a gradient back through them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from thinc.api import Ops
from thinc.types import Ints2d
from torch import Tensor
from torch.nn.functional import pad

from diffdecode.moves import moved, on_cpu
from diffdecode.structure import (
    GraphParts,
    SemanticGraph,
    Surrogate,
    graph_argmax,
    looked_at_once,
    semantic_graph,
)
from spacy_components.ml.graphs.scorers import PartScores
from spacy_components.ml.listening.gradients import GraphGradient
from spacy_components.ml.segments import SegmentBatch, SegmentedDocs, split_rows
from spacy_components.ml.trees.decisions import flat_rows, gives_gradient
from spacy_components.ml.trees.models import DocScores


@dataclass(frozen=True)
class GraphDecoder:
    """How scores become graphs, and how a gradient on the graphs becomes one on the scores.

    Attributes:
        surrogate: the surrogate gradient.
        grad_factor: what the surrogate gradient is multiplied with.
    """

    surrogate: Surrogate
    grad_factor: float = 1.0

    def predict(self, scores: DocScores, deterministic: Sequence[int]) -> np.ndarray:
        """The best graphs of all segments, without gradient.

        Args:
            scores: the scores.
            deterministic: labels that a predicate gives to one argument at most.

        Returns:
            ``[arcs, 3]``: positions of head and dependent (head -1: a top), label.
        """
        return self.arcs(scores, self.best(scores, deterministic))

    def best(self, scores: DocScores, deterministic: Sequence[int]) -> list[SemanticGraph]:
        """The best graphs of all segments, without gradient.

        Args:
            scores: the scores.
            deterministic: labels that a predicate gives to one argument at most.

        Returns:
            for each batch of segments its graphs.
        """

        def best() -> list[SemanticGraph]:
            scores.require_finite()
            return [_best(part, deterministic) for part in scores.scores]

        return looked_at_once(best)

    def arcs(self, scores: DocScores, chosen: Sequence[SemanticGraph]) -> np.ndarray:
        """Graphs of segments as arcs of the documents.

        Args:
            scores: the scores.
            chosen: for each batch of segments its graphs.

        Returns:
            as ``predict``.
        """
        return arcs_of([part.batch for part in scores.scores], chosen)

    def decide(self, scores: DocScores, deterministic: Sequence[int]) -> "GraphDecision":
        """Decide, and be ready for a gradient on the decision.

        Args:
            scores: scores made in training.
            deterministic: labels that a predicate gives to one argument at most.

        Returns:
            the graphs.
        """
        batches = looked_at_once(lambda: [self._decide(part, list(deterministic)) for part in scores.scores])
        return GraphDecision(self, scores.segments, batches)

    def _decide(self, part: PartScores, deterministic: list[int]) -> "_DecidedBatch":
        leaves = GraphParts(*(scores.detach().requires_grad_() for scores in part.parts))
        z = graph_argmax(
            leaves.arcs,
            leaves.labels,
            leaves.predicates,
            part.lengths,
            surrogate=self.surrogate,
            deterministic=deterministic,
        )
        return _DecidedBatch(part, leaves, z)


def _best(part: PartScores, deterministic: Sequence[int]) -> SemanticGraph:
    predicates, arcs, labels = part.parts
    return semantic_graph(arcs, labels, predicates, part.lengths, deterministic=list(deterministic))


def arcs_of(batches: Sequence[SegmentBatch], graphs: Sequence[SemanticGraph]) -> np.ndarray:
    """Arcs of batches of graphs, ``[arcs, 3]``: positions of head (-1: the root) and dependent, label."""
    arcs = [np.zeros((0, 3), dtype=np.int64)]
    for batch, of_batch in zip(batches, on_cpu([graph.labels.to(torch.int16) for graph in graphs])):
        tokens, labels = np.pad(batch.tokens, ((0, 0), (1, 0)), constant_values=-1), of_batch.numpy()
        row, dependent, head = np.nonzero(labels >= 0)
        columns = (tokens[row, head], tokens[row, dependent], labels[row, dependent, head])
        arcs.append(np.stack(columns, axis=1))
    return np.concatenate(arcs)


@dataclass
class _DecidedBatch:
    """Graphs ``z`` as a function of the detached scores ``leaves``, and the gradient so far."""

    scores: PartScores
    leaves: GraphParts
    z: GraphParts
    gradient: tuple[Tensor, Tensor] | None = None

    def graph(self) -> SemanticGraph:
        """The graph that ``z`` stands for."""
        labels = torch.where(self.z.arcs.detach() > 0, self.z.labels.detach().argmax(3), -1)
        return SemanticGraph(labels, self.z.predicates.detach() > 0)

    def add(
        self, dependents: Tensor, heads: Tensor, labels: Tensor, mean: Tensor, head_labels: Tensor | None
    ) -> None:
        """Add ``dL/dz``, given as rows ``[T+1, ...]`` of all tokens; arcs of the root get 0."""
        tokens = moved(torch.from_numpy(self.scores.batch.tokens), dependents.device)
        of_arcs = pad(dependents[tokens] @ heads[tokens].transpose(1, 2) - mean[tokens], (1, 0, 1, 0))
        without_tops = pad(labels[tokens], (0, 1)).unsqueeze(2)  # [B, N, 1, L]
        of_labels = without_tops.expand(-1, -1, tokens.shape[1], -1)
        if head_labels is not None:
            of_labels = of_labels + pad(head_labels[tokens], (0, 1)).unsqueeze(1)
        of_labels = pad(of_labels, (0, 0, 1, 0, 1, 0))
        before = (0, 0) if self.gradient is None else self.gradient
        self.gradient = (before[0] + of_arcs, before[1] + of_labels)

    def pairs(self, factor: float) -> list[tuple[Tensor, Tensor]]:
        """Scores and the surrogate gradient on them."""
        surrogate = torch.autograd.grad((self.z.arcs, self.z.labels), self.leaves, self.gradient)
        return [(scores, factor * gradient) for scores, gradient in zip(self.scores.parts, surrogate)]


@dataclass
class GraphDecision:
    """The graphs of a list of documents, and the gradients that came back on them."""

    decoder: GraphDecoder
    segments: SegmentedDocs
    batches: list[_DecidedBatch]

    def outputs(self, ops: Ops) -> list[Ints2d]:
        """For each document rows (head, dependent, label), tops left out."""
        batches = [batch.scores.batch for batch in self.batches]
        arcs = arcs_of(batches, [batch.graph() for batch in self.batches])
        arcs = arcs[arcs[:, 0] >= 0]
        arcs = arcs[np.argsort(arcs[:, 1], kind="stable")]
        lengths = self.segments.doc_lengths
        ends = np.cumsum(lengths)
        doc = np.searchsorted(ends, arcs[:, 1], side="right")
        arcs[:, :2] -= (ends - lengths)[doc][:, None]
        counts = np.bincount(doc, minlength=len(ends)).tolist()
        return split_rows(ops.asarray(arcs), counts)

    def add(self, gradients: Sequence[GraphGradient]) -> None:
        """Take a gradient on the graphs; those of several listeners add up.

        Args:
            gradients: one per document.
        """
        if self.batches:
            factors = [flat_rows([g[i] for g in gradients]) for i in range(3)]
            mean = flat_rows([g.mean[:, None] for g in gradients])
            given = gradients[0].head_labels is not None
            head_labels = flat_rows([g.head_labels for g in gradients]) if given else None
            for batch in self.batches:
                batch.add(*factors, mean, head_labels)

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Scores and the surrogate gradient on them, for the model's backward pass."""
        factor = self.decoder.grad_factor
        if not gives_gradient(self.decoder.surrogate, factor):
            return []
        decided = [batch for batch in self.batches if batch.gradient is not None]
        return [pair for batch in decided for pair in batch.pairs(factor)]
