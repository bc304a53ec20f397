"""First-order semantic dependency graphs: the best graph, exactly, with or without determinism.

Parts (Peng, Thomson and Smith, ACL 2017): predicates, unlabelled arcs and labelled arcs. A word may have
any number of heads, so predicates do not interact: each one picks its arguments by itself. A deterministic
label may be used at most once per predicate, which makes that choice an assignment problem.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffdecode.structure.kernels.reference import log_sum
from diffdecode.structure.trees.tensors import check_inputs, possible_arcs

NO_ARC = -1


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


@torch.no_grad()
def semantic_graph(
    arc_scores: Tensor,
    label_scores: Tensor,
    predicate_scores: Tensor | None = None,
    lengths=None,
    *,
    deterministic=(),
    cost: Tensor | None = None,
) -> SemanticGraph:
    """The graph with the highest total score; the empty graph scores 0.

    Every arc has one label and makes its head a predicate. An arc without positive gain is left out; equal
    labels go to the smallest one.

    Args:
        arc_scores: ``[B, N+1, N+1]``, ``arc_scores[b, argument, predicate]``. Position 0 is the root: it is
            never an argument, and its arcs can mark the top nodes (give -inf where there are none).
        label_scores: ``[B, N+1, N+1, L]``, added to the arc's score. -inf forbids an arc or a label.
        predicate_scores: ``[B, N+1]``, or ``None`` for 0: then, without ``deterministic``, every arc is
            decided by itself.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).
        deterministic: labels that a predicate may give to one argument at most: indices, or bool ``[L]``.
        cost: ``[B, N+1, N+1, L]`` added to the label scores, for cost-augmented decoding.

    Raises:
        ValueError: wrong shapes or lengths; NaN or +inf, naming the batch row.
    """
    scores, lengths = check_graph(arc_scores, label_scores, predicate_scores, lengths)
    deterministic = deterministic_labels(deterministic, label_scores)
    labelled = scores.arcs.unsqueeze(-1) + scores.labels
    if cost is not None:
        labelled = labelled + cost.to(labelled)
    possible = possible_arcs(lengths, labelled.shape[1])
    gain, labels = labelled.masked_fill_(~possible.unsqueeze(-1), -torch.inf).max(-1)
    refuse_not_scores(gain, scores.predicates)
    labels = torch.where(gain > 0, labels, NO_ARC)
    value = scores.predicates.double() + gain.clamp(min=0).sum(1, dtype=torch.float64)
    if deterministic.any():
        # Constraints only lower a value, so predicates already worth nothing need no assignment.
        clashing = uses_a_label_twice(labels, deterministic) & (value > 0)
        for b, predicate in clashing.nonzero().tolist():
            chosen, total = _assign(labelled[b, :, predicate].cpu(), deterministic.cpu())
            labels[b, :, predicate] = chosen.to(labels.device)
            value[b, predicate] = float(scores.predicates[b, predicate]) + total
    predicates = value > 0
    return SemanticGraph(torch.where(predicates.unsqueeze(1), labels, NO_ARC), predicates)


def _assign(gains: Tensor, deterministic: Tensor) -> tuple[Tensor, float]:
    """Best labels of one predicate's arguments, ``gains [N+1, L]`` to ``labels [N+1]``, and their total.

    Every argument first takes its best free label (or none); a deterministic label is then worth what it
    adds to that, and each is matched with one argument at most.
    """
    gains = gains.double()
    total, labels = gains.masked_fill(deterministic, -torch.inf).max(-1)
    labels = torch.where(total > 0, labels, NO_ARC)
    total = total.clamp(min=0)
    columns = deterministic.nonzero().squeeze(1)
    improvement = (gains[:, columns] - total.unsqueeze(1)).clamp(min=0)
    arguments = (improvement > 0).any(1).nonzero().squeeze(1)
    matched = linear_sum_assignment(improvement[arguments].numpy(), maximize=True)
    row, column = (torch.from_numpy(np.asarray(index, dtype=np.int64)) for index in matched)
    better = improvement[arguments[row], column] > 0
    row, column = arguments[row[better]], column[better]
    labels[row] = columns[column]
    total[row] = gains[row, columns[column]]
    return labels, float(total.sum())


def uses_a_label_twice(labels: Tensor, deterministic: Tensor) -> Tensor:
    """``[B, N+1]`` bool: predicates that give one deterministic label to several arguments.

    Args:
        labels: ``[B, N+1, N+1]`` as in :class:`SemanticGraph`.
        deterministic: ``[L]`` bool.
    """
    size = len(deterministic)
    arcs = labels >= 0
    counts = torch.zeros(*labels.shape[:2], size, dtype=torch.int64, device=labels.device)
    used = labels.clamp(min=0).transpose(1, 2)
    counts.scatter_add_(2, used, arcs.transpose(1, 2).long())
    return (counts[:, :, deterministic] > 1).any(-1)


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


def check_graph(arc_scores, label_scores, predicate_scores, lengths) -> tuple[GraphParts, Tensor]:
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


def deterministic_labels(deterministic, label_scores: Tensor) -> Tensor:
    """Indices or bool ``[L]`` as bool ``[L]``.

    Raises:
        ValueError: a label outside 0..L-1, or a mask of another length.
    """
    size = label_scores.shape[-1]
    given = torch.as_tensor(deterministic, device=label_scores.device)
    if given.dtype == torch.bool:
        if given.shape != (size,):
            raise ValueError(f"deterministic must be a mask of {size} labels, got {list(given.shape)}")
        return given
    mask = torch.zeros(size, dtype=torch.bool, device=label_scores.device)
    wrong = (given < 0) | (given >= size)
    if wrong.any():
        raise ValueError(f"deterministic label {int(given[wrong][0])} is outside 0..{size - 1}")
    mask[given.long()] = True
    return mask


def refuse_not_scores(best: Tensor, predicates: Tensor) -> None:
    """``best [B, N+1, N+1]`` is the best labelled arc: any NaN or +inf comes out in it."""
    wrong = ~(best < torch.inf).flatten(1).all(1) | ~(predicates < torch.inf).all(1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"scores of batch row {row} hold NaN or +inf, or overflow when added (-inf forbids a part)"
        )
