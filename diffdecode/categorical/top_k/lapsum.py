"""LapSum rows: a continuous top-k whose rows never share more than one unit of a candidate.

LapSum relaxes the *set* of the j best candidates: candidate v belongs to it to the degree
``F(alpha * (s_v - b_j))``, with F the distribution function of the Laplace distribution and the threshold
``b_j`` set so that the degrees add up to j. Row i of a top-k is the difference of two such sets.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffdecode.categorical.top_k.base import TOP_K_OPERATORS, Discarded, TopKOperator, ranked_scores

LOG_HALF = -0.6931471805599453


def lapsum_top_k(scores: Tensor, k: int, alpha: float) -> Tensor:
    """Row i is ``F(alpha * (s - b_i)) - F(alpha * (s - b_{i-1}))``, the i best less the i - 1 best.

    Three properties hold at every alpha: a candidate's weights in all rows together, its *inclusion*, are at
    most one, so no two rows can become the same candidate; raising a score never lowers the inclusion of its
    candidate; a better candidate is never included less than a worse one. ``alpha`` has the unit 1/score.

    Args:
        scores: ``[B, M]`` candidates' scores; ``-inf`` marks an impossible candidate.
        k: number of rows K.
        alpha: peakedness, > 0.

    Returns:
        ``[B, K, M]`` rows that sum to one. Differentiable once.
    """
    return _LapSum.apply(scores, k, alpha)


class _LapSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int, alpha: float) -> Tensor:
        impossible = (scores == -torch.inf)[:, None]
        anchors, offsets = thresholds(scores, k, alpha)
        z = alpha * (scores[:, None] - anchors[..., None]) - offsets[..., None]
        z = z.masked_fill(impossible, -torch.inf)
        included = laplace_cdf(z)
        ctx.save_for_backward(z)
        ctx.alpha = alpha
        # Rounding must not turn an empty difference negative.
        return torch.cat([included[:, :1], included.diff(dim=1).clamp_min(0.0)], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor) -> tuple[Tensor, None, None]:
        """Through ``sum_v F(z_jv) = j``: ``d b_j / d s_v`` is candidate v's share of the density F'."""
        (z,) = ctx.saved_tensors
        grad_included = torch.cat([grad_rows[:, :-1] - grad_rows[:, 1:], grad_rows[:, -1:]], dim=1)
        distance = -z.abs()
        grad_z = grad_included * (0.5 * distance.exp())
        everything_included = (distance == -torch.inf).all(-1, keepdim=True)  # no threshold to move
        share = torch.softmax(distance.masked_fill(everything_included, 0.0), dim=-1)
        grad = grad_z - share * grad_z.sum(-1, keepdim=True)
        return ctx.alpha * grad.sum(1), None, None


def laplace_cdf(z: Tensor) -> Tensor:
    """F(z), the distribution function of the standard Laplace distribution, elementwise."""
    tail = 0.5 * torch.exp(-z.abs())
    return torch.where(z < 0, tail, 1.0 - tail)


@torch.no_grad()
def thresholds(scores: Tensor, k: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Thresholds in closed form: ``b_j = anchors[:, j-1] + offsets[:, j-1] / alpha``, both ``[B, K]``.

    Anchored at the j-th best score, because neither ``b_j`` itself nor ``alpha * s`` can be represented well
    enough in float32 when alpha is large. ``b_j`` is ``-inf`` (the set is everything) when there are no more
    than j possible candidates.

    Each score above ``b_j`` contributes at least one half, so at most 2j scores are above it: only the best
    2k candidates have to be sorted, and the others enter as one sum.
    """
    best = scores.topk(min(2 * k, scores.size(1)), dim=1)  # values [B, R]
    top = best.values
    possible = top > -torch.inf
    # The weakest possible one of the best: every exponent below is then at most zero.
    reference = torch.where(possible, top, torch.inf).amin(1, keepdim=True)
    tail = scores.scatter(1, best.indices, -torch.inf)
    log_tail = (alpha * (tail - reference)).logsumexp(1, keepdim=True)  # [B, 1]

    count_at = _count_at(top, reference, log_tail, possible, alpha)  # [B, R]
    j = torch.arange(1, k + 1, device=scores.device, dtype=scores.dtype)
    above = (count_at[:, None] <= j[:, None]).sum(-1)  # [B, K] number of scores >= b_j

    anchors = ranked_scores(scores, k)
    gaps = (alpha * (top[:, None] - anchors[..., None])).masked_fill(~possible[:, None], -torch.inf)
    is_above = torch.arange(top.size(1), device=scores.device) < above[..., None]  # [B, K, R]
    # With x = exp(offset):  above - A x + C / x = j.
    log_a = LOG_HALF + (-gaps).masked_fill(~is_above, -torch.inf).logsumexp(-1)
    below = gaps.masked_fill(is_above, -torch.inf).logsumexp(-1)
    log_c = LOG_HALF + torch.logaddexp(below, log_tail + alpha * (reference - anchors))
    offsets = _positive_root(above - j, log_a, log_c)
    everything = j >= (scores > -torch.inf).sum(1, keepdim=True)
    return anchors, offsets.masked_fill(everything, -torch.inf)


def _count_at(top: Tensor, reference: Tensor, log_tail: Tensor, possible: Tensor, alpha: float) -> Tensor:
    """``sum_v F(alpha * (s_v - b))`` for b at each of the best scores, ``[B, R]``; inf at impossible ones."""
    scores = torch.where(possible, top, reference)
    among_top = laplace_cdf(alpha * (scores[:, None] - scores[..., None])) * possible[:, None]
    tail = 0.5 * torch.exp(log_tail + alpha * (reference - scores))
    return (among_top.sum(-1) + tail).masked_fill(~possible, torch.inf)


def _positive_root(d: Tensor, log_a: Tensor, log_c: Tensor) -> Tensor:
    """``log x`` of the positive root of ``a x^2 - d x - c = 0``, without overflow and cancellation."""
    log_d = d.abs().log()
    log_sum = torch.logaddexp(log_d, 0.5 * torch.logaddexp(2 * log_d, log_a + log_c - 2 * LOG_HALF))
    return torch.where(d > 0, log_sum + LOG_HALF - log_a, log_c - LOG_HALF - log_sum)


def lapsum_tail_bound(kept: Tensor, k: int, alpha: float, discarded: Discarded) -> Tensor:
    """Inclusion T_j that the discarded candidates would get in the set of the j best, for j = k and k - 1.

    Without them the threshold b_j is lower, so their inclusion at the truncated threshold bounds T_j. Putting
    them back moves T_j from the kept candidates to them: the TV distance of the degrees is T_j, and that of
    row j, a difference of degrees, at most T_j + T_{j-1}.
    """
    anchors, offsets = thresholds(kept, k, alpha)
    z = alpha * (discarded.cut[:, None] - anchors) - offsets  # [B, K]
    # At or above the threshold F(z) is one half or more, and only the plain count is a bound.
    included = discarded.log_weight(laplace_cdf(z).log(), (z < 0) & (alpha >= 1)).exp()
    return included[:, -2:].sum(1)


TOP_K_OPERATORS.register("lapsum", TopKOperator(lapsum_top_k, lapsum_tail_bound))
