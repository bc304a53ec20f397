"""A semantic parser's distribution over the graphs of a document.

``p(graph) ∝ exp(sum of the scores of its parts)`` in every segment, as it is trained with the loss
``likelihood``: a predicate, its arcs and their labels; determinism is left out. Predicates do not interact,
and arguments of one predicate do not either, so that all sums are products.

A document shows arcs and tops, and not whether a word without arguments was taken for a predicate: where
probabilities of graphs are meant, both are added up.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from spacy.tokens import Doc
from torch import Tensor
from torch.nn.functional import softplus
from torch.special import entr

from diffdecode.structure import GraphParts, possible_arcs
from diffdecode.structure.graphs import Graphs
from spacy_components.confidence.distribution import best_sums
from spacy_components.ml.graphs.scorers import PartScores
from spacy_components.ml.trees.models import DocScores
from spacy_components.sdp_graph import set_graph

ROOT = -1
"""Head of a top."""

Arcs = frozenset[tuple[int, int, int]]
"""Positions of head (-1: a top) and dependent, and the label's number."""


class ScoredGraph(NamedTuple):
    """A graph that a document may have.

    Attributes:
        arcs: triples of head, dependent and label.
        top: tokens under the artificial root.
        log_prob: natural logarithm of its probability.
        key: of the graph on a document.
    """

    arcs: list[tuple[int, int, str]]
    top: list[int]
    log_prob: float
    key: str

    def on(self, doc: Doc) -> Doc:
        """A copy of the document that has this graph.

        Args:
            doc: the document that was asked about.
        """
        copy = doc.copy()
        set_graph(copy, self.arcs, self.top, self.key)
        return copy


def graphs_of(part: PartScores) -> Graphs:
    """All graphs of a batch of segments, determinism left out."""
    labels = part.parts.labels
    deterministic = torch.zeros(labels.shape[3], dtype=torch.bool, device=labels.device)
    return Graphs(part.lengths, tuple(labels.shape[1:]), True, deterministic)


def scaled(part: PartScores, temperature: float) -> GraphParts:
    """Scores divided by the temperature, in float64."""
    return GraphParts(*(scores.detach().double() / temperature for scores in part.parts))


def marginals(part: PartScores, temperature: float) -> GraphParts:
    """Probabilities of predicates, arcs and labelled arcs of a batch of segments; shapes as the scores."""
    graphs = graphs_of(part)
    return graphs.unpack(graphs.marginals(graphs.pack(scaled(part, temperature))))


def _arc_scores(parts: GraphParts, lengths: Tensor) -> Tensor:
    """``[B, N+1, N+1]``: what an arc adds to a graph, its labels summed out; -inf where there is none."""
    possible = possible_arcs(lengths, parts.arcs.shape[1])
    return torch.where(possible, parts.arcs + parts.labels.logsumexp(3), -torch.inf)


def entropy(part: PartScores, temperature: float) -> Tensor:
    """``[B]``: entropy in nats of the graphs of a batch of segments."""
    parts = scaled(part, temperature)
    arcs = _arc_scores(parts, part.lengths)
    within = parts.labels.masked_fill((arcs == -torch.inf).unsqueeze(3), 0)
    of_label = entr(within.softmax(3)).sum(3)
    p = torch.sigmoid(arcs)
    of_arcs = (entr(p) + entr(torch.sigmoid(-arcs)) + p * of_label).sum(1)
    log_none = -softplus(arcs).sum(1)  # no argument, given that it is a predicate
    is_predicate = torch.sigmoid(parts.predicates - log_none)
    some = 1 - log_none.exp()
    nothing = 1 - is_predicate * some
    of_graph = is_predicate * (of_arcs - entr(log_none.exp())) + some * entr(is_predicate) + entr(nothing)
    position = torch.arange(arcs.shape[1], device=arcs.device)
    return of_graph.masked_fill(position > part.lengths[:, None], 0).sum(1)


class _Segment:
    """Scores ``predicates [N+1]`` and ``labelled [N+1, N+1, L]`` (argument, predicate, label)."""

    def __init__(self, words: np.ndarray, predicates: Tensor, arcs: Tensor, labels: Tensor):
        n = len(words)
        self.positions = np.concatenate([[ROOT], words])
        self.place = {int(word): place for place, word in enumerate(self.positions)}
        possible = possible_arcs(torch.tensor([n]), n + 1)[0].unsqueeze(2)
        added = (arcs.unsqueeze(2) + labels)[: n + 1, : n + 1].detach().cpu()
        self.labelled = added.double().masked_fill(~possible, -torch.inf).numpy()
        self.predicates = predicates[: n + 1].detach().double().cpu().numpy()

    def log_partition(self, temperature: float) -> np.ndarray:
        """``[N+1]``: of each predicate and its arguments."""
        arcs = np.logaddexp.reduce(self.labelled / temperature, axis=2)
        with_arguments = self.predicates / temperature + np.logaddexp(0, arcs).sum(0)
        return np.logaddexp(0, with_arguments)

    def score(self, arcs: Iterable[tuple[int, int, int]], temperature: float) -> float:
        """Logarithm of the summed exponentiated scores of all decisions that give these ``(argument,
        predicate, label)``, places in the segment."""
        sums = np.logaddexp(0, self.predicates / temperature)
        of_arcs = np.zeros(len(sums))
        for argument, predicate, label in arcs:
            of_arcs[predicate] += self.labelled[argument, predicate, label] / temperature
            sums[predicate] = self.predicates[predicate] / temperature
        return float((sums + of_arcs).sum())

    def k_best(self, k: int) -> list[tuple[float, Arcs]]:
        """Graphs by the score of the likeliest decision for each, best first."""
        choices = [self._of_predicate(predicate, k) for predicate in range(len(self.predicates))]
        return _joined(choices, k)

    def _of_predicate(self, predicate: int, k: int) -> list[tuple[float, Arcs]]:
        arguments = [self._of_argument(argument, predicate, k) for argument in range(1, len(self.positions))]
        own = self.predicates[predicate]
        found = [(own + gain, arcs) for gain, arcs in _joined(arguments, k + 1) if arcs]
        return sorted([(max(own, 0.0), frozenset()), *found], key=lambda choice: -choice[0])[:k]

    def _of_argument(self, argument: int, predicate: int, k: int) -> list[tuple[float, Arcs]]:
        gains = self.labelled[argument, predicate]
        order = [label for label in np.argsort(-gains, kind="stable")[:k] if gains[label] > -np.inf]
        head, dependent = int(self.positions[predicate]), int(self.positions[argument])
        arcs = [(float(gains[label]), frozenset([(head, dependent, int(label))])) for label in order]
        return sorted([(0.0, frozenset()), *arcs], key=lambda choice: -choice[0])[:k]


def _joined(choices: Sequence[list[tuple[float, Arcs]]], k: int) -> list[tuple[float, Arcs]]:
    """The ``k`` best ways to take one of each list."""
    scores = [np.array([score for score, _ in of_one]) for of_one in choices]
    found = []
    for ranks in best_sums(scores, k):
        chosen = [of_one[rank] for of_one, rank in zip(choices, ranks)]
        found.append((sum(score for score, _ in chosen), frozenset().union(*(arcs for _, arcs in chosen))))
    return found


class GraphDistribution:
    """The distribution over the graphs of one document; segments are independent.

    Args:
        scores: of the document.
        temperature: what the scores are divided by.
    """

    def __init__(self, scores: DocScores, temperature: float = 1.0):
        self.scores = scores
        self.temperature = temperature
        self._segments = [
            _Segment(tokens[:length], *(of_part[b] for of_part in part.parts))
            for part in scores.scores
            for b, (tokens, length) in enumerate(zip(part.batch.tokens, part.batch.lengths))
        ]
        self._log_partition = sum(float(s.log_partition(temperature).sum()) for s in self._segments)

    def log_prob(self, arcs: Iterable[tuple[int, int, int]]) -> float:
        """The logarithm of a graph's probability.

        Args:
            arcs: head (-1: a top), dependent, number of the label (-1: one that the parser does not have).

        Returns:
            the logarithm; -inf for a graph that the parser cannot give.
        """
        left = set(arcs)
        if len({(head, dep) for head, dep, _ in left}) < len(left):
            return -np.inf  # two labels on one arc
        total = -self._log_partition
        for segment in self._segments:
            here = {
                arc for arc in left if arc[1] in segment.place and arc[0] in segment.place and arc[2] >= 0
            }
            left -= here
            places = [(segment.place[dep], segment.place[head], label) for head, dep, label in here]
            total += segment.score(places, self.temperature)
        return -np.inf if left else min(total, 0.0)

    def k_best(self, k: int) -> list[tuple[Arcs, float]]:
        """Different graphs in the order of the likeliest decisions that give them.

        Args:
            k: how many.

        Returns:
            graphs with their log-probabilities; fewer than ``k`` where there are no more.

        Raises:
            ValueError: ``k`` below 1.
        """
        if k < 1:
            raise ValueError(f"k must be 1 or more, got {k}")
        found = _joined([segment.k_best(k) for segment in self._segments], k)
        return [(arcs, self.log_prob(arcs)) for _, arcs in found]

    def sample(self, n: int, generator: torch.Generator | None) -> list[tuple[Arcs, float]]:
        """Independent samples.

        Args:
            n: how many.
            generator: of the random numbers, on the CPU.

        Raises:
            ValueError: ``n`` below 1.
        """
        if n < 1:
            raise ValueError(f"n must be 1 or more, got {n}")
        drawn = (self._sampled(generator) for _ in range(n))
        return [(arcs, self.log_prob(arcs)) for arcs in drawn]

    def _sampled(self, generator: torch.Generator | None) -> Arcs:
        arcs = set()
        for part in self.scores.scores:
            graphs = graphs_of(part)
            packed = graphs.sample(graphs.pack(scaled(part, self.temperature)), generator)
            row, argument, predicate, label = graphs.unpack(packed).labels.nonzero().cpu().numpy().T
            heads = np.where(predicate > 0, part.batch.tokens[row, predicate - 1], ROOT)
            arcs.update(zip(heads.tolist(), part.batch.tokens[row, argument - 1].tolist(), label.tolist()))
        return frozenset(arcs)
