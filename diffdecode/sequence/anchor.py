"""A node of the backward pass that runs after all steps of a search, and hands parameters their gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffdecode.sequence.precision import full_precision


class Anchor(torch.autograd.Function):
    """``apply(gradients, *parameters)`` turns the parameters into a token, a scalar 0.

    Steps take the token, so that this backward pass runs after theirs, in which they leave what
    ``gradients()`` makes of it. That they give the token no gradient does not matter to the order. What is
    left must not refer to the token, or nobody would free the two.
    """

    @staticmethod
    def forward(
        ctx: Any, gradients: Callable[[], tuple[Tensor | None, ...]], *parameters: Tensor | None
    ) -> Tensor:
        ctx.gradients = gradients
        first = parameters[0]
        assert first is not None
        return first.new_zeros(())

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        found = zip(ctx.gradients(), ctx.needs_input_grad[1:], strict=True)
        return None, *(gradient if wanted else None for gradient, wanted in found)
