"""Linear layers that a search runs at every step, with few rows: their weights' gradient in few products.

Autograd makes a gradient as large as the weight at each step, and adds it to that of the steps before. With
few rows this is memory traffic, not arithmetic, and takes longer than the step itself. Here the steps leave
their inputs and the gradients of their outputs, and many rows are multiplied at once::

    dW = sum_t g_t^T x_t = [g_1; ...; g_T]^T [x_1; ...; x_T]

The other products, with the weights and with their transpose, are those of ``FewRows``. An
:class:`~diffdecode.sequence.anchor.Anchor` hands on the sum. The layers' outputs, and the gradients of their
inputs, are those of ``nn.Linear``.
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
from diffdecode.sequence.few_rows import FewRows
from diffdecode.sequence.precision import full_precision

# Rows of one product: enough for it to be arithmetic, and few enough to need little memory until then.
AT_ONCE = 128
# Calls of a layer before its weight is rearranged (``FewRows``).
WAIT = 3
NONE = -1  # the id of no backward pass


class RepeatedLayers:
    """The linear layers of a module, for one search.

    Layers of a class of their own (quantised, reparametrised, low-rank, ...), those with a hook before them,
    those whose weights are not trained, and all layers under autocast, run as they are.

    Args:
        module: the decoder; what its weights are now is what the search runs with.
    """

    def __init__(self, module: nn.Module):
        layers = (layer for layer in module.modules() if type(layer) is nn.Linear)
        self.layers = [
            (layer, _Linear(layer))
            for layer in layers
            if torch.is_grad_enabled() and layer.weight.requires_grad and not layer._forward_pre_hooks
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, a step: the layers leave what is needed for their weights' gradient."""
        for layer, repeated in self.layers:
            layer.forward = repeated.forward  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            for layer, _ in self.layers:
                del layer.forward


class _Linear:
    """What stands in for the ``forward`` of a linear layer."""

    def __init__(self, layer: nn.Linear):
        self.weight, self.bias = layer.weight, layer.bias
        fixed, added = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        self.left = _Left(FewRows(fixed, added, WAIT), FewRows(fixed.t(), None, WAIT))
        self.anchor = Anchor.apply(self.left.taken, self.weight, self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs [..., H]`` to ``[..., V]``."""
        if torch.is_autocast_enabled(inputs.device.type):
            return linear(inputs, self.weight, self.bias)
        rows = inputs.reshape(-1, inputs.size(-1))
        outputs = _Product.apply(rows, self.anchor, self.left, self.left.forward.weight)
        return outputs.view(*inputs.shape[:-1], self.weight.size(0))


class _Left:
    """What the calls of a layer leave in the backward pass."""

    def __init__(self, forward: FewRows, backward: FewRows) -> None:
        self.forward, self.backward = forward, backward
        self._computed_again = False
        self._backward: int | None = None
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._rows = 0
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    def outputs(self, inputs: Tensor) -> Tensor:
        """``[R, V]`` of a step, now or, in the backward pass, once more."""
        self._computed_again |= torch._C._current_graph_task_id() != NONE
        return self.forward(inputs)

    def of_inputs(self, grads: Tensor, weight: Tensor) -> Tensor:
        """``[R, H]``, from the gradients of a step's outputs.

        Steps that are computed again need the rearranged weight, to which a rearranged transpose would add.
        """
        return grads @ weight if self._computed_again else self.backward(grads)

    def add(self, inputs: Tensor, grads: Tensor) -> None:
        """``inputs [R, H]`` of a step and the gradients ``[R, V]`` of what came out of it."""
        backward = torch._C._current_graph_task_id()
        if backward != self._backward:  # one before, of other tensors, did not come as far as the anchor
            self._forget(backward)
            if not self._computed_again:
                self.forward.forget()
        self._steps.append((inputs, grads))
        self._rows += len(inputs)
        # Inputs of steps that are not computed again are held anyway, and gradients take less than their sum.
        if self._rows >= (AT_ONCE if self._computed_again else max(AT_ONCE, inputs.size(1))):
            self._multiply()

    def taken(self) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of weight and bias; nothing is left."""
        self._multiply()
        found = self._weight, self._bias
        self.backward.forget()
        self.forward.forget()
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
    def forward(ctx: Any, inputs: Tensor, anchor: Tensor, left: _Left, weight: Tensor) -> Tensor:
        ctx.left = left
        ctx.save_for_backward(inputs, weight)
        return left.outputs(inputs)

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        inputs, weight = ctx.saved_tensors  # of the weight, to know that nobody has changed it
        ctx.left.add(inputs, grad)
        return ctx.left.of_inputs(grad, weight) if ctx.needs_input_grad[0] else None, None, None, None
