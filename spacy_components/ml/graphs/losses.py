"""Losses of a semantic dependency parser, summed over segments: differentiable in the scores of the parts.

All take :class:`~diffdecode.structure.GraphParts` of scores, the gold
:class:`~diffdecode.structure.SemanticGraph`, ``lengths [B]`` and a mask ``[L]`` of
deterministic labels. An arc at -inf is no arc of the loss: that is how what is not annotated is left out.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, pad

from diffdecode.structure import (
    GraphParts,
    JointParts,
    SemanticGraph,
    graph_hinge_loss,
    graph_negative_log_likelihood,
    joint_negative_log_likelihood,
    pair_table,
    possible_arcs,
)

IGNORED = -1

GraphLoss = Callable[[GraphParts, SemanticGraph, Tensor, Tensor], Tensor]
JointLoss = Callable[[JointParts, tuple[SemanticGraph, SemanticGraph], tuple[Tensor, Tensor], Tensor], Tensor]


def hinge(scores: GraphParts, gold: SemanticGraph, lengths: Tensor, deterministic: Tensor) -> Tensor:
    """Structured hinge; a labelled arc too many costs 0.4, a missing one 0.6, as in the paper's code.

    Train with ``local`` first. Where no label of a pair has half of the probability, a hinge is at its least
    with no arc; at the start that is so of nearly all pairs, and from there it learns next to nothing.
    """
    parts = (scores.arcs, scores.labels, scores.predicates)
    return graph_hinge_loss(*parts, gold, lengths, deterministic=deterministic).sum()


def likelihood(scores: GraphParts, gold: SemanticGraph, lengths: Tensor, deterministic: Tensor) -> Tensor:
    """Negative log-likelihood of the gold graph among all graphs, determinism left out."""
    return graph_negative_log_likelihood(scores.arcs, scores.labels, scores.predicates, gold, lengths).sum()


def local(scores: GraphParts, gold: SemanticGraph, lengths: Tensor, deterministic: Tensor) -> Tensor:
    """Cross-entropy of every decision by itself: is a word a predicate, and which label, or none, has an arc.

    A labelled arc scores what it adds to a graph, and no arc 0, so that the best graph is that of the best
    decisions.
    """
    is_position = torch.arange(scores.arcs.shape[1], device=lengths.device) <= lengths[:, None]
    counts = possible_arcs(lengths, scores.arcs.shape[1]) & (scores.arcs > -torch.inf)
    return _predicates(scores, gold, is_position) + _arcs(scores, gold, counts)


def _predicates(scores: GraphParts, gold: SemanticGraph, counts: Tensor) -> Tensor:
    """Of the positions ``counts [B, N+1]``: is it a predicate."""
    wanted = gold.predicates.to(scores.predicates)
    predicates = scores.predicates.where(counts, 0.0)
    return binary_cross_entropy_with_logits(predicates, wanted, counts, reduction="sum")


def _arcs(scores: GraphParts, gold: SemanticGraph, counts: Tensor) -> Tensor:
    """Of the pairs of words ``counts [B, N+1, N+1]``: which label, or none."""
    labelled = pad(scores.labels + scores.arcs.unsqueeze(-1), (0, 1))
    label = torch.where(gold.labels >= 0, gold.labels, labelled.shape[-1] - 1).where(counts, IGNORED)
    return cross_entropy(labelled.flatten(0, 2), label.flatten(), ignore_index=IGNORED, reduction="sum")


def joint_local(
    scores: JointParts,
    gold: tuple[SemanticGraph, SemanticGraph],
    known: tuple[Tensor, Tensor],
    lengths: Tensor,
) -> Tensor:
    """``local`` of two graphs: where two arcs have a part, what both are is one decision.

    Of a graph that is not annotated there all choices are summed up, so that the other one is learned, and
    what goes with it, and nothing is taken for the absence of an arc.

    Args:
        scores: of the parts.
        gold: the graphs.
        known: for each of them ``[B, N+1, N+1]`` bool, the pairs of words of which it says something.
        lengths: ``[B]``.
    """
    size = scores.first.arcs.shape[1]
    possible = possible_arcs(lengths, size)
    is_position = torch.arange(size, device=lengths.device) <= lengths[:, None]
    place = tuple(scores.places.T)
    apart = possible.index_put(place, torch.zeros((), dtype=torch.bool, device=lengths.device))
    table = pair_table(scores)
    losses, allowed = [table.logsumexp((1, 2)).sum()], []
    for own, graph, annotated in zip((scores.first, scores.second), gold, known):
        losses.append(_predicates(own, graph, is_position & annotated.any(2).any(1, keepdim=True)))
        losses.append(_arcs(own, graph, apart & annotated))
        choices = torch.arange(IGNORED, own.labels.shape[3], device=lengths.device)
        allowed.append((graph.labels[place].unsqueeze(1) == choices) | ~annotated[place].unsqueeze(1))
    allowed_pairs = allowed[0].unsqueeze(2) & allowed[1].unsqueeze(1)
    losses.append(-table.masked_fill(~allowed_pairs, -torch.inf).logsumexp((1, 2)).sum())
    return torch.stack(losses).sum()


def joint_likelihood(
    scores: JointParts,
    gold: tuple[SemanticGraph, SemanticGraph],
    known: tuple[Tensor, Tensor],
    lengths: Tensor,
) -> Tensor:
    """Negative log-likelihood of what is annotated, all else summed out; arguments as above."""
    return joint_negative_log_likelihood(scores, gold, known, lengths).sum()


GRAPH_LOSSES: dict[str, GraphLoss] = {"hinge": hinge, "likelihood": likelihood, "local": local}

JOINT_LOSSES: dict[str, JointLoss] = {"local": joint_local, "likelihood": joint_likelihood}
"""Of two graphs."""
