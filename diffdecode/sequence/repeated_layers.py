"""Linear layers that a search runs at every step, with few rows: their weights' gradient in few products.

Autograd makes a gradient as large as the weight at each step, and adds it to that of the steps before. With
few rows this is memory traffic, not arithmetic, and takes longer than the step itself. Here the steps leave
their inputs and the gradients of their outputs, and many rows are multiplied at once::

    dW = sum_t g_t^T x_t = [g_1; ...; g_T]^T [x_1; ...; x_T]

An :class:`~diffdecode.sequence.anchor.Anchor` hands on the sum. The layers' outputs, and the
gradients of their inputs, are those of ``nn.Linear``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from diffdecode.sequence.anchor import Anchor
from diffdecode.sequence.precision import full_precision

# Rows of one product: enough for it to be arithmetic, and few enough to need little memory until then.
AT_ONCE = 128


class RepeatedLayers:
    """The linear layers of a module, for one search.

    Layers of a class of their own (quantised, reparametrised, low-rank, ...), those with a hook before them,
    and all layers under autocast or without gradients, run as they are.

    Args:
        module: the decoder; what its weights are now is what the search runs with.
    """

    def __init__(self, module: nn.Module):
        layers = (layer for layer in module.modules() if type(layer) is nn.Linear)
        self.layers = [
            (layer, _Repeated(layer))
            for layer in layers
            if torch.is_grad_enabled() and layer.weight.requires_grad and not layer._forward_pre_hooks
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, a step: the layers leave what is needed for their weights' gradient."""
        for layer, repeated in self.layers:
            layer.forward = repeated.product  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            for layer, _ in self.layers:
                del layer.forward


class _Repeated:
    """What stands in for the ``forward`` of a linear layer."""

    def __init__(self, layer: nn.Linear):
        self.weight, self.bias = layer.weight, layer.bias
        self.left = _Left()
        self.anchor = Anchor.apply(self.left.taken, self.weight, self.bias)

    def product(self, inputs: Tensor) -> Tensor:
        """``inputs [..., H]`` to ``[..., V]``."""
        if not torch.is_grad_enabled() or torch.is_autocast_enabled(inputs.device.type):
            return linear(inputs, self.weight, self.bias)
        rows = inputs.reshape(-1, inputs.size(-1))
        bias = None if self.bias is None else self.bias.detach()
        outputs = _Product.apply(rows, self.anchor, self.left, self.weight.detach(), bias)
        return outputs.view(*inputs.shape[:-1], self.weight.size(0))


class _Left:
    """What the calls of a layer leave in the backward pass."""

    def __init__(self) -> None:
        self._backward: int | None = None
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._rows = 0
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    def add(self, inputs: Tensor, grads: Tensor) -> None:
        """``inputs [R, H]`` of a step and the gradients ``[R, V]`` of what came out of it."""
        backward = torch._C._current_graph_task_id()
        if backward != self._backward:  # one before, of other tensors, did not come as far as the anchor
            self._forget(backward)
        self._steps.append((inputs, grads))
        self._rows += len(inputs)
        if self._rows >= AT_ONCE:
            self._multiply()

    def taken(self) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of weight and bias; nothing is left."""
        self._multiply()
        found = self._weight, self._bias
        self._forget(None)
        return found

    def _multiply(self) -> None:
        if not self._steps:
            return
        inputs, grads = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*self._steps))
        self._steps, self._rows = [], 0
        total = grads.sum(0)
        if self._weight is None or self._bias is None:
            self._weight, self._bias = grads.t() @ inputs, total
        else:
            self._weight.addmm_(grads.t(), inputs)
            self._bias += total

    def _forget(self, backward: int | None) -> None:
        self._backward = backward
        self._steps, self._rows = [], 0
        self._weight = self._bias = None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, anchor: Tensor, left: _Left, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.left = left
        ctx.save_for_backward(inputs, weight)
        return linear(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        inputs, weight = ctx.saved_tensors
        ctx.left.add(inputs, grad)
        return grad @ weight if ctx.needs_input_grad[0] else None, None, None, None, None
