"""Steps of an LSTM are those of ``nn.LSTM``, and so are their gradients."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fairseq_plugins.models.lstm_step import known_gates, lstm_step


@given(
    rows=st.integers(1, 3),
    layers=st.integers(1, 3),
    steps=st.integers(1, 5),
    known=st.integers(1, 3),
    begun=st.booleans(),
)
def test_steps_and_gradients_are_those_of_the_lstm(rows, layers, steps, known, begun):
    torch.manual_seed(0)
    lstm = nn.LSTM(2 + known, 4, layers, dtype=torch.float64)
    vectors = torch.randn(steps, rows, 2 + known, dtype=torch.float64, requires_grad=True)
    start = [torch.randn(layers, rows, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    gates, state, outputs = known_gates(lstm, vectors[..., 2:]), tuple(start) if begun else None, []
    for t in range(steps):
        output, state = lstm_step(lstm, vectors[t, :, :2], gates[t], state)
        outputs.append(output)
    expected, last = lstm(vectors, tuple(start) if begun else None)
    found = [torch.stack(outputs), *state]
    torch.testing.assert_close(found, [expected, *last])
    wanted = [vectors, *lstm.parameters(), *(start if begun else ())]
    torch.testing.assert_close(
        torch.autograd.grad(sum(part.square().sum() for part in found), wanted, materialize_grads=True),
        torch.autograd.grad(expected.square().sum() + sum(part.square().sum() for part in last), wanted),
    )
