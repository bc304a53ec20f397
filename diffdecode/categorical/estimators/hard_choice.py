"""The one autograd node of all hard choices: a one-hot forward, a pure function backward.

Every estimator is a function ``rule(*saved, grad) -> gradient``.  Autograd, the tests that enumerate
expectations and the structured forms all call the same rule.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# From the saved tensors and the gradient at the decision to the gradient on the scores.
Rule = Callable[..., Tensor]


def one_hot(index: Tensor, categories: int, dtype: torch.dtype) -> Tensor:
    """One-hot vectors ``[..., V]`` of the classes ``index`` ``[...]``."""
    zeros = torch.zeros(*index.shape, categories, dtype=dtype, device=index.device)
    return zeros.scatter_(-1, index.unsqueeze(-1), 1.0)


def softmax_vjp(probs: Tensor, grad: Tensor) -> Tensor:
    """J(p) g with J(p) = diag(p) - p p^T, the (symmetric) Jacobian of softmax at p.

    Args:
        probs: ``[..., V]``, broadcast to the shape of ``grad``.
        grad: ``[..., V]``.
    """
    # The kernel that torch's own softmax uses backward: one pass, and the same bits.
    return torch._softmax_backward_data(grad, probs.expand_as(grad), -1, probs.dtype)


class _HardChoice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, index: Tensor, rule: Rule, *saved: Tensor) -> Tensor:
        ctx.rule = rule
        ctx.save_for_backward(*saved)
        return one_hot(index, scores.shape[-1], scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.rule(*ctx.saved_tensors, grad), *(None,) * (2 + len(ctx.saved_tensors))


def hard_choice(scores: Tensor, index: Tensor, rule: Rule, *saved: Tensor) -> Tensor:
    """One-hot of ``index`` whose gradient with respect to ``scores`` is ``rule(*saved, grad)``.

    Differentiable once: a second derivative through an estimate has no meaning, so torch raises.

    Args:
        scores: ``[..., V]``.
        index: ``[...]``, or ``[K, ...]`` for K joint samples; the result is ``index.shape + [V]``.
        rule: pure function of the saved tensors and of the gradient at the result.
        saved: constants that the rule needs.
    """
    return _HardChoice.apply(scores, index, rule, *(tensor.detach() for tensor in saved))
