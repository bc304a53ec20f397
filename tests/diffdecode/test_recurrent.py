"""States of LSTMs over padded sequences are those over packed ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from diffdecode.recurrent import lstm_states


def packed_states(lstm, vectors, lengths):
    packed = pack_padded_sequence(vectors, lengths, lstm.batch_first, enforce_sorted=False)
    longest = vectors.size(1 if lstm.batch_first else 0)
    return pad_packed_sequence(lstm(packed)[0], lstm.batch_first, total_length=longest)[0]


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    more=st.integers(0, 2),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
    projected=st.booleans(),
    training=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_states_and_gradients_are_those_of_packed_sequences(
    lengths, more, layers, bidirectional, bias, batch_first, projected, training, dtype
):
    torch.manual_seed(0)
    options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional, "dtype": dtype}
    lstm = nn.LSTM(3, 4, layers, proj_size=2 if projected else 0, **options).train(training)
    vectors = torch.randn(max(lengths) + more, len(lengths), 3, dtype=dtype)
    if batch_first:
        vectors = vectors.transpose(0, 1)
    vectors.requires_grad_()
    wanted = [vectors, *lstm.parameters()]
    found, expected = (way(lstm, vectors, torch.tensor(lengths)) for way in (lstm_states, packed_states))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), wanted),
        torch.autograd.grad(expected.square().sum(), wanted),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("training", [True, False])
def test_layers_are_dropped_out_in_between(training):
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 4, 2, dropout=0.5, bidirectional=True).train(training)
    vectors, lengths = torch.randn(5, 2, 3), torch.tensor([5, 2])
    one, other = (lstm_states(lstm, vectors, lengths) for _ in range(2))
    assert torch.equal(one, other) == (not training)
    # The first layer alone draws nothing.
    lstm.num_layers = 1
    assert torch.equal(*(lstm_states(lstm, vectors, lengths) for _ in range(2)))


def test_padding_says_nothing():
    torch.manual_seed(0)
    lstm, lengths = nn.LSTM(3, 4, 2, bidirectional=True), torch.tensor([2, 4])
    vectors = torch.randn(4, 2, 3, requires_grad=True)
    found = lstm_states(lstm, vectors, lengths)
    (grad,) = torch.autograd.grad(found.square().sum(), vectors)
    assert not found[2:, 0].any()
    assert not grad[2:, 0].any()
    other = vectors.detach().clone()
    other[2:, 0] = 1e9
    assert torch.equal(lstm_states(lstm, other, lengths), found)


def test_under_autocast():
    torch.manual_seed(0)
    lstm, vectors, lengths = nn.LSTM(8, 8, bidirectional=True), torch.randn(4, 2, 8), torch.tensor([2, 4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lstm_states(lstm, vectors, lengths)
        found.float().sum().backward()
    torch.testing.assert_close(found.float(), packed_states(lstm, vectors, lengths), atol=0.02, rtol=0.02)
    assert all(parameter.grad.isfinite().all() for parameter in lstm.parameters())
