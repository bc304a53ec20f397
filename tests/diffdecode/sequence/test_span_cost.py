"""Wrong spans along a beam, counted as conlleval counts them: expected over all that a soft beam holds."""

import itertools

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_decoder import ToyDecoder

from diffdecode.sequence import (
    HammingCost,
    SearchSpace,
    SoftBeamOptions,
    SpanCost,
    hard_beam,
    path_costs,
    soft_beam,
    truncated_soft_beam,
)

NAMES = ["<pad>", "O", "B-X", "I-X", "B-Y", "I-Y"]
PAD, V = 0, len(NAMES)
INSIDE = torch.tensor([[name[2:] == kind for kind in "XY"] for name in NAMES])
BEGINS = torch.tensor([name.startswith("B-") for name in NAMES])
SPACE = SearchSpace(torch.arange(1, V))


def spans(ids):
    """``{(type, start, end)}``: an I-X goes on with a span of X, any other label than O begins one."""
    found = []
    for i, (prefix, _, kind) in enumerate(NAMES[one].partition("-") for one in ids):
        if prefix == "I" and found and found[-1][0] == kind and found[-1][2] == i:
            found[-1] = (kind, found[-1][1], i + 1)
        elif prefix != "O":
            found.append((kind, i, i + 1))
    return set(found)


def errors(gold, predicted):
    """Wrong spans of two lists of ids."""
    return len(spans(gold) ^ spans(predicted))


def problem(seed, batch=3, steps=4):
    generator = torch.Generator().manual_seed(seed)
    decoder = ToyDecoder(V, scale=1.5, seed=seed).double()
    context = torch.randn(batch, steps, 3, generator=generator, dtype=torch.float64)
    lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
    gold = torch.randint(1, V, (batch, steps), generator=generator)
    gold = gold.masked_fill(torch.arange(steps) >= lengths[:, None], PAD)
    return decoder, context, gold, lengths, SpanCost(gold, INSIDE, BEGINS)


LABELS = st.lists(st.integers(1, V - 1), min_size=0, max_size=8)


@settings(max_examples=cases(25, 200))
@given(pairs=st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=3))
def test_counts_the_spans_of_conlleval(pairs):
    pairs = [(gold[: len(other)], other[: len(gold)]) for gold, other in pairs]
    steps = max(len(gold) for gold, _ in pairs)
    gold = torch.tensor([[*gold, *[PAD] * (steps - len(gold))] for gold, _ in pairs], dtype=torch.long)
    found = torch.tensor([[*other, *[-1] * (steps - len(other))] for _, other in pairs], dtype=torch.long)
    costs = path_costs(
        SpanCost(gold, INSIDE, BEGINS), torch.stack([found, gold.masked_fill(gold == PAD, -1)], 1)
    )
    assert costs[:, 0].tolist() == [errors(*pair) for pair in pairs]
    assert not costs[:, 1].any()


def mixture(rows, steps, sentence):
    """``[K, C**T]``: the weights of all sequences in each element of a soft beam, from its selections."""
    every = torch.ones(1, 1, dtype=torch.float64)  # one element that is the empty sequence
    for t in range(steps):
        weights = rows[t].weights[sentence]  # [K, J, C]
        every = torch.einsum("kjc,jn->knc", weights, every).flatten(1)
    return every


@pytest.mark.parametrize("operator", ["peaked", "softsort"])
@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_is_the_expectation_over_all_sequences(operator, alpha):
    for seed in range(3):
        decoder, context, gold, lengths, cost = problem(seed)
        options, state = SoftBeamOptions(3, alpha, operator), decoder.init_state(context)
        with torch.no_grad():
            found = soft_beam(
                decoder, state, lengths, SPACE, options, observe=lambda row: row, path_cost=cost
            )
        for b, length in enumerate(lengths.tolist()):
            every = itertools.product(range(1, V), repeat=length)
            wrong = torch.tensor([errors(gold[b, :length].tolist(), one) for one in every]).double()
            expected = mixture(found.observed, length, b) @ wrong
            torch.testing.assert_close(found.costs[b, : len(expected)], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_becomes_that_of_the_hard_beam(seed):
    decoder, context, _, lengths, cost = problem(seed, batch=5)
    hard = hard_beam(decoder, decoder.init_state(context), lengths, 3, SPACE)
    options = SoftBeamOptions(3, alpha=1e9)
    soft = soft_beam(decoder, decoder.init_state(context), lengths, SPACE, options, path_cost=cost)
    expected = path_costs(cost, hard.symbols)
    exists = hard.scores.isfinite()
    torch.testing.assert_close(soft.costs[exists], expected[exists].double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(soft.direct_loss(), expected[:, 0].double(), atol=1e-4, rtol=0)


def test_adds_to_the_costs_of_labels_and_the_truncated_search_counts_the_same():
    decoder, context, gold, lengths, cost = problem(7)
    state, options = decoder.init_state(context), SoftBeamOptions(3, 1.0, "softsort")
    labels = HammingCost(gold, PAD)
    both = soft_beam(decoder, state, lengths, SPACE, options, labels, path_cost=cost)
    apart = [
        soft_beam(decoder, state, lengths, SPACE, options, labels),
        soft_beam(decoder, state, lengths, SPACE, options, path_cost=cost),
    ]
    torch.testing.assert_close(both.costs, apart[0].costs + apart[1].costs)
    all_of_them = truncated_soft_beam(
        decoder, state, lengths, SPACE, options, labels, size=99, tolerance=1.0, path_cost=cost
    )
    torch.testing.assert_close(all_of_them.costs, both.costs, atol=1e-6, rtol=0)
    redone = truncated_soft_beam(
        decoder, state, lengths, SPACE, options, labels, size=3, tolerance=0.0, path_cost=cost
    )
    assert redone.fell_back.any()
    torch.testing.assert_close(redone.costs[redone.fell_back], both.costs[redone.fell_back])


@pytest.mark.parametrize("recompute", [0.0, 1.0])
def test_gradient_equals_finite_differences(recompute):
    decoder, context, _, lengths, cost = problem(3)
    options = SoftBeamOptions(3, 1.0, "softsort", recompute=recompute)
    parameters = list(decoder.parameters())

    def loss():
        found = soft_beam(decoder, decoder.init_state(context), lengths, SPACE, options, path_cost=cost)
        return found.direct_loss().sum()

    gradient = torch.autograd.grad(loss(), parameters)
    torch.manual_seed(0)
    direction = [torch.randn_like(parameter) for parameter in parameters]
    slope = sum((one * step).sum().item() for one, step in zip(gradient, direction))
    values = []
    with torch.no_grad():
        for sign in (1e-6, -2e-6):
            for parameter, step in zip(parameters, direction):
                parameter.add_(step, alpha=sign)
            values.append(loss().item())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)
    assert slope


def test_alone_and_in_company():
    decoder, context, gold, lengths, cost = problem(11, batch=6)
    options = SoftBeamOptions(3, 1.0, "softsort")
    together = soft_beam(decoder, decoder.init_state(context), lengths, SPACE, options, path_cost=cost)
    for b, length in enumerate(lengths.tolist()):
        row = slice(b, b + 1)
        alone = soft_beam(
            decoder,
            decoder.init_state(context[row, : max(length, 1)]),
            lengths[row],
            SPACE,
            options,
            path_cost=SpanCost(gold[row, :length], INSIDE, BEGINS),
        )
        torch.testing.assert_close(alone.costs[0].double(), together.costs[b], atol=1e-12, rtol=0)
