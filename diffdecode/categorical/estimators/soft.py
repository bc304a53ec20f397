"""Relaxations: no hard decision at all, hence exact gradients of another objective."""

import torch
from torch import Tensor

from diffdecode.categorical.estimators.base import ESTIMATORS, Estimator
from diffdecode.categorical.estimators.draws import checked_softmax, gumbel


def soft(scores: Tensor, *, tau: float = 1.0) -> tuple[Tensor, Tensor]:
    """Peaked softmax, softmax(alpha * scores) with alpha = 1/tau: the soft argmax of Goyal et al. (2017).

    Temperature: default 1.  Small tau approaches argmax, and its gradient vanishes or explodes.
    Deterministic; differentiable as often as you like.

    Args:
        scores: ``[..., V]``; -inf is impossible.

    Raises:
        ValueError: a row of ``scores`` holds NaN or +inf, or nothing possible (the message names it).
    """
    probs = checked_softmax(scores)
    return (probs if tau == 1 else (scores / tau).softmax(-1)), probs


def gumbel_soft(
    scores: Tensor,
    *,
    tau: float = 1.0,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, None]:
    """Gumbel-Softmax sample softmax((scores + G)/tau), not hardened (Jang et al. 2017, Maddison et al. 2017).

    Temperature: default 1; usual range 0.1 to 1 (small: nearly one-hot, gradients of high variance).

    Args:
        scores: ``[..., V]``; -inf is impossible.
        noise: Exp(1) variates ``[..., V]``, if they are given.

    Raises:
        ValueError: a row of ``scores`` holds NaN or +inf, or nothing possible (the message names it).
    """
    return checked_softmax((scores + gumbel(scores, noise, generator)) / tau), None


ESTIMATORS.register("soft", Estimator(soft, hard=False, alphas=lambda tau: (1 / tau,)))
ESTIMATORS.register(
    "gumbel_soft", Estimator(gumbel_soft, hard=False, alphas=lambda tau: (1 / tau,), perturbs=True)
)
