"""The parts of a semantic dependency graph, as tensors, and the checks that everything about graphs shares.

Parts (Peng, Thomson and Smith, ACL 2017): predicates, unlabelled arcs and labelled arcs. Position 0 is the
root, ``arcs[b, argument, predicate]``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffdecode.checks import found
from diffdecode.structure.kernels.reference import log_sum
from diffdecode.structure.kernels.status import possible_arcs
from diffdecode.structure.trees import Lengths, check_inputs

NO_ARC = -1

Labels = Tensor | Sequence[int]
"""Indices of labels, or bool ``[L]``."""


class SemanticGraph(NamedTuple):
    """A graph for every sentence of a batch."""

    labels: Tensor
    """``[B, N+1, N+1]`` int64: label of the arc into ``[b, argument, predicate]``, or -1 for no arc."""
    predicates: Tensor
    """``[B, N+1]`` bool: the positions that are predicates; a predicate may have no argument."""


class GraphParts(NamedTuple):
    """Parts of a graph, or scores, points and gradients of parts."""

    predicates: Tensor
    """``[B, N+1]``"""
    arcs: Tensor
    """``[B, N+1, N+1]`` (argument, predicate)"""
    labels: Tensor
    """``[B, N+1, N+1, L]``"""


def graph_parts(graph: SemanticGraph, label_count: int, dtype: torch.dtype = torch.float32) -> GraphParts:
    """Indicators 0 and 1 of the parts of ``graph``: ``z`` of equation 1; ``label_count`` = L."""
    arcs = graph.labels >= 0
    labels = torch.zeros(*arcs.shape, label_count, dtype=dtype, device=arcs.device)
    labels.scatter_(3, graph.labels.clamp(min=0).unsqueeze(-1), arcs.unsqueeze(-1).to(dtype))
    return GraphParts(graph.predicates.to(dtype), arcs.to(dtype), labels)


def graph_scores(scores: GraphParts, graph: SemanticGraph) -> Tensor:
    """Sum of the scores of a graph's parts, ``[B]``; differentiable in ``scores``."""
    chosen = scores.labels.gather(-1, graph.labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    of_arcs = torch.where(graph.labels >= 0, chosen + scores.arcs, 0).sum((1, 2))
    return of_arcs + torch.where(graph.predicates, scores.predicates, 0).sum(1)


def check_graph(
    arc_scores: Tensor, label_scores: Tensor, predicate_scores: Tensor | None, lengths: Lengths
) -> tuple[GraphParts, Tensor]:
    """Scores in float32 (float64 if given), impossible predicates at -inf, and lengths as a tensor.

    Raises:
        ValueError: the shapes disagree, or a length is outside 1..N.
    """
    arcs, lengths = check_inputs(arc_scores, lengths)
    if arcs.dim() != 3 or label_scores.shape[:-1] != arcs.shape or label_scores.shape[-1] == 0:
        raise ValueError(
            "expected arc_scores [B, N+1, N+1] and label_scores [B, N+1, N+1, L] with at least one label, "
            f"got {list(arc_scores.shape)} and {list(label_scores.shape)}"
        )
    if predicate_scores is None:
        predicate_scores = arcs.new_zeros(arcs.shape[:2])
    if predicate_scores.shape != arcs.shape[:2]:
        raise ValueError(
            f"predicate_scores must be {list(arcs.shape[:2])}, got {list(predicate_scores.shape)}"
        )
    inside = torch.arange(arcs.shape[1], device=arcs.device) <= lengths[:, None]
    predicates = torch.where(inside, predicate_scores.to(arcs), -torch.inf)
    return GraphParts(predicates, arcs, label_scores.to(arcs)), lengths


def deterministic_labels(deterministic: Labels, label_scores: Tensor) -> Tensor:
    """Indices or bool ``[L]`` as bool ``[L]`` on the CPU, where it is looked at.

    Raises:
        ValueError: a label outside 0..L-1, or a mask of another length.
    """
    size = label_scores.shape[-1]
    given = torch.as_tensor(deterministic).cpu()
    if given.dtype == torch.bool:
        if given.shape != (size,):
            raise ValueError(f"deterministic must be a mask of {size} labels, got {list(given.shape)}")
        return given
    mask = torch.zeros(size, dtype=torch.bool)
    wrong = (given < 0) | (given >= size)
    if wrong.any():
        raise ValueError(f"deterministic label {int(given[wrong][0])} is outside 0..{size - 1}")
    mask[given.long()] = True
    return mask


def refuse_not_scores(best: Tensor, predicates: Tensor) -> None:
    """``best [B, N+1, N+1]`` is the best labelled arc: any NaN or +inf comes out in it."""
    wrong = ~(best < torch.inf).flatten(1).all(1) | ~(predicates < torch.inf).all(1)
    if found(lambda: wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"scores of batch row {row} hold NaN or +inf, or overflow when added (-inf forbids a part)"
        )


def sum_labels_out(scores: GraphParts, lengths: Tensor) -> Tensor:
    """``log sum_l exp(arc + label)``, ``[B, N+1, N+1]``; -inf for arcs that do not exist.

    Raises:
        ValueError: NaN or +inf, naming the batch row.
    """
    possible = possible_arcs(lengths, scores.arcs.shape[1])
    best = scores.arcs.detach() + scores.labels.detach().amax(-1)
    refuse_not_scores(best.masked_fill(~possible, -torch.inf), scores.predicates)
    labels = scores.labels.masked_fill(~possible.unsqueeze(-1), -torch.inf)
    return log_sum(labels, -1) + scores.arcs.masked_fill(~possible, -torch.inf)
