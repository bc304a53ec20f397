"""Hard choices without a gradient: what scheduled sampling fed back before it was differentiable."""

import torch
from torch import Tensor

from diffdecode.categorical.estimators.base import ESTIMATORS, Estimator
from diffdecode.categorical.estimators.draws import checked_max, checked_softmax, draw_index
from diffdecode.categorical.estimators.hard_choice import one_hot


def argmax(scores: Tensor) -> tuple[Tensor, None]:
    """D = argmax(scores), the first of equals; no gradient (the pipeline; Bengio et al. 2015).

    Temperature: none.

    Args:
        scores: ``[..., V]``; -inf is impossible.

    Raises:
        ValueError: a row of ``scores`` holds NaN or +inf, or nothing possible (the message names it).
    """
    return one_hot(checked_max(scores), scores.shape[-1], scores.dtype), None


def sampled(
    scores: Tensor,
    *,
    index: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """D ~ softmax(scores); no gradient (scheduled sampling, Bengio et al. 2015).

    Temperature: none.

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
    return one_hot(index, scores.shape[-1], scores.dtype), probs


ESTIMATORS.register("argmax", Estimator(argmax, gives_gradient=False, alphas=lambda tau: ()))
ESTIMATORS.register("sample", Estimator(sampled, gives_gradient=False, alphas=lambda tau: ()))
