"""One step of an LSTM at a time, for searches: part of its input is multiplied once for all steps.

``nn.LSTM`` on a sequence of one step multiplies the whole input with its weights, for every row of a beam. A
tagger's input is mostly the state of a word, the same for all rows of a sentence and known beforehand.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout, linear

sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward


def known_gates(lstm: nn.LSTM, known: Tensor) -> Tensor:
    """What the last part of the first layer's input adds to its gates, biases included.

    Args:
        lstm: the LSTM.
        known: ``[..., d']`` the last d' numbers of its inputs.

    Returns:
        ``[..., 4 H]``.
    """
    weight = lstm.weight_ih_l0[:, lstm.input_size - known.size(-1) :]
    return linear(known, weight, lstm.bias_ih_l0 + lstm.bias_hh_l0)


def lstm_step(
    lstm: nn.LSTM, vectors: Tensor, known: Tensor, state: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What ``lstm`` makes of one more input.

    Args:
        lstm: of one direction, with biases.
        vectors: ``[R, d]`` the first d numbers of the inputs.
        known: ``[R, 4 H]`` what the others add (``known_gates``).
        state: hidden and cell, ``[layers, R, H]``; ``None`` before the first step.

    Returns:
        The output ``[R, H]`` and the new state.
    """
    gates = linear(vectors, lstm.weight_ih_l0[:, : vectors.size(-1)]) + known
    nothing = [(None, None)] * lstm.num_layers
    before = nothing if state is None else zip(*(part.unbind() for part in state))
    hidden, cell = [], []
    for layer, (shown, remembered) in enumerate(before):
        if layer:
            below = dropout(hidden[-1], lstm.dropout, lstm.training)
            bias = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
            gates = linear(below, getattr(lstm, f"weight_ih_l{layer}"), bias)
        if shown is not None:
            gates = gates + linear(shown, getattr(lstm, f"weight_hh_l{layer}"))
        new_hidden, new_cell = _Cell.apply(gates, remembered)
        hidden.append(new_hidden)
        cell.append(new_cell)
    return hidden[-1], (torch.stack(hidden), torch.stack(cell))


class _Cell(torch.autograd.Function):
    """One node of the backward pass where autograd has twenty::

    i, f, o = sigmoid(...), g = tanh(...) of the gates
    c' = f c + i g,    h' = o tanh(c')
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
        # Gates [R, 4 H] and cell [R, H], None for 0.
        admit, forget, new, show = gates.chunk(4, -1)
        admit, forget, new, show = admit.sigmoid(), forget.sigmoid(), new.tanh(), show.sigmoid()
        found = admit * new if cell is None else torch.addcmul(admit * new, forget, cell)
        shown = found.tanh()
        ctx.save_for_backward(admit, forget, new, show, shown, cell)
        return show * shown, found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor, grad_cell: Tensor) -> tuple[Tensor, Tensor | None]:
        admit, forget, new, show, shown, cell = ctx.saved_tensors
        grad_cell = grad_cell + tanh_backward(grad_hidden * show, shown)
        grads = [
            sigmoid_backward(grad_cell * new, admit),
            torch.zeros_like(forget) if cell is None else sigmoid_backward(grad_cell * cell, forget),
            tanh_backward(grad_cell * admit, new),
            sigmoid_backward(grad_hidden * shown, show),
        ]
        return torch.cat(grads, -1), None if cell is None else grad_cell * forget
