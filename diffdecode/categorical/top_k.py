"""Continuous top-k: one relaxed one-hot row for each of the k best of M candidates.

``continuous_top_k`` finds an operator by name. An operator takes scores ``[B, M]``, ``k`` and ``alpha`` and
returns rows ``[B, K, M]`` in order of rank; each row sums to one and tends to the one-hot row of its rank as
``alpha`` grows. To add one: write the function, decorate it with ``register_top_k``, add a test.
"""

from collections.abc import Callable

import torch
from torch import Tensor

TopKOperator = Callable[[Tensor, int, float], Tensor]
TOP_K_OPERATORS: dict[str, TopKOperator] = {}


def register_top_k(name: str) -> Callable[[TopKOperator], TopKOperator]:
    """Decorator: make an operator available to ``continuous_top_k(..., operator=name)``."""

    def add(operator: TopKOperator) -> TopKOperator:
        TOP_K_OPERATORS[name] = operator
        return operator

    return add


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
    impossible = scores == -torch.inf
    maxima = scores.topk(k, dim=1).values  # [B, K]
    # A squared infinity has an infinite slope: impossible candidates leave before the square.
    gaps = (scores[:, None] - maxima[..., None]).masked_fill(impossible[:, None], 0.0)
    return torch.softmax((-alpha * gaps**2).masked_fill(impossible[:, None], -torch.inf), dim=-1)


def hard_top_k(scores: Tensor, k: int) -> Tensor:
    """One-hot rows ``[B, K, M]`` of the k largest scores: the limit of every operator, without gradient."""
    best = scores.topk(k, dim=1).indices
    rows = scores.new_zeros(scores.size(0), k, scores.size(1))
    return rows.scatter_(2, best[..., None], 1.0)


def continuous_top_k(
    scores: Tensor, k: int, alpha: float, operator: str = "peaked", hard_forward: bool = False
) -> Tensor:
    """Relaxed indicators of the k best candidates, by the operator of that name.

    Args:
        scores: ``[B, M]`` candidates' scores.
        k: number of rows, 1 <= k <= M.
        alpha: peakedness, > 0 (its unit is the operator's).
        operator: a name in ``TOP_K_OPERATORS``.
        hard_forward: select hard in the forward pass and keep the operator's gradient in the backward pass
            (straight-through), so that no two rows can be the same candidate.

    Returns:
        ``[B, K, M]`` rows.

    Raises:
        ValueError: unknown operator, k out of range or alpha not positive.
    """
    if operator not in TOP_K_OPERATORS:
        raise ValueError(f"unknown top-k operator {operator!r}; known: {', '.join(sorted(TOP_K_OPERATORS))}")
    if not 1 <= k <= scores.size(1):
        raise ValueError(f"k={k} must be between 1 and the number of candidates, {scores.size(1)}")
    if not alpha > 0:
        raise ValueError(f"alpha={alpha} must be positive")
    soft = TOP_K_OPERATORS[operator](scores, k, alpha)
    return hard_top_k(scores.detach(), k) + soft - soft.detach() if hard_forward else soft
