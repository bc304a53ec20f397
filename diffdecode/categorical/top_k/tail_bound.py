"""How far a top-k over the best M candidates can be from the same top-k over all of them.

Every bound is on the total variation distance ``TV = 1/2 sum_v |p_iv - q_iv|`` between row p_i over
all candidates and row q_i over the kept ones, for every i. It needs only what the kept candidates show: their
scores, an upper bound ``cut`` on the discarded scores, and how many candidates were discarded.

Count. If all that is known of the discarded candidates is that there are N of them, at ``cut`` or below, then
``sum_{v discarded} w(s_v) <= N * w(cut)`` for any weight w that increases with the score. If also their
``mass = sum_{v discarded} exp(s_v)`` is known (scores are log-probabilities), then N may be replaced by the
*effective count* ``mass * exp(-cut)`` wherever ``w(s) * exp(-s)`` increases up to ``cut``, which is usually
smaller by orders of magnitude.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffdecode.categorical.top_k.base import ranked_scores
from diffdecode.categorical.top_k.lapsum import laplace_cdf, thresholds

TailBound = Callable[[Tensor, int, float, Tensor, Tensor, Tensor], Tensor]


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
        operator: ``peaked``, ``softsort``, ``lapsum`` or ``successive``.
        cut: ``[B]`` no discarded score is larger; ``-inf`` if none was possible.
        discarded: number of discarded candidates (an upper bound will do).
        mass: ``[B]`` upper bound on the sum of ``exp(score)`` over the discarded candidates, if known.

    Returns:
        ``[B]`` in [0, 1]; 0 if nothing was discarded.

    Raises:
        ValueError: the operator has no bound.
    """
    if operator not in TAIL_BOUNDS:
        raise ValueError(f"top-k operator {operator!r} has no tail bound; known: {', '.join(TAIL_BOUNDS)}")
    kept, cut = kept.to(torch.float64), cut.to(torch.float64)
    log_count = torch.full_like(cut, math.log(discarded) if discarded else -math.inf)
    effective = log_count if mass is None else torch.minimum(log_count, mass.to(torch.float64).log() - cut)
    bound = TAIL_BOUNDS[operator](kept, k, alpha, cut, log_count, effective)
    return torch.where((log_count == -torch.inf) | (cut == -torch.inf), 0.0, bound.clamp(0.0, 1.0))


def _peaked(kept: Tensor, k: int, alpha: float, cut: Tensor, log_count: Tensor, effective: Tensor) -> Tensor:
    """Row k is the closest to the cut, and its normaliser is at least 1, the weight of its own maximum.

    ``exp(-alpha * (m - s)^2 - s)`` increases up to the cut if ``m - cut >= 1 / (2 alpha)``.
    """
    gap = (_kth(kept, k) - cut).clamp_min(0.0)
    log_count = torch.where(gap >= 0.5 / alpha, effective, log_count)
    return torch.exp(log_count - alpha * gap**2)


def _softsort(
    kept: Tensor, k: int, alpha: float, cut: Tensor, log_count: Tensor, effective: Tensor
) -> Tensor:
    """As for ``peaked``; ``exp(-alpha * (m - s) - s)`` increases if ``alpha >= 1``."""
    gap = (_kth(kept, k) - cut).clamp_min(0.0)
    return torch.exp((effective if alpha >= 1 else log_count) - alpha * gap)


def _lapsum(kept: Tensor, k: int, alpha: float, cut: Tensor, log_count: Tensor, effective: Tensor) -> Tensor:
    """Inclusion T_j that the discarded candidates would get in the set of the j best, for j = k and k - 1.

    Without them the threshold b_j is lower, so their inclusion at the truncated threshold bounds T_j. Putting
    them back moves T_j from the kept candidates to them: the TV distance of the degrees is T_j, and that of
    row j, a difference of degrees, at most T_j + T_{j-1}.
    """
    anchors, offsets = thresholds(kept, k, alpha)
    z = alpha * (cut[:, None] - anchors) - offsets  # [B, K]
    count = effective if alpha >= 1 else log_count
    # At or above the threshold F(z) is one half or more, and only the plain count is a bound.
    count = torch.where(z < 0, count[:, None], log_count[:, None])
    included = torch.exp(count) * laplace_cdf(z)
    return included[:, -2:].sum(1)


def _successive(
    kept: Tensor, k: int, alpha: float, cut: Tensor, log_count: Tensor, effective: Tensor
) -> Tensor:
    """By induction over the rows, with ``error`` the largest error of a kept x so far.

    With D the discarded weight, Z the kept weight and R the kept weight without its largest term: a kept
    ``log w = alpha x`` is off by at most ``alpha * error``, so the row is off by at most
    ``tanh(alpha * error / 2)`` among the kept, plus ``D / Z * exp(alpha * error)``. ``log(1 - p)``, a
    difference of two logarithms of sums, is off by at most
    ``2 alpha * error + log(1 + exp(alpha * error) * D / R)``.
    A discarded x only ever falls, so D of the first row bounds the others.
    """
    log_discarded = (effective if alpha >= 1 else log_count) + alpha * cut
    error, worst, remaining = torch.zeros_like(cut), torch.zeros_like(cut), kept
    for _ in range(k):
        logits = alpha * remaining
        drift = alpha * error
        tail = torch.exp(log_discarded - logits.logsumexp(1) + drift)
        worst = torch.maximum(worst, torch.tanh(0.5 * drift) + tail)
        largest = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, keepdim=True), True)
        log_rest = logits.masked_fill(largest, -torch.inf).logsumexp(1)
        error = error + 2 * drift + torch.logaddexp(torch.zeros_like(drift), log_discarded - log_rest + drift)
        log_complement = torch.log1p(-torch.softmax(logits, 1).masked_fill(largest, 0.0))
        rest = (log_rest - logits.logsumexp(1))[:, None]
        remaining = remaining + torch.where(largest, rest, log_complement)
    return worst.nan_to_num(1.0)


def _kth(kept: Tensor, k: int) -> Tensor:
    """Score of rank k, ``[B]``."""
    return ranked_scores(kept, k)[:, -1]


TAIL_BOUNDS: dict[str, TailBound] = {
    "peaked": _peaked,
    "softsort": _softsort,
    "lapsum": _lapsum,
    "successive": _successive,
}
