"""Expectations of the estimators, enumerated over every outcome, against exact gradients."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from diffdecode.categorical import (
    conditional_gumbel_softmax,
    gumbel_rao_backward,
    reinmax_backward,
    reinmax_loo_backward,
    reinmax_tau_backward,
    sample,
    straight_through_backward,
    unbiased_reinmax,
)
from diffdecode.categorical.estimators import unbiased_pair_gradient

N, V = 3, 4  # three variables of four categories: 64 outcomes
INDEX = torch.tensor(list(itertools.product(range(V), repeat=N)))
Z = F.one_hot(INDEX, V).double()


def problem(kind, seed=0):
    """Scores [N, V] and a loss of one-hot [..., N, V]."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(N, V, generator=g, dtype=torch.float64)
    linear = torch.randn(N * V, generator=g, dtype=torch.float64)
    square = torch.randn(N * V, N * V, generator=g, dtype=torch.float64)
    inner = torch.randn(N * V, 8, generator=g, dtype=torch.float64)
    forms = {
        "linear": lambda x: x @ linear,
        "quadratic": lambda x: x @ linear + ((x @ square) * x).sum(-1),
        "network": lambda x: torch.tanh(x @ inner).sum(-1),
    }
    return scores, lambda z: forms[kind](z.flatten(-2))


def outcome_probabilities(scores):
    return (Z * scores.log_softmax(-1)).sum((-2, -1)).exp()


def exact_gradient(scores, loss):
    scores = scores.clone().requires_grad_()
    (outcome_probabilities(scores) * loss(Z)).sum().backward()
    return scores.grad


def loss_gradients(loss):
    z = Z.clone().requires_grad_()
    loss(z).sum().backward()
    return z.grad


def relative_bias(scores, loss, rule):
    """|E[estimate] - exact| / |exact| of rule(index [64, N], grad [64, N, V])."""
    mean = (outcome_probabilities(scores)[:, None, None] * rule(INDEX, loss_gradients(loss))).sum(0)
    exact = exact_gradient(scores, loss)
    return float((mean - exact).norm() / exact.norm())


def st_rule(scores, tau=1.0):
    return lambda index, grad: straight_through_backward((scores / tau).softmax(-1), grad, tau=tau)


def reinmax_rule(scores, tau=1.0):
    p, q = scores.softmax(-1), (scores / tau).softmax(-1)
    if tau == 1:
        return lambda index, grad: reinmax_backward(p, index, grad)
    return lambda index, grad: reinmax_tau_backward(p, q, index, grad)


@pytest.mark.parametrize("seed", range(20))
def test_straight_through_is_exact_for_linear_losses(seed):
    scores, loss = problem("linear", seed)
    assert relative_bias(scores, loss, st_rule(scores)) < 1e-14


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_reinmax_is_exact_up_to_quadratic_losses(kind, seed):
    scores, loss = problem(kind, seed)
    assert relative_bias(scores, loss, reinmax_rule(scores)) < 1e-14


def test_the_exactness_tests_can_fail():
    scores, loss = problem("linear")
    assert relative_bias(scores, loss, reinmax_rule(scores, 1.3)) > 0.05
    assert relative_bias(scores, loss, st_rule(scores, 1.3)) > 0.05
    scores, loss = problem("quadratic")
    assert relative_bias(scores, loss, st_rule(scores)) > 0.05
    scores, loss = problem("network")
    assert relative_bias(scores, loss, reinmax_rule(scores)) > 0.001


def test_expected_reinmax_at_any_tau():
    """E[estimate] = J(q) + 1/2 (p - q)(p - q)^T on linear losses, the reason for the default tau = 1."""
    scores = torch.randn(6, dtype=torch.float64)
    p = scores.softmax(-1)
    for tau in (0.6, 1.0, 1.3, 3.0):
        q = (scores / tau).softmax(-1)
        index = torch.arange(6)
        rows = [
            (p[:, None] * reinmax_tau_backward(p.expand(6, 6), q.expand(6, 6), index, g.expand(6, 6))).sum(0)
            for g in torch.eye(6, dtype=torch.float64)
        ]
        expected = torch.diag(q) - torch.outer(q, q) + 0.5 * torch.outer(p - q, p - q)
        assert (torch.stack(rows) - expected).abs().max() < 1e-15


@pytest.mark.parametrize("V", [1, 2, 9])
def test_identity_of_the_two_forms(V):
    """2 J((D + p)/2) - J(p)/2 = (J(p) + (D - p)(D - p)^T)/2, by dense matrices; and the rules compute it."""
    p = torch.randn(V, dtype=torch.float64).softmax(-1)

    def J(a):
        return torch.diag(a) - torch.outer(a, a)

    for i, D in enumerate(torch.eye(V, dtype=torch.float64)):
        algorithm = 2 * J((D + p) / 2) - J(p) / 2
        assert (algorithm - (J(p) + torch.outer(D - p, D - p)) / 2).abs().max() < 1e-15
        g = torch.randn(V, dtype=torch.float64)
        index = torch.tensor(i)
        assert (reinmax_backward(p, index, g) - algorithm @ g).abs().max() < 1e-14
        assert (reinmax_tau_backward(p, p, index, g) - algorithm @ g).abs().max() < 1e-14


def test_gumbel_rao_becomes_reinmax_as_tau_vanishes():
    """At tau = 0.02 within 2 % of ReinMax (all outcomes together); at tau = 1 far away."""
    torch.manual_seed(0)
    scores, g = torch.randn(2, 4, dtype=torch.float64)
    p, index = scores.softmax(-1), torch.arange(4)
    expected = reinmax_backward(p.expand(4, 4), index, g.expand(4, 4))
    noise = torch.empty(600_000, 4, 4, dtype=torch.float64).exponential_()
    for tau, low, high in ((0.02, 0.0, 0.02), (1.0, 0.1, 1.0)):
        y = conditional_gumbel_softmax(p.expand(4, 4), index, noise, tau)
        found = gumbel_rao_backward(y, g.expand(4, 4), tau=tau)
        assert low <= (found - expected).norm() / expected.norm() < high


def pair_expectation(scores, estimate):
    """Mean of estimate(index [2, 64 * 64, N]) over all pairs of independent outcomes."""
    first, second = INDEX.repeat_interleave(64, 0), INDEX.repeat(64, 1)
    p = outcome_probabilities(scores)
    weight = torch.outer(p, p).flatten()[:, None, None]
    return (weight * estimate(torch.stack([first, second]))).sum(0)


def gradients_at(loss, index):
    z = F.one_hot(index, V).double().requires_grad_()
    losses = loss(z)
    losses.sum().backward()
    return losses.detach(), z.grad


def pair_statistics(scores, estimate):
    """Exact mean and total variance over all pairs of outcomes."""
    mean = pair_expectation(scores, estimate)
    second_moment = pair_expectation(scores, lambda index: estimate(index) ** 2)
    return mean, float((second_moment - mean**2).sum())


@pytest.mark.parametrize("kind", ["quadratic", "network"])
def test_leave_one_out_control_variate(kind):
    """Always the mean of ReinMax; less variance than two plain samples where gradients share a large part."""
    scores, loss = problem(kind)
    _, common = problem("linear", 7)
    p = scores.softmax(-1).expand(64 * 64, N, V)
    for share, lower in ((0, False), (5, True)):

        def gradients(index, share=share):
            return gradients_at(lambda z: loss(z) + share * common(z), index)[1] / 2

        def loo(index):
            return reinmax_loo_backward(p, index, gradients(index))

        def plain(index):
            return sum(reinmax_backward(p, index[k], gradients(index)[k]) for k in (0, 1))

        (mean, variance), (plain_mean, plain_variance) = (pair_statistics(scores, f) for f in (loo, plain))
        assert (mean - plain_mean).abs().max() < 1e-12
        assert (variance < 0.5 * plain_variance) == lower


def test_leave_one_out_with_three_samples_is_the_formula():
    torch.manual_seed(0)
    p = torch.randn(V, dtype=torch.float64).softmax(-1)
    index, grad = torch.tensor([0, 2, 2]), torch.randn(3, V, dtype=torch.float64)
    J = torch.diag(p) - torch.outer(p, p)
    expected = 0
    for k in range(3):
        R = F.one_hot(index[k], V) - p
        deviation = grad[k] - (grad.sum(0) - grad[k]) / 2
        expected = expected + J @ grad[k] + 0.5 * (torch.outer(R, R) - J) @ deviation
    assert (reinmax_loo_backward(p, index, grad) - expected).abs().max() < 1e-15
    x = p.log().requires_grad_()
    (sample(x, "reinmax_loo", index=index).one_hot * grad).sum().backward()
    assert (x.grad - expected).abs().max() < 1e-14


@pytest.mark.parametrize("kind", ["linear", "quadratic", "network"])
def test_unbiased_reinmax_is_unbiased_for_any_loss(kind):
    scores, loss = problem(kind, 3)
    p = scores.softmax(-1).expand(64 * 64, N, V)
    mean = pair_expectation(
        scores, lambda index: unbiased_pair_gradient(p, index, *gradients_at(loss, index))
    )
    assert (mean - exact_gradient(scores, loss)).abs().max() < 1e-13


def test_unbiased_reinmax_as_called():
    """Gradient of the call = the pure function on its draw; parameters of the loss get their own gradient."""
    scores, loss = problem("network", 1)
    x = scores.expand(5, N, V).clone().requires_grad_()
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    seen = []

    def scaled(z):
        seen.append(z.detach())
        return scale * loss(z)

    value = unbiased_reinmax(x, scaled, generator=torch.Generator().manual_seed(0))
    index = seen[0].argmax(-1)
    losses, grad = gradients_at(loss, index)
    value.sum().backward()
    assert torch.equal(value.detach(), 2 * losses.mean(0))
    assert (scale.grad - losses.mean(0).sum()).abs() < 1e-12
    expected = 2 * unbiased_pair_gradient(x.detach().softmax(-1), index, losses, grad)
    assert (x.grad - expected).abs().max() < 1e-13
