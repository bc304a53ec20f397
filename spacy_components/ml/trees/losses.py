"""Losses of a tree parser, summed over segments: differentiable in the arc scores.

All take ``arcs [B, N+1, N+1]`` (dependent, head), ``lengths [B]``, gold heads ``[B, N]`` (0 = root, -1 = not
annotated or beyond the length), and a :class:`TreeSet`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from diffdecode.structure import nonprojective_tree, projective_tree
from diffdecode.structure.trees.losses import tree_hinge_loss, tree_negative_log_likelihood
from diffdecode.structure.trees.tensors import possible_arcs


@dataclass(frozen=True)
class TreeSet:
    """Which trees a parser may choose from."""

    projective: bool
    multi_root: bool

    def best(self, arcs: Tensor, lengths: Tensor) -> Tensor:
        """Heads ``[B, N]`` of the best trees, -1 beyond the lengths."""
        decode = projective_tree if self.projective else nonprojective_tree
        return decode(arcs, lengths, multi_root=self.multi_root)


TreeLoss = Callable[[Tensor, Tensor, Tensor, TreeSet], Tensor]


def hinge(arcs: Tensor, lengths: Tensor, gold: Tensor, trees: TreeSet) -> Tensor:
    """Structured hinge: the best tree, helped by 1 for every wrong head, against the gold tree.

    It is the loss of the SPIGOT paper's parsers. Heads that are not annotated are filled in as well as the
    annotated ones allow.
    """
    return tree_hinge_loss(arcs, gold, lengths, **asdict(trees)).sum()


def likelihood(arcs: Tensor, lengths: Tensor, gold: Tensor, trees: TreeSet) -> Tensor:
    """Negative log-likelihood of the gold tree among all trees; what is not annotated is summed out."""
    return tree_negative_log_likelihood(arcs, gold, lengths, **asdict(trees)).sum()


def cross_entropy(arcs: Tensor, lengths: Tensor, gold: Tensor, trees: TreeSet) -> Tensor:
    """Cross-entropy of each word's head by itself (Dozat and Manning, 2017), whatever trees there are."""
    possible = possible_arcs(lengths, arcs.shape[1])[:, 1:]
    scores = arcs[:, 1:].masked_fill(~possible, -torch.inf).flatten(0, 1)
    return torch.nn.functional.cross_entropy(scores, gold.flatten(), ignore_index=-1, reduction="sum")


TREE_LOSSES: dict[str, TreeLoss] = {
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "likelihood": likelihood,
}
