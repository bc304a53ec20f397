"""SoftSort restricted to the first k rows, with the absolute distance (Prillo and Eisenschlos 2020)."""

import torch
from torch import Tensor

from diffdecode.categorical.top_k.base import (
    TOP_K_OPERATORS,
    VANISHES,
    Discarded,
    TopKOperator,
    gap_to_cut,
    ranked_scores,
    without_infinities,
)


def softsort_top_k(scores: Tensor, k: int, alpha: float) -> Tensor:
    """Peaked softmax around each of the k largest scores, by absolute distance.

    ``p_i = softmax(-alpha * |s - m_i|)`` with ``m_i`` the i-th largest score. ``alpha`` has the unit 1/score:
    two candidates with a gap of ``g`` need an alpha of about ``3 / g`` to be told apart, where the squared
    distance of ``peaked`` needs ``3 / g^2``, and a candidate far below the beam keeps a gradient of order
    ``exp(-alpha * distance)`` instead of ``exp(-alpha * distance^2)``.

    Args:
        scores: ``[B, M]`` candidates' scores; ``-inf`` marks an impossible candidate.
        k: number of rows K.
        alpha: peakedness, > 0.

    Returns:
        ``[B, K, M]`` rows that sum to one. The largest entry of row i is the i-th best candidate.
    """
    maxima = ranked_scores(scores, k)
    gaps = without_infinities(scores, maxima, VANISHES / alpha)[:, None] - maxima[..., None]
    return torch.softmax(-alpha * gaps.abs(), dim=-1)


def softsort_tail_bound(kept: Tensor, k: int, alpha: float, discarded: Discarded) -> Tensor:
    """Row k is the closest to the cut, and its normaliser is at least 1, the weight of its own maximum.

    ``exp(-alpha * (m - s) - s)`` grows with s if ``alpha >= 1``.
    """
    return discarded.log_weight(-alpha * gap_to_cut(kept, k, discarded), alpha >= 1).exp()


TOP_K_OPERATORS.register("softsort", TopKOperator(softsort_top_k, softsort_tail_bound))
