"""Which kernel projects: numba on the CPU, Triton on the GPU, and plain torch, the readable definition.

None of these functions waits for a device; where there is no projection (NaN, or no finite entry) the
result is NaN.
"""

import torch
from torch import Tensor

from diffdecode.structure.kernels import backends
from diffdecode.structure.trees.tensors import possible_arcs

_RUNS_ON = {"numba": "cpu", "triton": "cuda"}


def simplex(rows: Tensor) -> Tensor:
    """Projection of every row of ``rows [R, M]`` (float32 or float64) on the simplex."""
    return _fastest("simplex", simplex_reference, rows)


def p_dep(point: Tensor, lengths: Tensor) -> Tensor:
    """Projection of ``point [B, N+1, N+1]`` onto P_DEP; ``lengths [B]`` int64 on the same device."""
    return _fastest("p_dep", p_dep_reference, point, lengths)


def _fastest(name: str, reference, *arrays: Tensor) -> Tensor:
    """Call the preferred kernel that needs no copy to another device."""
    device = arrays[0].device.type
    backend = next(b for b in backends(arrays[0].device) if _RUNS_ON.get(b, device) == device)
    if backend == "numba":
        from diffdecode.structure.kernels.numba import projections as numba_projections

        return torch.from_numpy(getattr(numba_projections, name)(*(a.contiguous().numpy() for a in arrays)))
    if backend == "triton":
        from diffdecode.structure.kernels.triton import projections as triton_projections

        return getattr(triton_projections, name)(*(a.contiguous() for a in arrays))
    return reference(*arrays)


def simplex_reference(rows: Tensor) -> Tensor:
    """The projection by sorting (Held, Wolfe and Crowder 1974): the support is a prefix of the order."""
    distance = rows - rows.amax(-1, keepdim=True)
    ordered = distance.sort(-1, descending=True).values
    total = ordered.cumsum(-1) - 1
    size = torch.arange(1, rows.shape[-1] + 1, dtype=rows.dtype, device=rows.device)
    support = (ordered * size > total).sum(-1, keepdim=True).clamp(min=1)
    threshold = total.gather(-1, support - 1) / support
    return (distance - threshold).clamp(min=0)


def p_dep_reference(point: Tensor, lengths: Tensor) -> Tensor:
    """Algorithm 2 with :func:`simplex_reference`: one row of candidate heads a word."""
    possible = possible_arcs(lengths, point.shape[-1])
    word = possible.any(-1, keepdim=True)
    heads = torch.where(possible, point, -torch.inf)
    projected = simplex_reference(torch.where(word, heads, 0))
    return torch.where(possible, projected, 0)
