"""Losses that train a parser on annotated trees and graphs: structured hinge and log-likelihood.

Both are per sentence, ``[B]``; sum or average them as the model needs. A gradient never reaches padding or
forbidden parts.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffdecode.structure.graphs.parts import (
    SemanticGraph,
    check_graph,
    graph_parts,
    graph_scores,
    semantic_graph,
    sum_labels_out,
)
from diffdecode.structure.trees.nonprojective import nonprojective_marginals, nonprojective_tree
from diffdecode.structure.trees.projective import projective_marginals, projective_tree
from diffdecode.structure.trees.tensors import (
    PADDING,
    check_inputs,
    heads_to_arcs,
    possible_arcs,
    tree_scores,
)


def tree_hinge_loss(
    scores: Tensor,
    gold_heads: Tensor,
    lengths=None,
    *,
    projective: bool = True,
    multi_root: bool = False,
    cost: float = 1.0,
) -> Tensor:
    """Structured hinge, ``max_y [s(y) + cost(y)] - s(gold)`` (Taskar, Guestrin and Koller 2003).

    Args:
        scores: ``[B, N+1, N+1]``, ``scores[b, dependent, head]``; -inf forbids an arc.
        gold_heads: ``[B, N]``, -1 beyond the length and where the head is not annotated. What is not
            annotated costs nothing, and the gold tree is then the best one with the annotated arcs.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).
        projective, multi_root: which trees.
        cost: of every word with a wrong head. 1 is the cost of Peng et al.'s released code, which counts 0.5
            for the wrong arc and 0.5 for the missing one.

    Returns:
        ``[B]``, at least 0 (a gold tree that is not among the trees can score higher than all of them).

    Raises:
        ValueError: naming the batch row, for NaN, +inf, no possible tree, or a gold tree that uses a
            forbidden arc.
    """
    scores, lengths = check_inputs(scores, lengths)
    gold, annotated = _annotation(gold_heads, lengths, scores.shape[1])
    decide = projective_tree if projective else nonprojective_tree
    costs = cost * (annotated.to(scores) - heads_to_arcs(gold, dtype=scores.dtype))
    guess = decide(scores, lengths, multi_root=multi_root, cost=costs)
    total_cost = costs[:, 1:].gather(2, guess.clamp(min=0).unsqueeze(2)).sum((1, 2))
    if not _is_complete(gold, lengths):
        gold = decide(_only_gold(scores, gold, annotated), lengths, multi_root=multi_root)
    gold_score = tree_scores(scores, gold)
    _refuse_impossible_gold(gold_score)
    return (tree_scores(scores, guess) + total_cost - gold_score).clamp(min=0)


def tree_negative_log_likelihood(
    scores: Tensor, gold_heads: Tensor, lengths=None, *, projective: bool = True, multi_root: bool = False
) -> Tensor:
    """``-log p(gold)`` under ``p(tree) ∝ exp s(tree)``; heads that are not annotated are summed out.

    Arguments, result and errors as for :func:`tree_hinge_loss`.
    """
    scores, lengths = check_inputs(scores, lengths)
    gold, annotated = _annotation(gold_heads, lengths, scores.shape[1])
    marginals = projective_marginals if projective else nonprojective_marginals
    log_partition = marginals(scores, lengths, multi_root=multi_root)[1]
    if _is_complete(gold, lengths):
        gold_score = tree_scores(scores, gold)
        _refuse_impossible_gold(gold_score)
    else:
        compatible = _only_gold(scores, gold, annotated)
        gold_score = marginals(compatible, lengths, multi_root=multi_root)[1]
    return log_partition - gold_score


def graph_hinge_loss(
    arc_scores: Tensor,
    label_scores: Tensor,
    predicate_scores: Tensor | None,
    gold: SemanticGraph,
    lengths=None,
    *,
    deterministic=(),
    false_positive: float = 0.4,
    false_negative: float = 0.6,
) -> Tensor:
    """Structured hinge of semantic graphs; the cost counts labelled arcs.

    Args:
        arc_scores, label_scores, predicate_scores, lengths, deterministic: as for
            :func:`~diffdecode.structure.graphs.parts.semantic_graph`.
        gold: the annotated graphs; labels ``[B, N+1, N+1]`` and predicates ``[B, N+1]``.
        false_positive, false_negative: cost of a labelled arc too many, and of one missing. The defaults are
            those of Peng et al.'s released code.

    Returns:
        ``[B]``, at least 0.

    Raises:
        ValueError: naming the batch row, for NaN, +inf, or a gold graph that uses a forbidden part.
    """
    scores, lengths = check_graph(arc_scores, label_scores, predicate_scores, lengths)
    gold = _inside(gold, lengths, scores.arcs.shape[1])
    wanted = graph_parts(gold, label_scores.shape[-1], scores.arcs.dtype).labels
    cost = false_positive - (false_positive + false_negative) * wanted
    predicates = None if predicate_scores is None else scores.predicates
    guess = semantic_graph(
        scores.arcs, scores.labels, predicates, lengths, deterministic=deterministic, cost=cost
    )
    found = graph_parts(guess, label_scores.shape[-1], scores.arcs.dtype).labels
    total_cost = (found * cost).sum((1, 2, 3)) + false_negative * wanted.sum((1, 2, 3))
    gold_score = graph_scores(scores, gold)
    _refuse_impossible_gold(gold_score)
    return (graph_scores(scores, guess) + total_cost - gold_score).clamp(min=0)


def graph_negative_log_likelihood(
    arc_scores: Tensor,
    label_scores: Tensor,
    predicate_scores: Tensor | None,
    gold: SemanticGraph,
    lengths=None,
) -> Tensor:
    """``-log p(gold)`` under ``p(graph) ∝ exp s(graph)`` over all graphs, determinism left out.

    Arguments, result and errors as for :func:`graph_hinge_loss`.
    """
    scores, lengths = check_graph(arc_scores, label_scores, predicate_scores, lengths)
    gold = _inside(gold, lengths, scores.arcs.shape[1])
    log_partitions = softplus(sum_labels_out(scores, lengths)).sum(1)  # of each predicate's arguments
    if predicate_scores is not None:
        log_partitions = softplus(scores.predicates + log_partitions)
    gold_score = graph_scores(scores, gold)
    _refuse_impossible_gold(gold_score)
    return log_partitions.sum(1) - gold_score


def _annotation(gold_heads: Tensor, lengths: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Gold heads without padding, and bool ``[B, N+1, N+1]``: all arcs into words with an annotated head."""
    if gold_heads.shape != (len(lengths), size - 1):
        raise ValueError(f"gold_heads must be {[len(lengths), size - 1]}, got {list(gold_heads.shape)}")
    inside = torch.arange(gold_heads.shape[1], device=lengths.device) < lengths[:, None]
    gold = gold_heads.to(lengths.device).masked_fill(~inside, PADDING)
    wrong = ((gold > lengths[:, None]) | (gold < PADDING)).any(1)
    if wrong.any():
        raise ValueError(f"gold heads of batch row {int(wrong.nonzero()[0])} are outside the sentence")
    annotated = torch.nn.functional.pad(gold >= 0, (1, 0)).unsqueeze(-1)
    return gold, annotated & possible_arcs(lengths, size)


def _is_complete(gold: Tensor, lengths: Tensor) -> bool:
    return bool(((gold >= 0).sum(1) == lengths).all())


def _only_gold(scores: Tensor, gold: Tensor, annotated: Tensor) -> Tensor:
    """Scores that forbid all heads but the gold one of every annotated word."""
    return scores.masked_fill(annotated & (heads_to_arcs(gold, dtype=scores.dtype) == 0), -torch.inf)


def _inside(gold: SemanticGraph, lengths: Tensor, size: int) -> SemanticGraph:
    """The gold graph on the scores' device, with nothing beyond the lengths."""
    if gold.labels.shape != (len(lengths), size, size) or gold.predicates.shape != (len(lengths), size):
        raise ValueError(
            f"gold graphs must have labels {[len(lengths), size, size]} and predicates "
            f"{[len(lengths), size]}, got {list(gold.labels.shape)} and {list(gold.predicates.shape)}"
        )
    labels = gold.labels.to(lengths.device)
    inside = torch.arange(size, device=lengths.device) <= lengths[:, None]
    labels = labels.masked_fill(~possible_arcs(lengths, size), -1)
    return SemanticGraph(labels, gold.predicates.to(lengths.device) & inside)


def _refuse_impossible_gold(gold_score: Tensor) -> None:
    wrong = gold_score == -torch.inf
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"the gold structure of batch row {row} uses a forbidden part (-inf)")
