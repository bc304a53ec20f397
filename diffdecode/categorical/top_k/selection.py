"""Selecting by name: ``continuous_top_k``, and the hard top-k that every operator tends to."""

import math

import torch
from torch import Tensor

from diffdecode.categorical.top_k.base import TOP_K_OPERATORS
from diffdecode.checks import found


def hard_top_k(scores: Tensor, k: int) -> Tensor:
    """One-hot rows ``[B, K, M]`` of the k largest scores: the limit of every operator, without gradient."""
    best, index = scores.detach().topk(k, dim=1)
    rows = torch.zeros_like(scores).unsqueeze(1).repeat(1, k, 1)
    return rows.scatter_(2, index[..., None], (best > -torch.inf).to(rows.dtype)[..., None])


def relaxed_rows(
    scores: Tensor,
    k: int,
    alpha: float,
    operator: str = "peaked",
    hard_forward: bool = False,
) -> Tensor:
    """``continuous_top_k`` without its checks, for inner loops that check their input once.

    Args:
        scores: ``[B, M]``, not NaN.
        k: number of rows K, 1 <= K <= M.
        alpha: peakedness.
        operator: a name in ``TOP_K_OPERATORS``.
        hard_forward: as in ``continuous_top_k``.

    Returns:
        ``[B, K, M]``.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    soft = TOP_K_OPERATORS[operator].rows(scores, k, alpha)
    possible = (scores > -torch.inf).sum(1, keepdim=True)
    surplus = torch.arange(k, device=scores.device) >= possible  # [B, K]
    if scores.device.type != "cpu" or surplus.any():  # seldom; a GPU does not wait to know
        soft = soft.masked_fill(surplus[..., None], 0.0)
    # In this order the value is exactly the hard row.
    return (soft - soft.detach()) + hard_top_k(scores, k) if hard_forward else soft


def continuous_top_k(
    scores: Tensor, k: int, alpha: float, operator: str = "peaked", hard_forward: bool = False
) -> Tensor:
    """Relaxed indicators of the k best candidates, by the operator of that name.

    Args:
        scores: ``[B, M]`` candidates' scores; ``-inf`` marks an impossible candidate. Half precision is
            computed in float32.
        k: number of rows, 1 <= k <= M.
        alpha: peakedness, > 0 (its unit is the operator's).
        operator: a name in ``TOP_K_OPERATORS``.
        hard_forward: select hard in the forward pass and keep the operator's gradient in the backward pass
            (straight-through), so that no two rows can be the same candidate.

    Returns:
        ``[B, K, M]`` rows, float32 or float64. Row i is zero if there are fewer than i possible candidates.

    Raises:
        ValueError: unknown operator, k out of range, alpha not positive and finite, or a sentence with NaN or
            +inf among its scores or with no possible candidate.
    """
    TOP_K_OPERATORS[operator]  # an unknown name is the first thing to say
    if not 1 <= k <= scores.size(1):
        raise ValueError(f"k={k} must be between 1 and the number of candidates, {scores.size(1)}")
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha={alpha} must be positive and finite; use hard_top_k for the limit")
    best = scores.detach().topk(k, dim=1).values
    # The maximum gives away NaN and +inf anywhere in a row, and rows of nothing but -inf.
    refuse_bad_best(best[:, :1])
    return relaxed_rows(scores, k, alpha, operator, hard_forward)


def refuse_bad_best(best: Tensor) -> None:
    """Refuse best scores ``[B, T]`` of T selections that are not finite; a GPU waits once for all.

    Raises:
        ValueError: naming the batch row of the first such selection.
    """
    bad = ~best.isfinite()
    if found(lambda: bad.any()):
        t, row = bad.T.nonzero()[0].tolist()
        score = best[row, t].item()
        problem = "no possible candidate" if score == -math.inf else f"a score of {score}"
        raise ValueError(f"batch row {row} has {problem} in its top-k scores")
