"""Losses that train a parser on annotated semantic graphs: structured hinge and log-likelihood.

Both are per sentence, ``[B]``; sum or average them as the model needs. A gradient never reaches padding or
forbidden parts.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffdecode.checks import found, looks_once
from diffdecode.structure.graphs.decode import semantic_graph
from diffdecode.structure.graphs.parts import (
    NO_ARC,
    GraphParts,
    Labels,
    SemanticGraph,
    check_graph,
    graph_parts,
    graph_scores,
    sum_labels_out,
)
from diffdecode.structure.kernels.status import possible_arcs
from diffdecode.structure.trees import Lengths, refuse_forbidden_gold


@looks_once
def graph_hinge_loss(
    arc_scores: Tensor,
    label_scores: Tensor,
    predicate_scores: Tensor | None,
    gold: SemanticGraph,
    lengths: Lengths = None,
    *,
    deterministic: Labels = (),
    false_positive: float = 0.4,
    false_negative: float = 0.6,
) -> Tensor:
    """Structured hinge of semantic graphs; the cost counts labelled arcs.

    Args:
        arc_scores, label_scores, predicate_scores, lengths, deterministic: as for
            :func:`~diffdecode.structure.semantic_graph`.
        gold: the annotated graphs; labels ``[B, N+1, N+1]`` and predicates ``[B, N+1]``.
        false_positive, false_negative: cost of a labelled arc too many, and of one missing. The defaults are
            those of Peng et al.'s released code.

    Returns:
        ``[B]``, at least 0. A gold graph that gives a deterministic label twice may score higher than all
        graphs; it is compared with them all the same.

    Raises:
        ValueError: naming the batch row, for NaN, +inf, a gold graph that uses a forbidden part, or one that
            is no graph: a label outside 0..L-1, or an arc whose head is no predicate.
    """
    scores, lengths = check_graph(arc_scores, label_scores, predicate_scores, lengths)
    gold = check_gold_graph(gold, lengths, scores.labels, predicate_scores is not None)
    wanted = graph_parts(gold, label_scores.shape[-1], scores.arcs.dtype).labels
    cost = false_positive - (false_positive + false_negative) * wanted
    predicates = None if predicate_scores is None else scores.predicates
    guess = semantic_graph(
        scores.arcs, scores.labels, predicates, lengths, deterministic=deterministic, cost=cost
    )
    found = graph_parts(guess, label_scores.shape[-1], scores.arcs.dtype).labels
    total_cost = (found * cost).sum((1, 2, 3)) + false_negative * wanted.sum((1, 2, 3))
    exact = GraphParts(*(part.double() for part in scores))
    gold_score = graph_scores(exact, gold)
    refuse_forbidden_gold(gold_score)
    return (graph_scores(exact, guess) - gold_score + total_cost).clamp(min=0).to(scores.arcs.dtype)


@looks_once
def graph_negative_log_likelihood(
    arc_scores: Tensor,
    label_scores: Tensor,
    predicate_scores: Tensor | None,
    gold: SemanticGraph,
    lengths: Lengths = None,
) -> Tensor:
    """``-log p(gold)`` under ``p(graph) ∝ exp s(graph)`` over all graphs, determinism left out.

    With the labels summed out of an arc, ``a = arc + log sum_l exp label``, every arc of a predicate is a
    choice by itself, and so is a predicate with all its possible arcs. The loss is the sum of these choices'
    cross-entropies; each of them is at least 0, so no two large numbers are subtracted.

    Args:
        arc_scores, label_scores, predicate_scores, gold, lengths: as for :func:`graph_hinge_loss`.

    Returns:
        ``[B]``, at least 0.

    Raises:
        ValueError: as :func:`graph_hinge_loss`.
    """
    scores, lengths = check_graph(arc_scores, label_scores, predicate_scores, lengths)
    gold = check_gold_graph(gold, lengths, scores.labels, predicate_scores is not None)
    refuse_forbidden_gold(graph_scores(scores, gold))
    exact = GraphParts(*(part.double() for part in scores))
    arcs = sum_labels_out(exact, lengths)
    present = gold.labels >= 0
    label = exact.labels.gather(-1, gold.labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    of_label = (arcs - (exact.arcs + label)).where(present, 0)  # of the label, given the arc
    of_arc = softplus(torch.where(present, -arcs, arcs)) + of_label
    if predicate_scores is None:
        return of_arc.sum((1, 2)).clamp(min=0).to(scores.arcs.dtype)
    exists = exact.predicates + softplus(arcs).sum(1)
    of_predicate = softplus(torch.where(gold.predicates, -exists, exists))
    of_arguments = of_arc.sum(1).where(gold.predicates, 0)
    return (of_predicate + of_arguments).sum(1).clamp(min=0).to(scores.arcs.dtype)


def check_gold_graph(
    gold: SemanticGraph, lengths: Tensor, label_scores: Tensor, has_predicates: bool
) -> SemanticGraph:
    """The gold graph on the scores' device, with nothing beyond the ``lengths [B]``.

    Args:
        label_scores: ``[B, N+1, N+1, L]``. has_predicates: whether predicates are parts; otherwise they
            follow from the arcs.

    Raises:
        ValueError: the shapes disagree; or, naming the batch row, a label is outside 0..L-1 (-1: no arc), or
            the head of an arc is no predicate.
    """
    _, size, _, count = label_scores.shape
    if gold.labels.shape != (len(lengths), size, size) or gold.predicates.shape != (len(lengths), size):
        raise ValueError(
            f"gold graphs must have labels {[len(lengths), size, size]} and predicates "
            f"{[len(lengths), size]}, got {list(gold.labels.shape)} and {list(gold.predicates.shape)}"
        )
    inside = torch.arange(size, device=lengths.device) <= lengths[:, None]
    labels = gold.labels.to(lengths.device).masked_fill(~possible_arcs(lengths, size), NO_ARC)
    predicates = gold.predicates.to(lengths.device) & inside
    unknown = ((labels >= count) | (labels < NO_ARC)).flatten(1).any(1)
    headless = ((labels >= 0).any(1) & ~predicates).any(1) & has_predicates
    if found(lambda: (unknown | headless).any()):
        row = int((unknown | headless).nonzero()[0])
        fault = f"a label outside 0..{count - 1}" if unknown[row] else "an arc whose head is no predicate"
        raise ValueError(f"the gold graph of batch row {row} has {fault}")
    return SemanticGraph(labels, predicates)
