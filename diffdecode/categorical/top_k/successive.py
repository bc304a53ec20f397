"""Successive softmax: choose, take what was chosen away, choose again.

The deterministic form of relaxed subset sampling (Xie and Ermon 2019), after the k-nearest-neighbour
selection of Ploetz and Roth (2018).
"""

import torch
from torch import Tensor

from diffdecode.categorical.top_k.base import register_top_k


@register_top_k("successive")
def successive_top_k(scores: Tensor, k: int, alpha: float) -> Tensor:
    """k softmaxes, each over what the rows before it left: ``x <- x + log(1 - p_i)``, from ``x = s``.

    ``alpha`` has the unit 1/score. The rows hardly overlap at a large alpha. But an exact tie for rank i is
    shared by row i and both halves fall by log 2, so that row i + 1 skips to a third candidate if one is less
    than log 2 below.

    Args:
        scores: ``[B, M]`` candidates' scores; ``-inf`` marks an impossible candidate.
        k: number of rows K.
        alpha: peakedness, > 0.

    Returns:
        ``[B, K, M]`` rows that sum to one.
    """
    rows = []
    remaining = scores
    for _ in range(k):
        # The shift changes neither value nor gradient, and keeps alpha * s exact near the maximum.
        logits = alpha * (remaining - remaining.detach().amax(1, keepdim=True))
        rows.append(torch.softmax(logits, dim=1))
        remaining = remaining + _log_complement(logits, rows[-1])
    return torch.stack(rows, dim=1)


def _log_complement(logits: Tensor, chosen: Tensor) -> Tensor:
    """``log(1 - p)`` for ``p = softmax(logits)``, ``[B, M]``, also where p rounds to 1.

    Only the largest entry can be near 1; its complement is the mass of all others. If there are no others,
    nothing is taken away: the rows that follow are surplus, and only have to be finite.
    """
    largest = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, keepdim=True), True)
    others = logits.masked_fill(largest, -torch.inf)
    alone = (others == -torch.inf).all(1, keepdim=True)
    rest = torch.where(alone, 0.0, others).logsumexp(1, keepdim=True) - logits.logsumexp(1, keepdim=True)
    complement = torch.where(largest, rest, torch.log1p(-chosen.masked_fill(largest, 0.0)))
    return complement.masked_fill(alone, 0.0)
