"""The Euclidean projection onto the simplex (sparsemax; Martins and Astudillo, ICML 2016).

The projections onto the relaxed polytopes of SPIGOT come down to it: P_DEP is one simplex a word, P_SDP
one simplex an arc.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffdecode.checks import found
from diffdecode.structure.kernels import backend


def project_simplex(point: Tensor, dim: int = -1) -> Tensor:
    """The point of the simplex nearest to ``point`` (sparsemax), along ``dim``; differentiable.

    Args:
        point: ``[...]``, any shape and floating dtype. An entry of -inf is left out: its projection and its
            gradient are exactly 0.
        dim: the axis along which the result sums to 1.

    Returns:
        the projection, of the shape and dtype of ``point``.

    Raises:
        ValueError: naming the first index of the tensor, where a row has NaN, +inf or nothing but -inf.
    """
    projected = project_last_axis(point.movedim(dim, -1))
    refuse_unprojectable(projected if projected.dim() > 1 else projected[None], "the simplex")
    return projected.movedim(-1, dim)


def project_last_axis(point: Tensor) -> Tensor:
    """Differentiable projection of the last axis on the simplex; NaN where there is none."""
    rows = point.reshape(-1, point.shape[-1])
    computed = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return apply_projection(computed, backend(computed.device).simplex).to(point.dtype).view(point.shape)


def apply_projection(point: Tensor, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """``kernel(point)`` with its gradient; along the last axis, it projects on the simplex or gives 0."""
    return _Project.apply(point, kernel)


def refuse_unprojectable(projected: Tensor, polytope: str) -> None:
    """``ValueError`` naming the batch row where a kernel answered NaN. ``projected [B, ...]``."""
    if found(lambda: projected.detach().sum().isnan()):
        row = int(torch.isnan(projected).flatten(1).any(-1).nonzero()[0])
        raise ValueError(f"batch row {row}: no projection onto {polytope}; it holds NaN, +inf, "
                         "or a group that is all -inf")  # fmt: skip


class _Project(torch.autograd.Function):
    """On the support, the Jacobian subtracts the mean (Martins and Astudillo 2016, section 2.5)."""

    @staticmethod
    def forward(ctx: Any, point: Tensor, kernel: Callable[[Tensor], Tensor]) -> Tensor:
        projected = kernel(point.detach())
        ctx.save_for_backward(projected)
        return projected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (projected,) = ctx.saved_tensors
        support = projected > 0
        size = support.sum(-1, keepdim=True).clamp(min=1)
        inside = torch.where(support, gradient, 0)
        mean = inside.sum(-1, keepdim=True) / size
        return torch.where(support, inside - mean, 0), None
