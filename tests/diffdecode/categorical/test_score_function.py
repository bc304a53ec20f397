"""Score-function estimators: unbiased by enumeration, value untouched, leave-one-out, errors."""

import math

import pytest
import torch

from diffdecode.categorical import MovingAverage, draw, reinforce, rloo

V = 5


def losses_of(index):
    """Any function of the outcome, not differentiable."""
    return torch.tensor([0.3, -1.0, 2.0, 5.0, 0.1], dtype=torch.float64)[index]


def exact_gradient(scores):
    scores = scores.clone().requires_grad_()
    (scores.softmax(-1) * losses_of(torch.arange(V))).sum().backward()
    return scores.grad


def expectation(estimator, K):
    """Exact mean of the gradient over all V^K outcomes, and the exact gradient."""
    torch.manual_seed(0)
    scores = torch.randn(V, dtype=torch.float64)
    index = torch.cartesian_prod(*[torch.arange(V)] * K).reshape(-1, K).T  # [K, outcomes]
    x = scores.clone().requires_grad_()
    log_probs = x.log_softmax(-1)[index]
    weight = log_probs.detach().sum(0).exp()
    (weight * estimator(losses_of(index), log_probs).mean(0)).sum().backward()
    return x.grad, exact_gradient(scores)


@pytest.mark.parametrize(
    ("estimator", "K"),
    [
        (reinforce, 1),
        (lambda losses, log_probs: reinforce(losses, log_probs, 0.7), 1),
        (rloo, 2),
        (rloo, 3),
    ],
)
def test_unbiased(estimator, K):
    mean, exact = expectation(estimator, K)
    assert (mean - exact).abs().max() < 1e-14


def test_a_baseline_that_knows_its_own_sample_is_biased():
    """The mean of all samples instead of the others: the check above can fail."""
    mean, exact = expectation(lambda f, log_probs: reinforce(f, log_probs, f.mean(0)), 3)
    assert (mean - exact).abs().max() > 0.01


def test_values_are_the_losses_and_their_own_gradient_stays():
    w = torch.tensor(3.0, requires_grad=True)
    log_probs = torch.randn(4, 2, requires_grad=True)
    for estimator in (reinforce, rloo):
        losses = w * torch.ones(4, 2)
        result = estimator(losses, log_probs)
        assert torch.equal(result.detach(), losses.detach())
        (grad,) = torch.autograd.grad(result.sum(), w)
        assert grad == 8


def test_rloo_advantage_is_the_distance_to_the_others():
    losses = torch.tensor([1.0, 2.0, 6.0])
    log_probs = torch.zeros(3, requires_grad=True)
    rloo(losses, log_probs).sum().backward()
    assert log_probs.grad.tolist() == [1 - 4, 2 - 3.5, 6 - 1.5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_draw_gives_samples_and_their_log_probabilities(dtype):
    x = torch.randn(30, 4, dtype=dtype)
    x[:, 1] = -math.inf
    x.requires_grad_()
    index, log_probs = draw(x, 7, generator=torch.Generator().manual_seed(0))
    assert index.shape == log_probs.shape == (7, 30)
    assert (index != 1).all()
    expected = (
        x.detach().to(log_probs.dtype).log_softmax(-1).expand(7, 30, 4).gather(-1, index[..., None])[..., 0]
    )
    assert torch.equal(log_probs.detach(), expected)
    log_probs.sum().backward()
    assert x.grad.dtype == dtype and x.grad.isfinite().all() and (x.grad[:, 1] == 0).all()
    one, log_prob = draw(x, generator=torch.Generator().manual_seed(0))
    assert one.shape == log_prob.shape == (30,)


def test_draws_follow_the_probabilities():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    index, _ = draw(p.log(), 40_000, generator=torch.Generator().manual_seed(0))
    error = (torch.bincount(index, minlength=4) / 40_000 - p).abs()
    assert (error < 5 * (p * (1 - p) / 40_000).sqrt()).all()


def test_moving_average_is_debiased():
    average = MovingAverage(0.9)
    for _ in range(3):
        average.update(torch.tensor([4.0, 6.0]))
        assert average.value == pytest.approx(5.0)
    average.update(torch.tensor([105.0]))
    weights = [0.1 * 0.9**age for age in range(4)]
    assert average.value == pytest.approx((weights[0] * 105 + sum(weights[1:]) * 5) / sum(weights))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"losses \[3\], log-probabilities \[3, 2\]"):
        reinforce(torch.zeros(3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="K >= 2"):
        rloo(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="decay"):
        MovingAverage(1.0)
    with pytest.raises(ValueError, match=r"row \[1\]: NaN"):
        draw(torch.tensor([[0.0, 1.0], [math.nan, 0.0]]))
