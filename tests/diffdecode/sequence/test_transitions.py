"""Pairs of symbols that no sequence may hold: all searches against enumeration, gradients, company."""

from dataclasses import replace

import pytest
import torch
from sequence_enumeration import ENDING, STEPS, TAGS, V, enumerated, problem

from diffdecode.sequence import (
    SearchSpace,
    SoftBeamOptions,
    hard_beam,
    sample_sequences,
    soft_beam,
    soft_beam_decode,
    truncated_soft_beam,
)

OPERATORS = ("peaked", "softsort", "lapsum", "successive")
NORMALIZERS = pytest.mark.parametrize("normalizer", [0.5, 1.0])


def permitted(seed, size=V - 1):
    """Half of all pairs and of all beginnings, but a way out of every symbol."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.rand(size + 1, size, generator=generator) < 0.5
    return pairs | torch.nn.functional.one_hot(torch.arange(size + 1) % size, size).bool()


def restricted(seed, normalizer=1.0):
    return replace(TAGS, transitions=permitted(seed), score_normalizer=normalizer)


def holds_forbidden(space, symbols):
    return any(bool(space.forbidden(row[row >= 0]).any()) for row in symbols.flatten(0, -2))


def test_forbidden_by_definition():
    space = SearchSpace(torch.tensor([7, 3]), transitions=torch.tensor([[1, 0], [1, 1], [0, 1]]).bool())
    for symbols, expected in (
        ([3, 7, 7, 3], [False, False, False, True]),
        ([7, 7], [True, False]),
        ([3, 9, 3], [False, False, False]),  # nobody knows 9
        ([], []),
    ):
        assert space.forbidden(torch.tensor(symbols, dtype=torch.long)).tolist() == expected
    assert not TAGS.forbidden(torch.tensor([1, 2])).any()


@NORMALIZERS
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_all_is_the_enumeration(seed, normalizer):
    decoder, context, _, _ = problem(seed, batch=1)
    space = restricted(seed, normalizer)
    every, scores = enumerated(decoder, context, space)
    assert 1 < len(every) < (V - 1) ** STEPS
    found = hard_beam(decoder, decoder.init_state(context), torch.tensor([STEPS]), 200, space)
    finite = found.scores[0].isfinite()
    torch.testing.assert_close(found.scores[0][finite], scores)
    assert torch.equal(found.symbols[0, finite], every)


def test_the_transitions_decide():
    """In some problems the best of all is not permitted: the tests around see it."""
    for seed in range(10):
        decoder, context, _, _ = problem(seed, batch=1)
        if restricted(seed).forbidden(enumerated(decoder, context, TAGS)[0][0]).any():
            return
    raise AssertionError("nothing is forbidden that would be written")


@NORMALIZERS
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("seed", range(2))
def test_soft_beams_become_the_hard_beam(seed, operator, normalizer):
    decoder, context, cost, lengths = problem(seed)
    space = restricted(seed, normalizer)
    state = decoder.init_state(context)
    hard = hard_beam(decoder, state, lengths, 3, space, cost)
    exists = hard.scores.isfinite()
    options = SoftBeamOptions(3, 1e9, operator)
    for soft in (
        soft_beam(decoder, state, lengths, space, options, cost),
        truncated_soft_beam(decoder, state, lengths, space, options, cost, size=4, tolerance=1.0),
    ):
        torch.testing.assert_close(soft.scores[exists], hard.scores[exists], atol=1e-6, rtol=0)
        torch.testing.assert_close(soft.direct_loss(), hard.costs[:, 0].double(), atol=1e-4, rtol=0)
    decoded = soft_beam_decode(decoder, state, lengths, space, options)
    assert torch.equal(decoded.symbols[:, 0], hard.symbols[:, 0])


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_search_writes_what_is_forbidden(seed, alpha):
    """Not even where elements are mixtures, and where samples are drawn."""
    decoder, context, _, lengths = problem(seed)
    space, state = restricted(seed), decoder.init_state(context)
    for operator in OPERATORS:
        decoded = soft_beam_decode(decoder, state, lengths, space, SoftBeamOptions(3, alpha, operator))
        assert not holds_forbidden(space, decoded.symbols)
    found = hard_beam(decoder, state, lengths, 3, space)
    assert not holds_forbidden(space, found.symbols[found.scores.isfinite()][None])
    noise = torch.rand(4, 20, STEPS, generator=torch.Generator().manual_seed(seed))
    assert not holds_forbidden(space, sample_sequences(decoder, state, lengths, noise, space))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("truncated", [False, True])
def test_gradients_are_those_of_finite_differences(operator, truncated):
    decoder, context, cost, lengths = problem(5)
    space = restricted(5)

    def loss():
        options, state = SoftBeamOptions(3, 1.0, operator), decoder.init_state(context)
        if truncated:
            search = truncated_soft_beam(
                decoder, state, lengths, space, options, cost, size=V - 1, tolerance=1
            )
        else:
            search = soft_beam(decoder, state, lengths, space, options, cost)
        return search.direct_loss().sum()

    parameters = list(decoder.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    with torch.no_grad():
        values = []
        for shift in (1e-6, -2e-6):
            for parameter, step in zip(parameters, direction):
                parameter.add_(step, alpha=shift)
            values.append(loss().item())
    slope = sum((gradient * step).sum().item() for gradient, step in zip(gradients, direction))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7)


def test_all_candidates_are_the_dense_search():
    decoder, context, cost, lengths = problem(7)
    space, options = restricted(7), SoftBeamOptions(3, 0.5, "softsort")
    state = decoder.init_state(context)
    dense = soft_beam(decoder, state, lengths, space, options, cost)
    all_of_them = truncated_soft_beam(decoder, state, lengths, space, options, cost, size=3 * V)
    torch.testing.assert_close(all_of_them.direct_loss(), dense.direct_loss())
    torch.testing.assert_close(all_of_them.scores, dense.scores)


def test_candidates_that_may_come_next_are_enough():
    """The best by score may all be forbidden: those that are looked at are not fewer for it."""
    decoder, context, cost, lengths = problem(1)
    decoder.out.bias.data[1:4] += 50.0
    transitions = torch.zeros(V, V - 1, dtype=torch.bool)
    transitions[:, 3:] = True  # only the two symbols that nobody would take
    space, state = replace(TAGS, transitions=transitions), decoder.init_state(context)
    options = SoftBeamOptions(2, 1e9)
    soft = truncated_soft_beam(decoder, state, lengths, space, options, cost, size=2, tolerance=1.0)
    hard = hard_beam(decoder, state, lengths, 2, space, cost)
    torch.testing.assert_close(soft.scores, hard.scores, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 1e9])
def test_batch_mates_change_nothing(alpha):
    decoder, context, _, lengths = problem(3)
    space, options = restricted(3), SoftBeamOptions(2, alpha)
    together = soft_beam(decoder, decoder.init_state(context), lengths, space, options).scores
    decoded = soft_beam_decode(decoder, decoder.init_state(context), lengths, space, options).symbols
    for row in range(4):
        state, length = decoder.init_state(context[row : row + 1]), lengths[row : row + 1]
        torch.testing.assert_close(soft_beam(decoder, state, length, space, options).scores[0], together[row])
        alone = soft_beam_decode(decoder, state, length, space, options).symbols[0]
        assert torch.equal(alone, decoded[row, :, : alone.size(1)])


def test_a_space_that_permits_everything_is_the_space_without():
    decoder, context, cost, lengths = problem(2)
    free = replace(TAGS, transitions=torch.ones(V, V - 1, dtype=torch.bool))
    state, options = decoder.init_state(context), SoftBeamOptions(3, 1.0)
    found, expected = (
        soft_beam(decoder, state, lengths, space, options, cost).direct_loss() for space in (free, TAGS)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("space", "transitions", "message"),
    [
        (TAGS, torch.ones(V - 1, V - 1).bool(), r"must be boolean and \[6, 5\] for 5 symbols"),
        (TAGS, torch.ones(V, V - 1), r"must be boolean"),
        (TAGS, torch.zeros(V, V - 1).bool(), "nothing may follow symbol 1"),
        (TAGS, torch.arange(V)[:, None].expand(V, V - 1) < V - 1, "nothing may follow the beginning"),
        (ENDING, torch.ones(V, V - 1).bool(), "this space ends with eos"),
    ],
)
def test_transitions_that_cannot_be_used_are_refused(space, transitions, message):
    with pytest.raises(ValueError, match=message):
        replace(space, transitions=transitions)
