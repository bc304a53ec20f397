"""Fewer hypotheses than a beam has room for: what is left over never counts, however low the others score."""

import pytest
import torch
from toy_decoder import ToyDecoder

from diffdecode.sequence import (
    HammingCost,
    SearchSpace,
    SoftBeamOptions,
    hard_beam,
    soft_beam,
    soft_beam_decode,
    truncated_soft_beam,
)

V, EOS, PAD, K = 6, 1, 2, 3
PER_STEP = 6000.0  # which raw scores fall at each step
LABELS = torch.tensor([3, 4, 5])
# 3 and 4 take turns, or all is 5.
TWO_WAYS = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]], dtype=torch.bool)
SPACES = {
    "two sequences": SearchSpace(LABELS, transitions=TWO_WAYS),
    "not to be ended at once": SearchSpace(torch.tensor([EOS, PAD, 3]), EOS, PAD, shortest=1),
    "no word but one": SearchSpace(torch.tensor([EOS, PAD, 3]), EOS, PAD, shortest=3),
}
LENGTHS = [4, 1, 0, 2]
SEARCHES = {
    "dense": soft_beam,
    "truncated": lambda *arguments: truncated_soft_beam(*arguments, size=K, tolerance=1.0),
}


def problem(space, normalizer):
    decoder = ToyDecoder(V, seed=3).double()
    decoder.out.bias.data -= PER_STEP
    decoder.out.bias.data[EOS] -= 3.0
    space = SearchSpace(space.symbols, space.eos, space.pad, space.shortest, normalizer, space.transitions)
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randn(len(LENGTHS), LENGTHS[0], 3, generator=generator, dtype=torch.float64)
    gold = torch.randint(3, V, (len(LENGTHS), LENGTHS[0]), generator=generator)
    inside = torch.arange(LENGTHS[0]) < torch.tensor(LENGTHS)[:, None]
    return decoder, space, contexts, HammingCost(gold.masked_fill(~inside, PAD), PAD)


# With log-probabilities, a soft search may end at once all the same, at a score of -69 (``SOFT_FLOOR``).
@pytest.mark.parametrize("space, normalizer", [*((space, 0.0) for space in SPACES), ("two sequences", 1.0)])
@pytest.mark.parametrize("search", SEARCHES)
def test_the_limit_is_the_hard_beam(space, search, normalizer):
    """Of every sentence, beside the others and alone; with gradients that are numbers."""
    decoder, space, contexts, cost = problem(SPACES[space], normalizer)
    options = SoftBeamOptions(K, 30.0, "softsort", hard_forward=True, recompute=0.0, length_penalty=1.0)
    steps = torch.tensor(LENGTHS)
    hard = hard_beam(decoder, decoder.init_state(contexts), steps, K, space, cost)
    leaf = contexts.clone().requires_grad_()
    found = SEARCHES[search](decoder, decoder.init_state(leaf), steps, space, options, cost)
    torch.testing.assert_close(found.scores, hard.scores, check_dtype=False)
    there = hard.scores > -torch.inf
    assert not there.all() and hard.scores[there].min() < (-1e4 if normalizer == 0 else -1.0)
    torch.testing.assert_close(found.costs[there], hard.costs[there], check_dtype=False)
    numbers = torch.stack([found.direct_loss(), found.risk(), found.max_score()])
    (gradient,) = torch.autograd.grad(numbers.sum(), leaf)
    assert numbers.isfinite().all() and gradient.isfinite().all()
    assert (found.choice[~there] == 0).all()
    best = hard.scores / space.lengths(hard.symbols).clamp(min=1)
    torch.testing.assert_close(found.max_score(), best.amax(1), check_dtype=False, atol=0.05, rtol=1e-3)
    for b, length in enumerate(LENGTHS):
        own = contexts[b : b + 1, : max(length, 1)]
        alone_cost = HammingCost(cost.gold[b : b + 1, : max(length, 1)], PAD)
        alone = SEARCHES[search](
            decoder, decoder.init_state(own), steps[b : b + 1], space, options, alone_cost
        )
        torch.testing.assert_close(alone.scores[0], found.scores[b], check_dtype=False)
        torch.testing.assert_close(alone.direct_loss()[0], found.direct_loss()[b], check_dtype=False)


@pytest.mark.parametrize("space", SPACES)
def test_decoding_does_not_spell_them(space):
    decoder, space, contexts, _ = problem(SPACES[space], 0.0)
    steps = torch.tensor(LENGTHS)
    hard = hard_beam(decoder, decoder.init_state(contexts), steps, K, space)
    soft = soft_beam_decode(
        decoder, decoder.init_state(contexts), steps, space, SoftBeamOptions(K, 100.0, "softsort")
    )
    torch.testing.assert_close(soft.scores, hard.scores, check_dtype=False)
    there = hard.scores > -torch.inf
    assert torch.equal(soft.symbols[there], hard.symbols[there])
