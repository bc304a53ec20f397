"""What the two best-tree decisions share: inputs, labels, precision, errors."""

import torch
from torch import Tensor

from diffdecode.structure.kernels import kernel
from diffdecode.structure.trees import TOO_LARGE, best_labels, check_inputs, labels_of_heads, raise_for_status

TREE_NAMES = {"eisner": "projective tree", "arborescence": "tree"}


@torch.no_grad()
def best_tree(algorithm: str, scores: Tensor, lengths, multi_root: bool, cost: Tensor | None):
    """Heads, or heads and labels, by the named kernel; see :func:`diffdecode.structure.projective_tree`."""
    scores, lengths = check_inputs(scores, lengths, cost)
    labels = None
    if scores.dim() == 4:
        scores, labels = best_labels(scores)
    scores = scores.contiguous()
    decode = kernel(algorithm, scores.device)
    heads, status = decode(scores, lengths, multi_root)
    if status.any():
        if scores.dtype == torch.float32 and (status == TOO_LARGE).any():  # sums need float64's range
            heads, status = decode(scores.double(), lengths, multi_root)
        raise_for_status(
            status, TREE_NAMES[algorithm] if multi_root else f"single-root {TREE_NAMES[algorithm]}"
        )
    return heads if labels is None else (heads, labels_of_heads(labels, heads))
