"""What the two best-tree decisions share: inputs, labels, precision, errors."""

import torch
from torch import Tensor

from diffdecode.structure.trees.checked import checked_kernel
from diffdecode.structure.trees.tensors import best_labels, check_inputs, labels_of_heads


@torch.no_grad()
def best_tree(algorithm: str, scores: Tensor, lengths, multi_root: bool, cost: Tensor | None):
    """Heads, or heads and labels, by the named kernel; see :func:`diffdecode.structure.projective_tree`."""
    scores, lengths = check_inputs(scores, lengths, cost)
    labels = None
    if scores.dim() == 4:
        scores, labels = best_labels(scores)
    (heads,) = checked_kernel(algorithm, scores.contiguous(), lengths, multi_root)
    return heads if labels is None else (heads, labels_of_heads(labels, heads))
