"""Successive softmax: choose, take what was chosen away, choose again.

The deterministic form of relaxed subset sampling (Xie and Ermon 2019), after the k-nearest-neighbour
selection of Ploetz and Roth (2018). Both take a choice away by adding ``log(1 - p)`` to the scores, which is
too little for a candidate far ahead: it comes back where the gap between ranks 1 and 3 is more than alpha
times that between ranks 1 and 2, always so if alpha < 1. Here no row may take more of a candidate than the
rows before it have left, which is right at every alpha and every gap.
"""

import torch
from torch import Tensor

from diffdecode.categorical.top_k.base import TOP_K_OPERATORS, Discarded, TopKOperator, ranked_scores


def successive_top_k(scores: Tensor, k: int, alpha: float) -> Tensor:
    """Row i is the softmax that takes at most what is left of each candidate: a constrained softmax.

    Row 1 is ``softmax(alpha * s)``. Row i maximises ``alpha <s, p> + H(p)`` over the distributions p with
    ``p <= 1 - (sum of the rows before)``: ``p_v = min(left_v, t w_v)`` with ``w = exp(alpha s)`` (constrained
    softmax, Martins and Kreutzer 2017). A candidate once exhausted is exhausted for good, so that the first i
    rows together, the *inclusion*, are ``min(1, T_i w)``, with T_i such that they add up to i: probabilities
    of being drawn proportional to w, but for what would be drawn with more than certainty.

    A candidate's inclusion is at most one; raising a score never lowers the inclusion of its candidate; a
    better candidate is never included less than a worse one. Candidates in an exact tie share their rows.
    ``alpha`` has the unit 1/score.

    Args:
        scores: ``[B, M]`` candidates' scores; ``-inf`` marks an impossible candidate.
        k: number of rows K.
        alpha: peakedness, > 0.

    Returns:
        ``[B, K, M]`` rows that sum to one.
    """
    anchors, offsets = multipliers(scores, k, alpha)
    log_included = alpha * (scores[:, None] - anchors[..., None]) - offsets[..., None]
    # Certain, and without gradient: what exceeds its share, and everything in sets that are large enough.
    everything = torch.arange(1, k + 1, device=scores.device) >= (scores > -torch.inf).sum(1, keepdim=True)
    certain = (log_included >= 0) | everything[..., None] & (scores > -torch.inf)[:, None]
    included = log_included.masked_fill(certain, 0.0).exp()
    # Rounding must not turn an empty difference negative.
    return torch.cat([included[:, :1], included.diff(dim=1).clamp_min(0.0)], dim=1)


def multipliers(scores: Tensor, k: int, alpha: float) -> tuple[Tensor, Tensor]:
    """T_j of the j best: ``log(T_j w_v) = alpha * (s_v - anchors_j) - offsets_j``, both ``[B, K]``.

    If the a best candidates are certain, the others share what is left: ``T_j = (j - a) / sum_{v > a} w_v``.
    Right is the smallest a with ``T_j w_{a+1} <= 1``; at most j - 1, because then the largest share is 1 or
    less. Anchored at the score of rank a + 1, next to which differences are exact at a large alpha.
    """
    top = ranked_scores(scores, k)
    best = scores.topk(k, dim=1)
    possible = best.values > -torch.inf
    tail = alpha * (scores.scatter(1, best.indices, -torch.inf) - top[:, -1:])
    # rest[a] = log(sum_{v > a} w_v / w_{a+1}), of which rank a + 1 itself is 1: never negative.
    rest = [torch.cat([torch.zeros_like(top[:, :1]), tail], 1).logsumexp(1)]
    for a in reversed(range(k - 1)):
        gap = (alpha * (top[:, a + 1] - top[:, a])).masked_fill(~possible[:, a + 1], -torch.inf)
        rest.append(torch.logaddexp(torch.zeros_like(gap), gap + rest[-1]))
    log_rest = torch.stack(rest[::-1], 1)  # [B, K], a = 0 ... k - 1

    numbers = torch.arange(k, device=scores.device)
    left = numbers[:, None] + 1 - numbers  # j - a, [j, a]
    log_left = left.clamp_min(1).to(scores.dtype).log().masked_fill(left < 1, torch.inf)
    certain = (log_left <= log_rest.detach()[:, None]).to(torch.uint8).argmax(-1)  # the first a that fits
    return top.gather(1, certain), log_rest.gather(1, certain) - log_left[numbers, certain]


def successive_tail_bound(kept: Tensor, k: int, alpha: float, discarded: Discarded) -> Tensor:
    """Inclusion D_j of the discarded candidates in the set of the j best, for j = k and k - 1.

    Without them T_j is larger, and ``min(1, T w) <= T w``, so T_j of the kept candidates bounds D_j; ``w(s)
    exp(-s)`` grows if ``alpha >= 1``. Putting them back moves D_j from the kept candidates to them: the TV
    distance of row j, a difference of inclusions, is at most D_j + D_{j-1}.
    """
    anchors, offsets = multipliers(kept, k, alpha)
    log_included = discarded.log_weight(alpha * (discarded.cut[:, None] - anchors) - offsets, alpha >= 1)
    return log_included[:, -2:].exp().sum(1)


TOP_K_OPERATORS.register("successive", TopKOperator(successive_top_k, successive_tail_bound))
