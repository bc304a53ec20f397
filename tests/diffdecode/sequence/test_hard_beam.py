"""Hard beam search against enumeration and against a search written in plain Python."""

import itertools

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_decoder import ToyDecoder

from diffdecode.sequence import HammingCost, Hypotheses, SearchSpace, first_beam, hard_beam, next_beam


def plain_beam(decoder, context, length, k, symbols):
    """Beam search of one sentence with lists; returns [(score, prefix)] best first."""
    beam = [(0.0, ())]
    for t in range(length):
        grown = []
        for score, prefix in beam:
            for symbol in symbols:
                longer = torch.tensor([[*prefix, symbol]])
                local = decoder.sequence_scores(context, longer)[0, t].item()
                grown.append((score + local, (*prefix, symbol)))
        beam = sorted(grown, key=lambda item: -item[0])[:k]
    return beam


@settings(max_examples=cases(15, 80), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 4),
    k=st.integers(1, 6),
    vocabulary=st.integers(2, 5),
)
def test_equals_plain_python(seed, length, k, vocabulary):
    decoder = ToyDecoder(vocabulary, seed=seed).double()
    context = torch.randn(1, length, 3, generator=torch.Generator().manual_seed(seed)).double()
    symbols = list(range(1, vocabulary))
    with torch.no_grad():
        expected = plain_beam(decoder, context, length, k, symbols)
    found = hard_beam(
        decoder, decoder.init_state(context), torch.tensor([length]), k, SearchSpace(torch.tensor(symbols))
    )
    scores = [score for score, _ in expected]
    finite = found.scores[0][torch.isfinite(found.scores[0])]
    torch.testing.assert_close(finite[: len(scores)], torch.tensor(scores).double(), atol=1e-6, rtol=0)
    assert found.symbols[0, 0].tolist() == list(expected[0][1])


def test_full_width_is_exact_search():
    decoder, context = ToyDecoder(4, seed=3), torch.randn(1, 3, 3)
    space = SearchSpace(torch.tensor([1, 2, 3]))
    found = hard_beam(decoder, decoder.init_state(context), torch.tensor([3]), 27, space)
    every = torch.tensor(list(itertools.product([1, 2, 3], repeat=3)))
    with torch.no_grad():
        scores = decoder.sequence_scores(context.expand(27, -1, -1), every).sum(1)
    torch.testing.assert_close(found.scores[0], scores.sort(descending=True).values)
    assert found.symbols[0].unique(dim=0).size(0) == 27


def test_step_scores_sum_to_scores_and_are_teacher_forced():
    decoder, context = ToyDecoder(6, seed=1), torch.randn(3, 5, 3)
    lengths = torch.tensor([5, 2, 4])
    found = hard_beam(decoder, decoder.init_state(context), lengths, 3, SearchSpace(torch.arange(1, 6)))
    torch.testing.assert_close(found.step_scores.sum(2), found.scores)
    best = found.symbols[:, 0]
    assert (best.eq(-1) == (torch.arange(5) >= lengths[:, None])).all()
    with torch.no_grad():
        forced = decoder.sequence_scores(context, best.clamp(min=0)) * best.ge(0)
    torch.testing.assert_close(found.step_scores[:, 0], forced)


def test_costs_are_those_of_the_hypotheses():
    decoder, context = ToyDecoder(6, seed=2), torch.randn(3, 5, 3)
    lengths, gold = torch.tensor([5, 2, 4]), torch.randint(1, 6, (3, 5))
    space, cost = SearchSpace(torch.arange(1, 6)), HammingCost(gold, pad=0)
    found = hard_beam(decoder, decoder.init_state(context), lengths, 3, space, cost, cost_weight=0.5)
    inside = torch.arange(5) < lengths[:, None]
    expected = ((found.symbols != gold[:, None]) & inside[:, None]).sum(2).float()
    assert torch.equal(found.costs, expected)
    torch.testing.assert_close(found.scores, found.step_scores.sum(2) + 0.5 * found.costs)


def test_batch_mates_and_padding_change_nothing():
    decoder, context = ToyDecoder(6, seed=5), torch.randn(4, 6, 3)
    lengths, space = torch.tensor([6, 1, 3, 4]), SearchSpace(torch.arange(1, 6))
    together = hard_beam(decoder, decoder.init_state(context), lengths, 4, space)
    for b, length in enumerate(lengths.tolist()):
        alone = context[b : b + 1, :length]
        single = hard_beam(decoder, decoder.init_state(alone), lengths[b : b + 1], 4, space)
        torch.testing.assert_close(together.scores[b : b + 1, : single.scores.size(1)], single.scores)
        assert torch.equal(together.symbols[b, : single.symbols.size(1), :length], single.symbols[0])


def test_beam_wider_than_the_space_of_a_short_sentence():
    decoder, context = ToyDecoder(3, seed=5), torch.randn(2, 3, 3)
    space = SearchSpace(torch.tensor([1, 2]))
    found = hard_beam(decoder, decoder.init_state(context), torch.tensor([3, 1]), 5, space)
    assert torch.isfinite(found.scores[0]).all()
    assert torch.isfinite(found.scores[1]).tolist() == [True, True, False, False, False]


def endings(decoder, context, steps, words, eos, pad):
    """Every hypothesis of exactly ``steps`` symbols with an absorbing EOS, and its score."""
    for length in range(steps + 1):
        for prefix in itertools.product(words, repeat=length):
            hypothesis = prefix if length == steps else (*prefix, eos)
            scores = decoder.sequence_scores(context, torch.tensor([hypothesis]))
            yield hypothesis + (pad,) * (steps - len(hypothesis)), scores.sum().item()


@pytest.mark.parametrize("seed", range(5))
def test_absorbing_eos_equals_enumeration(seed):
    decoder, context = ToyDecoder(6, seed=seed), torch.randn(1, 3, 3)
    space = SearchSpace(torch.arange(1, 6), eos=1, pad=2)
    found = hard_beam(decoder, decoder.init_state(context), torch.tensor([3]), 200, space)
    with torch.no_grad():
        every = sorted(endings(decoder, context, 3, (3, 4, 5), 1, 2), key=lambda item: -item[1])
    finite = torch.isfinite(found.scores[0])
    assert int(finite.sum()) == len(every)
    torch.testing.assert_close(found.scores[0][finite], torch.tensor([score for _, score in every]))
    assert tuple(found.symbols[0, 0].tolist()) == every[0][0]


@pytest.mark.parametrize("seed", range(3))
def test_shortest_hypotheses_are_left_out(seed):
    decoder, context = ToyDecoder(6, seed=seed), torch.randn(1, 3, 3)
    space = SearchSpace(torch.arange(1, 6), eos=1, pad=2, shortest=2)
    found = hard_beam(decoder, decoder.init_state(context), torch.tensor([3]), 200, space)
    with torch.no_grad():
        every = [item for item in endings(decoder, context, 3, (3, 4, 5), 1, 2) if 1 not in item[0][:2]]
    finite = torch.isfinite(found.scores[0])
    expected = torch.tensor(sorted((score for _, score in every), reverse=True))
    torch.testing.assert_close(found.scores[0][finite], expected)


def test_stops_when_everything_has_ended():
    decoder, context = ToyDecoder(6, seed=0), torch.randn(2, 50, 3)
    decoder.out.bias.data[1] = 100.0
    lengths, space = torch.tensor([50, 50]), SearchSpace(torch.arange(1, 6), eos=1, pad=2)
    found = hard_beam(decoder, decoder.init_state(context), lengths, 1, space)
    assert found.symbols.tolist() == [[[1]], [[1]]]
    counted = hard_beam(
        decoder, decoder.init_state(context), lengths, 1, space, HammingCost(torch.full((2, 50), 3), pad=2)
    )
    assert counted.costs.tolist() == [[50.0], [50.0]]


def test_search_space_refuses_nonsense():
    with pytest.raises(ValueError, match="at least one symbol"):
        SearchSpace(torch.tensor([], dtype=torch.long))
    with pytest.raises(ValueError, match="pad=None must be one of the symbols"):
        SearchSpace(torch.tensor([1, 2]), eos=1)


@pytest.mark.parametrize("eos", [None, 1])
def test_step_by_step_is_the_search(eos):
    decoder, context = ToyDecoder(6, seed=4), torch.randn(3, 5, 3)
    space = SearchSpace(torch.arange(1, 6), eos, None if eos is None else 2)
    whole = hard_beam(decoder, decoder.init_state(context), torch.full((3,), 5), 4, space)
    beam = first_beam(decoder, decoder.init_state(context[:, :0]), 3, space)
    for t in range(5):  # of the context, a step sees what is there by then
        arrived = {**beam.state, "context": context[:, : t + 1]}
        beam = next_beam(decoder, beam._replace(state=arrived), 4, space)
        longer = beam.hypotheses.symbols
        assert longer.shape == (3, 4, t + 1)
    for name, expected in vars(whole).items():
        found = getattr(beam.hypotheses, name)
        assert torch.equal(found[..., : expected.size(-1)], expected), name


def test_agreement_is_of_possible_hypotheses_from_the_first_symbol_on():
    symbols = torch.tensor([[[5, 3, 4], [5, 3, 4], [5, 2, 4]], [[5, 3, -1], [5, 3, -1], [1, 1, -1]]])
    scores = torch.tensor([[0.0, -1.0, -2.0], [0.0, -1.0, -torch.inf]])
    zeros = torch.zeros_like(scores)
    assert Hypotheses(symbols, scores, zeros, zeros).agreed.tolist() == [1, 2]
    assert Hypotheses(symbols[..., :0], scores, zeros, zeros).agreed.tolist() == [0, 0]
