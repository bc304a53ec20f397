"""The best tree of every sentence: inputs, labels and errors around the kernels."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffdecode.checks import looks_once
from diffdecode.structure.trees.checked import checked
from diffdecode.structure.trees.tensors import Lengths, best_labels, check_inputs, labels_of_heads

if TYPE_CHECKING:
    from diffdecode.structure.trees.kind import TreeKind


@looks_once
@torch.no_grad()
def best_tree(trees: "TreeKind", scores: Tensor, lengths: Lengths, cost: Tensor | None) -> Tensor:
    """Heads ``[B, N]``; see :func:`diffdecode.structure.projective_tree`."""
    if scores.dim() == 4:
        return best_labelled_tree(trees, scores, lengths, cost)[0]
    return heads_of_best(trees, *check_inputs(scores, lengths, cost))


def heads_of_best(trees: "TreeKind", scores: Tensor, lengths: Tensor) -> Tensor:
    """Heads ``[B, N]`` of the best trees for inputs that ``check_inputs`` has seen."""
    (heads,) = checked(trees.algorithms(scores.device).best, trees, scores.contiguous(), lengths)
    return heads


@looks_once
@torch.no_grad()
def best_labelled_tree(
    trees: "TreeKind", scores: Tensor, lengths: Lengths, cost: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Heads and labels, both ``[B, N]``, from scores ``[B, N+1, N+1, L]``."""
    scores, lengths = check_inputs(scores, lengths, cost)
    arc_scores, labels = best_labels(scores)
    heads = best_tree(trees, arc_scores, lengths, None)
    return heads, labels_of_heads(labels, heads)
