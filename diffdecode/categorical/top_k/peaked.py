"""The operator of the soft beam paper: a softmax of the squared distance to each of the k largest scores."""

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


def peaked_top_k(scores: Tensor, k: int, alpha: float) -> Tensor:
    """Peaked softmax around each of the k largest scores (soft beam search 2018, Algorithm 2).

    ``p_i = softmax(-alpha * (s - m_i)^2)`` with ``m_i`` the i-th largest score. ``alpha`` has the unit
    1/score^2: two candidates closer than about ``1/sqrt(alpha)`` share a row. The same formula with
    ``pow=2`` is known as SoftSort (Prillo and Eisenschlos 2020).

    Args:
        scores: ``[B, M]`` candidates' scores; ``-inf`` marks an impossible candidate.
        k: number of rows K.
        alpha: peakedness, > 0.

    Returns:
        ``[B, K, M]`` rows that sum to one; impossible candidates get exactly 0, forward and backward.
    """
    maxima = ranked_scores(scores, k)
    gaps = without_infinities(scores, maxima, (VANISHES / alpha) ** 0.5)[:, None] - maxima[..., None]
    return torch.softmax(-alpha * gaps**2, dim=-1)


def peaked_tail_bound(kept: Tensor, k: int, alpha: float, discarded: Discarded) -> Tensor:
    """Row k is the closest to the cut, and its normaliser is at least 1, the weight of its own maximum.

    ``exp(-alpha * (m - s)^2 - s)`` grows up to the cut if ``m - cut >= 1 / (2 alpha)``.
    """
    gap = gap_to_cut(kept, k, discarded)
    return discarded.log_weight(-alpha * gap**2, gap >= 0.5 / alpha).exp()


TOP_K_OPERATORS.register("peaked", TopKOperator(peaked_top_k, peaked_tail_bound))
