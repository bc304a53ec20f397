"""Continuous top-k: one relaxed one-hot row for each of the k best of M candidates.

``continuous_top_k`` finds an operator by name. An operator takes scores ``[B, M]``, ``k`` and ``alpha`` and
returns rows ``[B, K, M]`` in order of rank; each row sums to one and tends to the one-hot row of its rank as
``alpha`` grows. To add one: write the function, decorate it with ``register_top_k``, add a test.

With fewer than k possible candidates there is nothing to choose for the last rows. Such *surplus rows* are
zero, forward and backward; an operator may return anything finite for them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# exp(-VANISHES) is 0 in float32 and in float64.
VANISHES = 800.0

TopKOperator = Callable[[Tensor, int, float], Tensor]
TOP_K_OPERATORS: dict[str, TopKOperator] = {}


def register_top_k(name: str) -> Callable[[TopKOperator], TopKOperator]:
    """Decorator: make an operator available to ``continuous_top_k(..., operator=name)``."""

    def add(operator: TopKOperator) -> TopKOperator:
        TOP_K_OPERATORS[name] = operator
        return operator

    return add


def ranked_scores(scores: Tensor, k: int) -> Tensor:
    """The k largest scores ``[B, K]``; surplus ranks repeat the best one, so that nothing infinite enters."""
    best = scores.topk(k, dim=1).values
    return torch.where(best > -torch.inf, best, best[:, :1])


def without_infinities(scores: Tensor, maxima: Tensor, distance: float) -> Tensor:
    """Scores ``[B, M]`` with impossible candidates at least ``distance`` below all ``maxima [B, K]``.

    An operator gives exactly 0 at that distance, forward and backward, but a squared infinity would have an
    infinite slope; and this costs one pass over ``[B, M]`` where masks would cost several over ``[B, K, M]``.
    """
    last = maxima.detach().amin(1, keepdim=True)
    # More than the distance, so that rounding next to a large score cannot swallow it.
    return torch.where(scores == -torch.inf, last - (distance + 1.0 + last.abs()), scores)


@register_top_k("peaked")
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
    has_surplus: bool = True,
) -> Tensor:
    """``continuous_top_k`` without its checks, for inner loops that check their input once.

    ``has_surplus=False`` promises that every sentence has at least k possible candidates.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    soft = TOP_K_OPERATORS[operator](scores, k, alpha)
    if has_surplus:
        possible = (scores > -torch.inf).sum(1, keepdim=True)
        surplus = torch.arange(k, device=scores.device) >= possible  # [B, K]
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
    if operator not in TOP_K_OPERATORS:
        raise ValueError(f"unknown top-k operator {operator!r}; known: {', '.join(sorted(TOP_K_OPERATORS))}")
    if not 1 <= k <= scores.size(1):
        raise ValueError(f"k={k} must be between 1 and the number of candidates, {scores.size(1)}")
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha={alpha} must be positive and finite; use hard_top_k for the limit")
    best = scores.detach().topk(k, dim=1).values
    # The maximum gives away NaN and +inf anywhere in a row, and rows of nothing but -inf.
    bad, surplus = torch.stack([~best[:, 0].isfinite(), best[:, -1] == -torch.inf]).any(1).tolist()
    if bad:
        _name_bad_row(best[:, 0])
    return relaxed_rows(scores, k, alpha, operator, hard_forward, surplus)


def _name_bad_row(best: Tensor) -> None:
    """Raise for the first row of which the best score ``[B]`` is not finite."""
    row = int((~best.isfinite()).nonzero()[0])
    problem = "no possible candidate" if best[row] == -torch.inf else f"a score of {best[row].item()}"
    raise ValueError(f"batch row {row} has {problem} in its top-k scores")
