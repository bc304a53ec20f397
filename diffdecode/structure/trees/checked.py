"""Call a kernel, and turn the status of a bad sentence into an error that names it."""

import torch
from torch import Tensor

from diffdecode.structure.kernels import kernel
from diffdecode.structure.trees.tensors import TOO_LARGE, is_checking, raise_for_status

PROJECTIVE = {"eisner", "inside_outside", "sample_projective"}


def checked_kernel(
    function: str, scores: Tensor, lengths: Tensor, multi_root: bool, *arguments
) -> list[Tensor]:
    """Results (without the status) of the named kernel on contiguous ``scores``.

    Raises:
        ValueError: naming the first batch row with NaN, +inf, no possible tree, or scores too large to add.
    """
    compute = kernel(function, scores.device)
    *results, status = compute(scores, lengths, multi_root, *arguments)
    if is_checking() and status.any():
        if scores.dtype == torch.float32 and (status == TOO_LARGE).any():  # sums need float64's range
            *results, status = compute(scores.double(), lengths, multi_root, *arguments)
        tree = "projective tree" if function in PROJECTIVE else "tree"
        raise_for_status(status, tree if multi_root else f"single-root {tree}")
    return results
