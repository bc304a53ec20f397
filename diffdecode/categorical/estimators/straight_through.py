"""Straight-through estimators: hard forward, the Jacobian of a softmax backward."""

from functools import partial

import torch
from torch import Tensor

from diffdecode.categorical.estimators.base import ESTIMATORS, Estimator
from diffdecode.categorical.estimators.draws import checked_softmax, draw_index, gumbel
from diffdecode.categorical.estimators.hard_choice import hard_choice, softmax_vjp


def straight_through_backward(y: Tensor, grad: Tensor, *, tau: float = 1.0) -> Tensor:
    """(1/tau) J(y) g: the gradient of softmax(scores/tau) where that equals ``y``.

    Args:
        y: probabilities ``[..., V]``.
        grad: g, ``[..., V]``.
        tau: temperature.
    """
    grad = softmax_vjp(y, grad)
    return grad if tau == 1 else grad / tau


def st(
    scores: Tensor,
    *,
    tau: float = 1.0,
    index: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Straight-through (Bengio et al. 2013): D ~ softmax(scores), gradient (1/tau) J(softmax(scores/tau)) g.

    Temperature: default 1, where the gradient is exact in expectation for every linear loss (first order:
    Liu et al. 2023, section 3.1).  No other tau has that property; tau > 1 lowers the variance.

    Args:
        scores: ``[..., V]``; -inf is impossible.
        index: the decision ``[...]``, if it is given.
        noise: Exp(1) variates ``[..., V]``, if they are given.

    Raises:
        ValueError: a row of ``scores`` holds NaN or +inf, or nothing possible (the message names it).
    """
    probs = checked_softmax(scores)
    if index is None:
        index = draw_index(probs, noise, generator)
    y = probs if tau == 1 else (scores.detach() / tau).softmax(-1)
    return hard_choice(scores, index, partial(straight_through_backward, tau=tau), y), probs


def argmax_st(scores: Tensor, *, tau: float = 1.0) -> tuple[Tensor, Tensor]:
    """Straight-through at the mode: D = argmax(scores), the first of equals; gradient as in ``st``.

    Temperature: default 1.  Nothing is sampled; for greedy decoding.

    Args:
        scores: ``[..., V]``; -inf is impossible.

    Raises:
        ValueError: a row of ``scores`` holds NaN or +inf, or nothing possible (the message names it).
    """
    probs = checked_softmax(scores)
    y = probs if tau == 1 else (scores.detach() / tau).softmax(-1)
    return hard_choice(scores, scores.argmax(-1), partial(straight_through_backward, tau=tau), y), probs


def st_gumbel(
    scores: Tensor,
    *,
    tau: float = 1.0,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, None]:
    """Straight-through Gumbel-Softmax (Jang et al. 2017): D = argmax y, y = softmax((scores + G)/tau).

    The same bits, forward and backward, as ``torch.nn.functional.gumbel_softmax(scores, tau, hard=True)``.

    Temperature: default 1; usual range 0.1 to 1: a small tau has less bias, but variance grows like 1/tau.

    Args:
        scores: ``[..., V]``; -inf is impossible.
        noise: Exp(1) variates ``[..., V]``, if they are given.

    Raises:
        ValueError: a row of ``scores`` holds NaN or +inf, or nothing possible (the message names it).
    """
    with torch.no_grad():
        y = checked_softmax(gumbel(scores, noise, generator).add_(scores).div_(tau))
        index = y.max(-1).indices
    return hard_choice(scores, index, partial(straight_through_backward, tau=tau), y), None


ESTIMATORS.register("st", Estimator(st, alphas=lambda tau: (1 / tau,)))
ESTIMATORS.register("argmax_st", Estimator(argmax_st, alphas=lambda tau: (1 / tau,)))
ESTIMATORS.register("st_gumbel", Estimator(st_gumbel, alphas=lambda tau: (1 / tau,), perturbs=True))
