"""Score-function estimators: only the loss of each sample is needed, not its gradient.

``draw`` samples and gives log-probabilities; ``reinforce`` and ``rloo`` turn losses into a tensor with the
same value whose gradient is the estimate.  Unbiased for any loss, differentiable or not.
"""

import torch
from torch import Tensor

from diffdecode.categorical.estimators.draws import checked_softmax, draw_index


def draw(
    logits: Tensor, samples: int | None = None, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Independent samples of softmax(logits), ``[..., V]``, and their log-probabilities.

    Args:
        logits: ``[..., V]``; -inf = impossible, never drawn, gradient 0.
        samples: K for a leading dimension K, or None for one sample without it.

    Returns:
        index ``[(K,) ...]`` and differentiable log p(index), same shape, float32 or float64.
        Several choices per instance: sum the log-probabilities over them.

    Raises:
        ValueError: a row of ``logits`` holds NaN or +inf, or nothing possible (the message names it).
    """
    scores = logits if logits.dtype == torch.float64 else logits.float()
    probs = checked_softmax(scores)
    log_probs = scores.log_softmax(-1)
    if samples is not None:
        probs = probs.expand(samples, *probs.shape)
        log_probs = log_probs.expand(samples, *log_probs.shape)
    index = draw_index(probs, generator=generator)
    return index, log_probs.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _with_score(losses: Tensor, log_probs: Tensor, advantage: Tensor) -> Tensor:
    """Value of ``losses``; gradient of ``losses`` itself plus advantage * grad log p (Williams 1992)."""
    return losses + advantage.detach() * (log_probs - log_probs.detach())


def _check(losses: Tensor, log_probs: Tensor) -> None:
    if losses.shape != log_probs.shape:
        raise ValueError(
            f"one loss per sample: losses {list(losses.shape)}, log-probabilities {list(log_probs.shape)}; "
            "sum log_probs over the choices of an instance first"
        )


def reinforce(losses: Tensor, log_probs: Tensor, baseline: float | Tensor = 0.0) -> Tensor:
    """REINFORCE: same value as ``losses``, gradient (f(D) - b) grad log p(D), plus that of f itself.

    Args:
        losses: f(D), one per sample, ``[...]``.
        log_probs: log p(D), same shape.
        baseline: b, a number or a tensor that broadcasts; it must not depend on the sample.  For instance a
            ``MovingAverage``'s value, or the loss of the greedy decision (self-critical training).

    Returns:
        ``[...]``, to be averaged.

    Raises:
        ValueError: the shapes differ.
    """
    _check(losses, log_probs)
    return _with_score(losses, log_probs, losses - baseline)


def rloo(losses: Tensor, log_probs: Tensor) -> Tensor:
    """REINFORCE with leave-one-out baseline: each of K samples has the mean loss of the others as baseline.

    Kool et al. 2019.  Average the result over K.

    Args:
        losses: ``[K, ...]``, K >= 2 independent samples of the same instances.
        log_probs: log p(D), same shape.

    Raises:
        ValueError: the shapes differ, or K < 2.
    """
    _check(losses, log_probs)
    K = len(losses)
    if K < 2:
        raise ValueError(f"leave-one-out needs K >= 2 samples in the first dimension, got {K}")
    return _with_score(losses, log_probs, (K * losses - losses.sum(0)) / (K - 1))


class MovingAverage:
    """Exponential moving average of past losses, a baseline for ``reinforce``.

    Read ``value`` before the update with the current losses: a baseline may not know its own sample.
    """

    def __init__(self, decay: float = 0.9):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.value = 0.0
        self._weight = 0.0

    def update(self, losses: Tensor) -> None:
        """Take in the mean of ``losses [...]``; the start is debiased as in Adam."""
        self._weight = self.decay * self._weight + (1 - self.decay)
        step = (1 - self.decay) / self._weight
        self.value += step * (float(losses.detach().mean()) - self.value)
