"""The polynomial of Liu et al. (2023): |X - c|^p of binary variables X."""

from torch import Tensor

CENTRE = 0.45


def expected_loss(prob_one: Tensor | float, exponent: float) -> Tensor | float:
    """E |X - c|^p for X = 1 with the given probability."""
    return prob_one * (1 - CENTRE) ** exponent + (1 - prob_one) * CENTRE**exponent


def polynomial(decision: Tensor, exponent: float) -> Tensor:
    """Losses ``[K, B]`` of decisions ``[K, B, L, 2]``; the first category means X = 1."""
    return (decision[..., 0] - CENTRE).abs().pow(exponent).mean(-1)
