"""The best semantic dependency graph, exactly, with or without determinism.

A word may have any number of heads, so predicates do not interact: each one picks its arguments by itself. A
deterministic label may be used at most once per predicate, which makes that choice an assignment problem.
"""

import numpy as np
import torch
from torch import Tensor

from diffdecode.checks import looks_once
from diffdecode.moves import moved
from diffdecode.structure.graphs.parts import (
    NO_ARC,
    Labels,
    SemanticGraph,
    check_graph,
    deterministic_labels,
    refuse_not_scores,
)
from diffdecode.structure.kernels.status import possible_arcs
from diffdecode.structure.trees import Lengths


@looks_once
@torch.no_grad()
def semantic_graph(
    arc_scores: Tensor,
    label_scores: Tensor,
    predicate_scores: Tensor | None = None,
    lengths: Lengths = None,
    *,
    deterministic: Labels = (),
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
        _settle(clashing, labelled, deterministic, labels, value, scores.predicates)
    predicates = value > 0
    return SemanticGraph(torch.where(predicates.unsqueeze(1), labels, NO_ARC), predicates)


def _settle(
    clashing: Tensor, labelled: Tensor, deterministic: Tensor, labels: Tensor, value: Tensor, alone: Tensor
) -> None:
    """Write the best ``labels [B, N+1, N+1]`` of ``clashing [B, N+1]`` predicates, and their ``value``.

    On the CPU, with one transfer to it and one back for all predicates of the batch.

    Args:
        labelled: ``[B, N+1, N+1, L]`` gains. deterministic: ``[L]`` bool, on the CPU.
        alone: ``[B, N+1]`` what each predicate scores beside its arcs.
    """
    b, predicate = clashing.cpu().nonzero(as_tuple=True)
    if not len(b):
        return
    chosen, totals = [], []
    b, predicate = moved(b, labels.device), moved(predicate, labels.device)
    for gains in labelled[b, :, predicate].cpu():
        best, total = _assign(gains, deterministic)
        chosen.append(best)
        totals.append(total)
    labels[b, :, predicate] = moved(torch.stack(chosen), labels.device)
    of_arcs = moved(torch.tensor(totals, dtype=torch.float64), labels.device)
    value[b, predicate] = alone[b, predicate].double() + of_arcs


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
    from scipy.optimize import linear_sum_assignment  # which takes longer to import than all of this package

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
        deterministic: ``[L]`` bool, on the CPU.
    """
    size = len(deterministic)
    arcs = labels >= 0
    counts = torch.zeros(*labels.shape[:2], size, dtype=torch.int64, device=labels.device)
    used = labels.clamp(min=0).transpose(1, 2)
    counts.scatter_add_(2, used, arcs.transpose(1, 2).long())
    columns = moved(deterministic.nonzero().squeeze(1), labels.device)
    return (counts.index_select(2, columns) > 1).any(-1)
