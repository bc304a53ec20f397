"""What a backend offers. Its functions take and return tensors on one device, and never raise for a sentence.

All functions of trees take ``scores [B, N+1, N+1]`` (dependent, head; contiguous, float32 or float64),
``lengths [B]`` (int64, on the same device) and ``multi_root``. Beside their results they return a ``status
[B]`` (:mod:`diffdecode.structure.kernels.status`), so that one bad sentence is named instead of spoiling the
batch. What each one computes is written down in :mod:`diffdecode.structure.kernels.reference`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Results = tuple[Tensor, ...]


@dataclass(frozen=True)
class TreeAlgorithms:
    """The algorithms of one kind of trees, projective or all."""

    best: Callable[[Tensor, Tensor, bool], Results]
    """``(scores, lengths, multi_root)`` to heads ``[B, N]`` (-1 beyond the length) and status."""

    marginals: Callable[[Tensor, Tensor, bool], Results]
    """To marginals ``[B, N+1, N+1]``, log-partition ``[B]`` (float64) and status."""

    log_partition: Callable[[Tensor, Tensor, bool], Tensor]
    """To ``[B]`` float64, differentiable any number of times: the reference in every backend."""

    covariance_product: Callable[[Tensor, Tensor, bool, Tensor], Tensor]
    """``(scores, lengths, multi_root, vector)`` to the arcs' covariance times ``vector [B, N+1, N+1]``."""

    sample: Callable[[Tensor, Tensor, bool, Tensor], Results]
    """``(scores, lengths, multi_root, seeds [S, B])`` to heads ``[S, B, N]`` and status."""

    project: Callable[[Tensor, Tensor, bool, Tensor, float, int], Results]
    """``(points, lengths, multi_root, start [B, N], gap, max_steps)`` to the projection onto the hull of the
    trees, its duality gap ``[B]``, the steps taken ``[B]`` and status; everything on the CPU in float64."""


@dataclass(frozen=True)
class Backend:
    """One implementation of everything; an attribute that it lacks is another backend's."""

    name: str
    projective: TreeAlgorithms
    nonprojective: TreeAlgorithms

    simplex: Callable[[Tensor], Tensor]
    """Projection of every row of ``[R, M]`` on the simplex, NaN where there is none. Waits for no device."""

    p_dep: Callable[[Tensor, Tensor], Tensor]
    """Projection of ``[B, N+1, N+1]`` with ``lengths [B]`` onto P_DEP, NaN likewise."""

    possible: Callable[[Tensor, Tensor], Tensor]
    """Bool ``[B, N+1, N+1]``: arcs of ``lengths [B]`` words whose ``scores [B, N+1, N+1]`` are not -inf."""
