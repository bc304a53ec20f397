"""SoftSort restricted to the first k rows, with the absolute distance (Prillo and Eisenschlos 2020)."""

import torch
from torch import Tensor

from diffdecode.categorical.top_k.base import VANISHES, ranked_scores, register_top_k, without_infinities


@register_top_k("softsort")
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
