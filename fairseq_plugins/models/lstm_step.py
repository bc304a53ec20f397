"""One step of an LSTM at a time, for searches: part of its input is multiplied once for all steps.

``nn.LSTM`` on a sequence of one step multiplies the whole input with its weights, for every row of a beam. A
tagger's input is mostly the state of a word, the same for all rows of a sentence and known beforehand.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear


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
    hidden, cell = [], []
    for layer in range(lstm.num_layers):
        if layer:
            below = dropout(hidden[-1], lstm.dropout, lstm.training)
            bias = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
            gates = linear(below, getattr(lstm, f"weight_ih_l{layer}"), bias)
        if state is not None:
            gates = gates + linear(state[0][layer], getattr(lstm, f"weight_hh_l{layer}"))
        admit, forget, new, show = gates.chunk(4, dim=-1)
        memory = torch.sigmoid(admit) * torch.tanh(new)
        if state is not None:
            memory = torch.sigmoid(forget) * state[1][layer] + memory
        hidden.append(torch.sigmoid(show) * torch.tanh(memory))
        cell.append(memory)
    return hidden[-1], (torch.stack(hidden), torch.stack(cell))
