"""The best tree of every sentence: inputs, labels and errors around the kernels."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffdecode.structure.trees.checked import checked
from diffdecode.structure.trees.tensors import Lengths, best_labels, check_inputs, labels_of_heads

if TYPE_CHECKING:
    from diffdecode.structure.trees.kind import TreeKind


@torch.no_grad()
def best_tree(
    trees: "TreeKind", scores: Tensor, lengths: Lengths, cost: Tensor | None
) -> Tensor | tuple[Tensor, Tensor]:
    """Heads, or heads and labels; see :func:`diffdecode.structure.projective_tree`."""
    scores, lengths = check_inputs(scores, lengths, cost)
    labels = None
    if scores.dim() == 4:
        scores, labels = best_labels(scores)
    (heads,) = checked(trees.algorithms(scores.device).best, trees, scores.contiguous(), lengths)
    return heads if labels is None else (heads, labels_of_heads(labels, heads))
