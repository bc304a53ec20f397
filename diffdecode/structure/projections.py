"""Euclidean projections onto the relaxed polytopes of SPIGOT (Peng, Thomson and Smith, ACL 2018).

All of them come down to the simplex: P_DEP (equation 5) is one simplex a word, and P_SDP (equation 6) is
one simplex an arc with "no arc" as an extra label. All are differentiable: on the support, the Jacobian of
the simplex projection subtracts the mean (Martins and Astudillo, ICML 2016, section 2.5).

The true tree polytopes are in :mod:`diffdecode.structure.trees.projection`.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffdecode.structure.kernels import projections as kernels
from diffdecode.structure.trees.tensors import check_inputs


def project_simplex(point: Tensor, dim: int = -1) -> Tensor:
    """The point of the simplex nearest to ``point`` (sparsemax), along ``dim``.

    An entry of -inf is left out: its projection and its gradient are exactly 0. Raises ValueError, naming
    the first index of the tensor, where a row has NaN, +inf or nothing but -inf.
    """
    projected = _sparsemax(point.movedim(dim, -1))
    _refuse_nan(projected if projected.dim() > 1 else projected[None], "the simplex")
    return projected.movedim(-1, dim)


def project_dep(point: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Projection onto P_DEP, equation 5 by Algorithm 2: every word has one head in all.

    Args:
        point: ``[B, N+1, N+1]``, ``point[b, dependent, head]``; -inf forbids an arc.
        lengths: ``[B]`` words per sentence; ``None`` means N for all.

    Returns:
        ``[B, N+1, N+1]``; row 0 (the root), self arcs and padding are exactly 0.

    Raises:
        ValueError: wrong shape or lengths; NaN, or a word all of whose arcs are forbidden.
    """
    computed, lengths = check_inputs(point, lengths)
    projected = _Project.apply(computed, lambda array: kernels.p_dep(array, lengths))
    _refuse_nan(projected, "P_DEP")
    return projected.to(point.dtype)


def project_sdp(arcs: Tensor, labels: Tensor, *, check: bool = True) -> tuple[Tensor, Tensor]:
    """Projection onto P_SDP, equation 6: the labels of an arc sum to the arc, all within [0, 1].

    With "no arc" = 1 - arc as one more label, the constraint says that L+1 numbers lie on the simplex, and
    the distance is unchanged because (1 - a) - (1 - a') = -(a - a'). So the exact projection is one
    projection of L+1 entries on the simplex.

    Args:
        arcs: ``[...]`` points of the unlabelled arcs; -inf forbids an arc.
        labels: ``[..., L]`` points of the labelled arcs; -inf forbids a label.
        check: otherwise NaN passes through, and nothing waits for the device.

    Returns:
        the projected ``(arcs [...], labels [..., L])``.

    Raises:
        ValueError: the shapes disagree; NaN or +inf.
    """
    if arcs.shape != labels.shape[:-1]:
        raise ValueError(f"labels {tuple(labels.shape)} need arcs of shape {tuple(labels.shape[:-1])}, "
                         f"got {tuple(arcs.shape)}")  # fmt: skip
    forbidden = arcs == -torch.inf
    no_arc = 1 - arcs.masked_fill(forbidden, 0)
    entries = torch.cat([labels.masked_fill(forbidden.unsqueeze(-1), -torch.inf), no_arc.unsqueeze(-1)], -1)
    projected = _sparsemax(entries)[..., :-1]
    if check:
        _refuse_nan(projected, "P_SDP")
    return projected.sum(-1), projected


def project_sdp_sequential(arcs: Tensor, labels: Tensor, *, check: bool = True) -> tuple[Tensor, Tensor]:
    """What the authors' released code does for P_SDP: clip the arc to [0, 1], then fit its labels to it.

    Feasible but not the nearest point of P_SDP. Arguments and result as for :func:`project_sdp`.
    """
    arcs = arcs.clamp(0, 1)
    present = (arcs > 0).unsqueeze(-1)
    scale = torch.where(present, arcs.unsqueeze(-1), 1)
    distance = torch.where(present, labels - labels.amax(-1, keepdim=True), 0)
    # {p >= 0, sum p = a} is the simplex enlarged a times.
    fitted = torch.where(present, _sparsemax(distance / scale) * scale, 0)
    if check:
        _refuse_nan(fitted, "P_SDP")
    return arcs, fitted


def _sparsemax(point: Tensor) -> Tensor:
    """Projection of the last axis on the simplex; NaN where there is none."""
    rows = point.reshape(-1, point.shape[-1])
    computed = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return _Project.apply(computed, kernels.simplex).to(point.dtype).view(point.shape)


class _Project(torch.autograd.Function):
    """``kernel`` projects groups of the last axis on the simplex, or leaves a group all 0."""

    @staticmethod
    def forward(ctx, point, kernel):
        projected = kernel(point.detach())
        ctx.save_for_backward(projected)
        return projected

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (projected,) = ctx.saved_tensors
        support = projected > 0
        size = support.sum(-1, keepdim=True).clamp(min=1)
        inside = torch.where(support, gradient, 0)
        mean = inside.sum(-1, keepdim=True) / size
        return torch.where(support, inside - mean, 0), None


def _refuse_nan(projected: Tensor, polytope: str) -> None:
    """The kernels answer NaN where there is no projection. ``projected [B, ...]``."""
    if torch.isnan(projected.sum()):
        row = int(torch.isnan(projected).flatten(1).any(-1).nonzero()[0])
        raise ValueError(f"batch row {row}: no projection onto {polytope}; it holds NaN, +inf, "
                         "or a group that is all -inf")  # fmt: skip
