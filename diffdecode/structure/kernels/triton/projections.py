"""Simplex projections on the GPU: one program a row, one launch a batch, and nothing waits for the device.

Michelot's iteration as in ``numba_projections``, with the row in registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels.triton.launch import on_device_of


@triton.jit(do_not_specialize=["size"])
def project_rows(point, out, lengths, size, COLUMNS: tl.constexpr, TREES: tl.constexpr):
    """Project row ``program_id(0)`` of ``point [R, size]``; ``COLUMNS`` is a power of two that holds it.

    With ``TREES``, rows are the words of ``[B, size, size]``, and parts that no tree has are left out.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    exists = column < size
    if TREES:
        dependent = row % size
        n = tl.load(lengths + row // size)
        n = tl.where((dependent > 0) & (dependent <= n), n, -1)
        exists = (column <= n) & (column != dependent)
    x = tl.load(point + row * size + column, mask=exists, other=float("-inf"))
    distance = x - tl.max(x, axis=0)
    threshold = tl.full((), -1.0, x.dtype)
    before = COLUMNS + 1
    active = tl.sum((distance > threshold).to(tl.int32), axis=0)
    while (active > 0) & (active < before):
        mass = tl.sum(tl.where(distance > threshold, distance, 0.0), axis=0)
        threshold = (mass - 1.0) / active.to(x.dtype)
        before = active
        active = tl.sum((distance > threshold).to(tl.int32), axis=0)
    excess = distance - threshold
    projected = tl.where(excess <= 0, 0.0, excess)  # NaN stays NaN
    tl.store(out + row * size + column, tl.where(exists, projected, 0.0), mask=column < size)


def simplex(rows: Tensor) -> Tensor:
    """Projection of every row of ``rows [R, M]`` on the simplex; see :mod:`.projections`."""
    out = torch.empty_like(rows)
    if rows.numel():
        columns = triton.next_power_of_2(rows.shape[1])
        with on_device_of(rows):
            project_rows[(rows.shape[0],)](rows, out, rows, rows.shape[1], columns, False, num_warps=1)
    return out


def p_dep(point: Tensor, lengths: Tensor) -> Tensor:
    """Projection of ``point [B, N+1, N+1]`` onto P_DEP; see :mod:`.projections`."""
    out = torch.empty_like(point)
    size = point.shape[1]
    if point.numel():
        columns = triton.next_power_of_2(size)
        with on_device_of(point):
            project_rows[(len(point) * size,)](point, out, lengths, size, columns, True, num_warps=1)
    return out
