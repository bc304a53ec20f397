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
    SemanticGraph,
    graph_hinge_loss,
    graph_negative_log_likelihood,
    possible_arcs,
)

IGNORED = -1

GraphLoss = Callable[[GraphParts, SemanticGraph, Tensor, Tensor], Tensor]


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
    size = scores.arcs.shape[1]
    is_position = torch.arange(size, device=lengths.device) <= lengths[:, None]
    wanted = gold.predicates.to(scores.predicates)
    is_predicate = scores.predicates.where(is_position, 0.0)
    predicates = binary_cross_entropy_with_logits(is_predicate, wanted, is_position, reduction="sum")
    counts = possible_arcs(lengths, size) & (scores.arcs > -torch.inf)
    labelled = pad(scores.labels + scores.arcs.unsqueeze(-1), (0, 1))
    label = torch.where(gold.labels >= 0, gold.labels, labelled.shape[-1] - 1).where(counts, IGNORED)
    arcs = cross_entropy(labelled.flatten(0, 2), label.flatten(), ignore_index=IGNORED, reduction="sum")
    return predicates + arcs


GRAPH_LOSSES: dict[str, GraphLoss] = {"hinge": hinge, "likelihood": likelihood, "local": local}
