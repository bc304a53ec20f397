"""Soft-beam decoding: the hard beam in the limit, and well-formed hypotheses at any alpha."""

import pytest
import torch
from toy_decoder import ToyDecoder

from diffdecode.sequence import SearchSpace, SoftBeamOptions, hard_beam, soft_beam, soft_beam_decode

TAGS = SearchSpace(torch.tensor([1, 3, 4, 5]))
ENDING = SearchSpace(torch.arange(1, 6), eos=1, pad=2)


def written(found):
    """Hypotheses as lists, without PAD: a search may end as soon as everything has."""
    return [[[s for s in row if s not in (-1, 2)] for row in beam] for beam in found.symbols.tolist()]


@pytest.mark.parametrize("space", [TAGS, ENDING], ids=["tagging", "absorbing eos"])
@pytest.mark.parametrize("seed", range(6))
def test_becomes_the_hard_beam(seed, space):
    generator = torch.Generator().manual_seed(seed)  # no near ties, in which the two searches may differ
    decoder = ToyDecoder(6, seed=seed).double()
    context = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([5, 1, 3, 4])
    hard = hard_beam(decoder, decoder.init_state(context), lengths, 3, space)
    soft = soft_beam_decode(
        decoder, decoder.init_state(context), lengths, space, SoftBeamOptions(3, alpha=1e9)
    )
    assert written(soft) == written(hard)
    torch.testing.assert_close(soft.scores, hard.scores, atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_well_formed_at_any_alpha(alpha):
    decoder, context = ToyDecoder(6, seed=7), torch.randn(4, 5, 3)
    lengths, options = torch.tensor([5, 1, 3, 4]), SoftBeamOptions(3, alpha, cost_weight=1.0)
    found = soft_beam_decode(decoder, decoder.init_state(context), lengths, TAGS, options)
    outside = (torch.arange(5) >= lengths[:, None])[:, None].expand(-1, 3, -1)
    assert torch.equal(found.symbols == -1, outside)
    assert torch.isin(found.symbols[~outside], TAGS.symbols).all()
    assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()
    torch.testing.assert_close(found.step_scores.sum(2), found.scores)
    assert (found.step_scores[outside] == 0).all()
    scores = soft_beam(decoder, decoder.init_state(context), lengths, TAGS, SoftBeamOptions(3, alpha)).scores
    torch.testing.assert_close(found.scores, scores.sort(1, descending=True).values)
