"""How far a top-k over the best M candidates can be from the same top-k over all of them.

The bound is on the total variation distance ``TV = 1/2 sum_v |p_iv - q_iv|`` between row p_i over all
candidates and row q_i over the kept ones, for every i. It needs only what the kept candidates show: their
scores, an upper bound ``cut`` on the discarded scores, and how many candidates were discarded. Each operator
proves its own, in its file.
"""

import math

import torch
from torch import Tensor

from diffdecode.categorical.top_k.base import TOP_K_OPERATORS, Discarded


@torch.no_grad()
def tail_bound(
    kept: Tensor,
    k: int,
    alpha: float,
    operator: str,
    cut: Tensor,
    discarded: int,
    mass: Tensor | None = None,
) -> Tensor:
    """Upper bound on the TV distance of every row of a top-k to its truncation.

    Args:
        kept: ``[B, M]`` scores of the kept candidates.
        k: number of rows K.
        alpha: peakedness.
        operator: a name in ``TOP_K_OPERATORS``.
        cut: ``[B]`` no discarded score is larger; ``-inf`` if none was possible.
        discarded: number of discarded candidates (an upper bound will do).
        mass: ``[B]`` upper bound on the sum of ``exp(score)`` over the discarded candidates, if known.

    Returns:
        ``[B]`` in [0, 1]; 0 if nothing was discarded.

    Raises:
        ValueError: unknown operator, or one that has no bound.
    """
    bound_of = TOP_K_OPERATORS[operator].tail_bound
    if bound_of is None:
        raise ValueError(f"top-k operator {operator!r} has no tail bound: it needs all candidates")
    kept, cut = kept.to(torch.float64), cut.to(torch.float64)
    log_count = torch.full_like(cut, math.log(discarded) if discarded else -math.inf)
    effective = log_count if mass is None else torch.minimum(log_count, mass.to(torch.float64).log() - cut)
    bound = bound_of(kept, k, alpha, Discarded(cut, log_count, effective))
    return torch.where((log_count == -torch.inf) | (cut == -torch.inf), 0.0, bound.clamp(0.0, 1.0))
