"""Precision, recall, F1 and exact match of graphs, as in SemEval 2015 Task 18 (Oepen et al., 2015)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from spacy_components.sdp_graph import SdpGraph

Edge = tuple[int, int, str]

VIRTUAL_ROOT = -1
VIRTUAL_LABEL = "-VIRTUAL-"


@dataclass
class SetScore:
    """Counts of set members over all graphs: gold, system, common, and graphs whose two sets are equal.

    A ratio of nothing to nothing is 0.0 here; the shared task's script prints NaN.
    """

    gold: int = 0
    system: int = 0
    common: int = 0
    graphs: int = 0
    equal: int = 0

    def add(self, gold: set[Hashable], system: set[Hashable]) -> None:
        """Counts the sets of one graph."""
        self.gold += len(gold)
        self.system += len(system)
        self.common += len(gold & system)
        self.graphs += 1
        self.equal += gold == system

    @property
    def precision(self) -> float:
        """The share of the system's members that are gold, between 0 and 1."""
        return self.common / self.system if self.system else 0.0

    @property
    def recall(self) -> float:
        """The share of the gold members that the system has, between 0 and 1."""
        return self.common / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.common / (self.gold + self.system) if self.gold + self.system else 0.0

    @property
    def exact(self) -> float:
        """The share of the graphs whose two sets are equal."""
        return self.equal / self.graphs if self.graphs else 0.0


def graph_edges(graph: SdpGraph, tops: bool = True) -> set[Edge]:
    """The labelled edges of a graph; with ``tops`` also a virtual one from the root to every top."""
    virtual = {(VIRTUAL_ROOT, token, VIRTUAL_LABEL) for token in graph.top} if tops else set()
    return {tuple(arc) for arc in graph.arcs} | virtual


class GraphPRF:
    """LP, LR, LF, LM over labelled edges and UP, UR, UF, UM over (head, dependent) pairs.

    Counts are summed over all graphs (micro average). Two labels on one pair of tokens are two labelled edges
    and one unlabelled edge.
    """

    def __init__(self) -> None:
        self.labelled = SetScore()
        self.unlabelled = SetScore()
        self.per_label: dict[str, SetScore] = {}

    def add(self, gold: set[Edge], system: set[Edge]) -> None:
        """Counts one graph, given as two sets of (head, dependent, label)."""
        self.labelled.add(gold, system)
        self.unlabelled.add({edge[:2] for edge in gold}, {edge[:2] for edge in system})
        for label in {edge[2] for edge in gold | system} - {VIRTUAL_LABEL}:
            of_label = self.per_label.setdefault(label, SetScore())
            of_label.add({e for e in gold if e[2] == label}, {e for e in system if e[2] == label})

    def to_dict(self) -> dict[str, float]:
        """Keys ``up ur uf um lp lr lf lm``, values between 0 and 1."""
        scores = {}
        for letter, score in (("u", self.unlabelled), ("l", self.labelled)):
            values = {"p": score.precision, "r": score.recall, "f": score.f1, "m": score.exact}
            scores.update({letter + name: value for name, value in values.items()})
        return scores
