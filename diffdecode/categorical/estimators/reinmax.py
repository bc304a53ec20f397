"""ReinMax, second-order straight-through (Liu et al. 2023): plain, with control variate, and unbiased.

With p = softmax(scores), q = softmax(scores/tau), the sample D (one-hot) and g = df/dD, the gradient is
[2 J((D + q)/2) - 1/2 J(p)] g.  At tau = 1 that is 1/2 [J(p) + (D - p)(D - p)^T] g: half straight-through,
half REINFORCE with f replaced by its linearisation.  The same estimator is known as ZGR (Shekhovtsov 2023),
and it is the limit of Gumbel-Rao for tau -> 0 and infinitely many samples.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from diffdecode.categorical.estimators.base import ESTIMATORS, Estimator
from diffdecode.categorical.estimators.draws import checked_softmax, draw_index
from diffdecode.categorical.estimators.hard_choice import hard_choice, one_hot, softmax_vjp


def reinmax_backward(p: Tensor, index: Tensor, grad: Tensor) -> Tensor:
    """1/2 [J(p) + (D - p)(D - p)^T] g: ReinMax at tau = 1, with D the one-hot of ``index``.

    Args:
        p: probabilities ``[..., V]``.
        index: sample ``[...]``.
        grad: g, ``[..., V]``.
    """
    index = index.unsqueeze(-1)
    # Multiplied out: every category but D gets p (g - g_D) / 2; all sum to 0, so D gets minus their sum.
    out = (grad - grad.gather(-1, index)).mul_(p).mul_(0.5)
    return out.scatter_add_(-1, index, -out.sum(-1, keepdim=True))


def reinmax_tau_backward(p: Tensor, q: Tensor, index: Tensor, grad: Tensor) -> Tensor:
    """[2 J((D + q)/2) - 1/2 J(p)] g (Liu et al. 2023, Algorithm 2).

    Args:
        p: probabilities ``[..., V]``.
        q: probabilities at temperature tau, ``[..., V]``.
        index: sample D, ``[...]``.
        grad: g, ``[..., V]``.
    """
    index = index.unsqueeze(-1)
    grad_at_sample = grad.gather(-1, index)
    inner = (grad_at_sample + (q * grad).sum(-1, keepdim=True)).mul_(0.5)  # <(D + q)/2, g>
    out = (grad - inner).mul_(q).sub_(softmax_vjp(p, grad), alpha=0.5)
    return out.scatter_add_(-1, index, grad_at_sample - inner)


def reinmax(
    scores: Tensor,
    *,
    tau: float = 1.0,
    index: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """ReinMax: D ~ softmax(scores), gradient as above; samples and gradients of the PyPI package ``reinmax``.

    Temperature: default 1, because only there the expected gradient is second-order accurate: exact for
    every loss quadratic in D, one category variable or many.  At any other tau it is not even first-order
    accurate: the expectation is J(q) + 1/2 (p - q)(p - q)^T instead of J(p), wrong on linear losses.  The
    paper recommends tau >= 1 and tunes 1.1 to 1.5: treat that as a regulariser to be tuned.

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
    if tau == 1:
        return hard_choice(scores, index, reinmax_backward, probs, index), probs
    q = (scores.detach() / tau).softmax(-1)
    return hard_choice(scores, index, reinmax_tau_backward, probs, q, index), probs


def reinmax_loo_backward(p: Tensor, index: Tensor, grad: Tensor) -> Tensor:
    """sum_k J(p) g_k + 1/2 [(D_k - p)(D_k - p)^T - J(p)] (g_k - mean of the other g), ``[..., V]``.

    The bracket has mean 0 given the other samples, so the expectation is that of ReinMax at tau = 1, and
    what the K gradients have in common adds no variance.

    Args:
        p: ``[..., V]``.
        index: K >= 2 samples ``[K, ...]``.
        grad: ``[K, ..., V]``, the gradient at each sample of a sum (or mean) of K losses.
    """
    K = len(index)
    total = grad.sum(0)
    # The deviations e_k = g_k - mean of the others sum to 0, so their J(p) e_k cancel: left are the R_k.
    deviation = (K * grad - total) / (K - 1)
    at_sample = deviation.gather(-1, index.unsqueeze(-1))
    weight = 0.5 * (at_sample - (p * deviation).sum(-1, keepdim=True))
    out = softmax_vjp(p, total) - p * weight.sum(0)
    return out.scatter_add_(-1, index.movedim(0, -1), weight.squeeze(-1).movedim(0, -1))


def reinmax_loo(
    scores: Tensor,
    *,
    samples: int = 2,
    index: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """ReinMax with K = ``samples`` >= 2 decisions ``[K, ..., V]``, each a control variate of the others.

    Put every sample through the same loss and average the K losses: a leading dimension K, or K * B rows.
    Pays where the loss gradients at different samples agree (a nearly linear loss, a trained decoder); where
    they hardly do, the plain mean of K ``reinmax`` samples has the lower variance.

    Temperature: none (1 throughout; another one would bias the control variate).

    Args:
        scores: ``[..., V]``; -inf is impossible.
        samples: K, unless ``index`` or ``noise`` say it.
        index: K samples ``[K, ...]``.
        noise: Exp(1) variates ``[K, ..., V]`` for the draws.

    Raises:
        ValueError: fewer than two samples; or a row of ``scores`` holds NaN or +inf, or nothing possible
            (the message names it).
    """
    given = index if index is not None else noise
    samples = samples if given is None else len(given)
    if samples < 2:
        raise ValueError(f"reinmax_loo needs samples >= 2 to compare, got {samples}; one sample: 'reinmax'")
    probs = checked_softmax(scores)
    if index is None:
        index = draw_index(probs.expand(samples, *probs.shape), noise, generator)
    return hard_choice(scores, index, reinmax_loo_backward, probs, index), probs


def unbiased_pair_gradient(p: Tensor, index: Tensor, losses: Tensor, grad: Tensor) -> Tensor:
    """Unbiased for any differentiable loss: two samples, their losses, and their gradients.

    With z_1, z_2 the two joint samples of all n variables of an instance, v their gradients, mu = p:
    1/2 [f_1 - f_2 - 1/2 (v_1 + v_2).(z_1 - z_2)] (z_1 - z_2), the score-function estimate of what the
    trapezoid rule misses, plus the (joint) ReinMax that the trapezoid rule integrates exactly, the mean over
    both samples of J(p) v_k + 1/2 [(z_k - mu)(z_k - mu)^T - J(p)] (v_k - v_other).

    Args:
        p: ``[B, n, V]``.
        index: ``[2, B, n]``.
        losses: f, ``[2, B]``.
        grad: v, ``[2, B, n, V]``.

    Returns:
        ``[B, n, V]``, an estimate of the gradient of E[f] with respect to the scores.
    """
    z = one_hot(index, p.shape[-1], p.dtype)
    difference, total = z[0] - z[1], grad.sum(0)
    missed = losses[0] - losses[1] - 0.5 * (total * difference).sum((-2, -1))
    deviation = torch.stack([grad[0] - grad[1], grad[1] - grad[0]])
    centred = z - p
    rank_one = (centred * (centred * deviation).sum((-2, -1), keepdim=True)).sum(0)
    # The J(p) terms of the two deviations cancel.
    return 0.5 * (missed[:, None, None] * difference + softmax_vjp(p, total) + 0.5 * rank_one)


def unbiased_reinmax(
    scores: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean of two losses per instance, ``[B]``, whose gradient on ``scores`` is unbiased for any smooth loss.

    ReinMax's trapezoid rule as a control variate of the two-sample score-function estimator (ours).  Pays
    with few variables and a loss nearly quadratic between two samples; with many independent variables, or a
    rough loss, ``rloo`` has the lower variance (measured in examples/papers/bias_variance.py).

    Args:
        scores: ``[B, n, V]``, n choices per instance.
        loss: from one-hot ``[2, B, n, V]`` to losses ``[2, B]``; parameters in it get their usual gradient.
        generator: source of randomness.

    Raises:
        ValueError: a row of ``scores`` holds NaN or +inf, or nothing possible (the message names it).
    """
    p = checked_softmax(scores).detach()
    index = draw_index(p.expand(2, *p.shape), generator=generator)
    z = one_hot(index, p.shape[-1], p.dtype).requires_grad_()
    losses = loss(z)
    (grad,) = torch.autograd.grad(losses.sum(), z, retain_graph=True)
    estimate = unbiased_pair_gradient(p, index, losses.detach(), grad)
    surrogate = ((scores - scores.detach()) * estimate).sum((-2, -1))
    return losses.mean(0) + surrogate


ESTIMATORS.register("reinmax", Estimator(reinmax, alphas=lambda tau: (1.0, 1 / tau)))
ESTIMATORS.register("reinmax_loo", Estimator(reinmax_loo, index_has_k=True, noise_has_k=True))
