"""Call a kernel, and turn the status of a bad sentence into an error that names it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffdecode.checks import found
from diffdecode.structure.kernels.status import TOO_LARGE
from diffdecode.structure.trees.tensors import raise_for_status

if TYPE_CHECKING:
    from diffdecode.structure.trees.kind import TreeKind


def checked(
    compute: Callable[..., tuple[Tensor, ...]],
    trees: "TreeKind",
    scores: Tensor,
    lengths: Tensor,
    *arguments: Any,
) -> list[Tensor]:
    """Results (without the status) of a kernel of ``trees`` on contiguous ``scores``.

    Raises:
        ValueError: naming the first batch row with NaN, +inf, no possible tree, or scores too large to add.
    """
    *results, status = compute(scores, lengths, trees.multi_root, *arguments)
    if found(lambda: status.any()):
        if scores.dtype == torch.float32 and (status == TOO_LARGE).any():  # sums need float64's range
            *results, status = compute(scores.double(), lengths, trees.multi_root, *arguments)
        raise_for_status(status, str(trees))
    return results
