"""Samples of sequences follow the decoder's distribution, and depend on their own noise alone."""

import itertools
from collections import Counter

import pytest
import torch
from toy_decoder import ToyDecoder

from diffdecode.sequence import SearchSpace, sample_sequences

TAGS = SearchSpace(torch.tensor([2, 3, 5]))
WORDS = SearchSpace(torch.tensor([1, 2, 3, 4]), eos=2, pad=1, shortest=1)


def samples_of(decoder, context, lengths, noise, space):
    return sample_sequences(decoder, decoder.init_state(context), lengths, noise, space)


def probability(decoder, context, sequence, space):
    """Of one sequence, by hand: steps renormalised over what may be emitted there."""
    state, vectors, total = decoder.init_state(context), decoder.embedding[decoder.start][None], 1.0
    for t, symbol in enumerate(sequence):
        log_probs, state = decoder.step(state, vectors)
        allowed = [s for s in space.symbols.tolist() if s != space.padding and (t or s != space.eos)]
        total *= (log_probs[0, symbol].exp() / log_probs[0, allowed].exp().sum()).item()
        vectors = decoder.embedding[symbol][None]
    return total


def sequences(space, longest):
    """All of a space, with what cannot end cut off at the largest length."""
    words = [s for s in space.symbols.tolist() if s not in (space.padding, space.eos)]
    if space.eos is None:
        return list(itertools.product(words, repeat=longest))
    ended = [(*prefix, space.eos) for t in range(1, longest) for prefix in itertools.product(words, repeat=t)]
    return ended + list(itertools.product(words, repeat=longest))


@pytest.mark.parametrize("space", [TAGS, WORDS], ids=["tags", "words"])
def test_frequencies_are_probabilities(space):
    torch.manual_seed(0)
    decoder, context = ToyDecoder(scale=1.0), torch.randn(1, 3, 3)
    noise = torch.rand(1, 40_000, 3)
    found = samples_of(decoder, context, torch.tensor([3]), noise, space)[0]
    counts = Counter(tuple(s for s in row if s not in (-1, 1)) for row in found.tolist())
    expected = {one: probability(decoder, context, one, space) for one in sequences(space, 3)}
    assert sum(expected.values()) == pytest.approx(1, abs=1e-5)
    assert set(counts) <= set(expected)
    for one, p in expected.items():
        assert counts[one] / 40_000 == pytest.approx(p, abs=5 * (p * (1 - p) / 40_000) ** 0.5 + 1e-6)


@pytest.mark.parametrize("space", [TAGS, WORDS], ids=["tags", "words"])
def test_alone_as_in_company(space):
    torch.manual_seed(1)
    decoder, context, lengths = ToyDecoder(), torch.randn(4, 6, 3), torch.tensor([6, 2, 0, 4])
    noise = torch.rand(4, 5, 6)
    together = samples_of(decoder, context, lengths, noise, space)
    for b, length in enumerate(lengths.tolist()):
        alone = samples_of(
            decoder, context[b : b + 1], lengths[b : b + 1], noise[b : b + 1, :, :length], space
        )
        assert torch.equal(together[b, :, : alone.size(2)], alone[0])
        assert (together[b, :, alone.size(2) :] == -1).all()


def test_a_sample_that_has_ended_is_continued_by_pad():
    torch.manual_seed(2)
    decoder = ToyDecoder(scale=1.0)
    found = samples_of(decoder, torch.randn(1, 8, 3), torch.tensor([8]), torch.rand(1, 50, 8), WORDS)[0]
    for row in found.tolist():
        ends = row.index(2) if 2 in row else len(row)
        assert ends >= 1 and not {1, -1} & set(row[:ends]) and set(row[ends + 1 :]) <= {1}
    assert len({row.index(2) for row in found.tolist() if 2 in row}) > 1


def test_an_impossible_symbol_is_never_drawn():
    """Also by the smallest and the largest number that noise can be."""
    decoder = ToyDecoder()
    decoder.out.bias.data[2] = decoder.out.bias.data[5] = -torch.inf
    noise = torch.tensor([0.0, 1 - 2**-24]).view(1, 2, 1)
    found = samples_of(decoder, torch.zeros(1, 1, 3), torch.tensor([1]), noise, TAGS)
    assert found.flatten().tolist() == [3, 3]


def test_too_little_noise_is_refused():
    with pytest.raises(ValueError, match="noise for 2 steps, and samples of up to 3 symbols"):
        samples_of(ToyDecoder(), torch.zeros(1, 3, 3), torch.tensor([3]), torch.rand(1, 2, 2), TAGS)
