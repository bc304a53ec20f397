"""Estimators and top-k operators on a GPU give the CPU's values and gradients."""

import pytest
import torch
from test_gpu_structure import compare, seeded

from diffdecode.categorical import (
    ESTIMATORS,
    TOP_K_OPERATORS,
    beam_overlap,
    continuous_top_k,
    draw,
    hard_top_k,
    reinforce,
    rloo,
    sample,
)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def tolerance(dtype):
    return {"atol": 2e-2, "rtol": 2e-2} if dtype in (torch.float16, torch.bfloat16) else {"atol": 1e-5}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimators(accelerator, estimator, dtype):
    for rows, size in accelerator.sizes([(3, 5)], [(3, 5), (133, 10), (8, 32_000)]):
        logits = torch.randn(rows, size, generator=seeded(0)).to(dtype)
        logits[0, 0] = -torch.inf
        g = torch.randn(rows, size, generator=seeded(1)).to(dtype)

        def gradient(logits, g):
            leaf = logits.clone().requires_grad_()
            one_hot = sample(leaf, estimator, generator=seeded(2)).one_hot
            if one_hot.requires_grad:
                (one_hot * g).sum().backward()
            return one_hot, leaf.new_zeros(()) if leaf.grad is None else leaf.grad

        compare(accelerator, gradient, logits, g, **tolerance(dtype))


def distinct_best_four(rows, size):
    """Scores that rounding to half precision makes no ties of: each device decides these in its own way."""
    scores = torch.randn(rows, size, generator=seeded(0)).clamp(max=2)
    best = torch.rand(rows, size, generator=seeded(3)).argsort(1)[:, :4]
    return scores.scatter(1, best, torch.tensor([4.0, 3.5, 3.25, 3.0]).expand(rows, 4))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("operator", TOP_K_OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_top_k_operators(accelerator, operator, hard, dtype):
    for rows, size in accelerator.sizes([(3, 7)], [(3, 7), (133, 40), (8, 3_000)]):
        scores = distinct_best_four(rows, size).to(dtype)
        scores[0, 2:] = -torch.inf
        g = torch.randn(rows, 3, size, generator=seeded(1))

        def gradient(scores, g):
            leaf = scores.clone().requires_grad_()
            found = continuous_top_k(leaf, 3, 2.0, operator, hard_forward=hard)
            (found * g).sum().backward()
            return found, leaf.grad, beam_overlap(found.detach()), hard_top_k(scores.float(), 3)

        compare(accelerator, gradient, scores, g, **tolerance(dtype))


def test_score_functions(accelerator):
    logits, losses = torch.randn(4, 6, generator=seeded(0)), torch.randn(5, 4, generator=seeded(1))

    def gradient(logits, losses):
        leaf = logits.clone().requires_grad_()
        index, log_probs = draw(leaf, 5, generator=seeded(2))
        (rloo(losses, log_probs).mean() + reinforce(losses, log_probs, 0.5).mean()).backward()
        return index, log_probs, leaf.grad

    compare(accelerator, gradient, logits, losses)
