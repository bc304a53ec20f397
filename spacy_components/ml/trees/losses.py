"""Losses of a tree parser, summed over segments: differentiable in the arc scores.

All take ``arcs [B, N+1, N+1]`` (dependent, head), ``lengths [B]``, gold heads ``[B, N]`` (0 = root, -1 = not
annotated or beyond the length), and a :class:`~diffdecode.structure.TreeKind`: which trees there are.
"""

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from diffdecode.moves import moved
from diffdecode.structure import (
    TreeKind,
    possible_arcs,
    tree_hinge_loss,
    tree_negative_log_likelihood,
)
from diffdecode.structure.trees import check_gold_heads

TreeLoss = Callable[[Tensor, Tensor, Tensor, TreeKind], Tensor]


def hinge(arcs: Tensor, lengths: Tensor, gold: Tensor, trees: TreeKind) -> Tensor:
    """Structured hinge: the best tree, helped by 1 for every wrong head, against the gold tree.

    It is the loss of the SPIGOT paper's parsers. Heads that are not annotated are filled in as well as the
    annotated ones allow.
    """
    return tree_hinge_loss(arcs, gold, lengths, **asdict(trees)).sum()


def likelihood(arcs: Tensor, lengths: Tensor, gold: Tensor, trees: TreeKind) -> Tensor:
    """Negative log-likelihood of the gold tree among all trees; what is not annotated is summed out."""
    return tree_negative_log_likelihood(arcs, gold, lengths, **asdict(trees)).sum()


def cross_entropy(arcs: Tensor, lengths: Tensor, gold: Tensor, trees: TreeKind) -> Tensor:
    """Cross-entropy of each word's head by itself (Dozat and Manning, 2017), whatever trees there are.

    The gold heads must be a tree all the same: no cycle is annotated on purpose.
    """
    gold = moved(check_gold_heads(gold, lengths, arcs.shape[1] - 1), arcs.device)
    possible = possible_arcs(moved(lengths, arcs.device), arcs.shape[1])[:, 1:]
    scores = arcs[:, 1:].masked_fill(~possible, -torch.inf).flatten(0, 1)
    return torch.nn.functional.cross_entropy(scores, gold.flatten(), ignore_index=-1, reduction="sum")


TREE_LOSSES: dict[str, TreeLoss] = {
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "likelihood": likelihood,
}
