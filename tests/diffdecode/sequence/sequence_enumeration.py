"""Small problems of which every hypothesis can be scored: toy decoders, spaces with and without EOS."""

import itertools

import pytest
import torch
from toy_decoder import ToyDecoder

from diffdecode.sequence import HammingCost, SearchSpace

V, EOS, PAD, STEPS = 6, 1, 2, 3
TAGS = SearchSpace(torch.arange(1, V))
ENDING = SearchSpace(torch.arange(1, V), EOS, PAD)
SPACES = {"tagging": TAGS, "absorbing eos": ENDING}
NORMALIZERS = pytest.mark.parametrize("normalizer", [0.0, 0.5, 1.0])
IN_EACH_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
# Added to all logits, which changes no log-probability: what a hypothesis gains or loses with each word.
SHIFTS = pytest.mark.parametrize("shift", [-150.0, 0.0, 150.0])


def problem(seed, shift=0.0, vocabulary=V, steps=STEPS, batch=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    decoder = ToyDecoder(vocabulary, seed=seed).to(dtype)
    decoder.out.bias.data += shift
    context = torch.randn(batch, steps, 3, generator=generator, dtype=torch.float64).to(dtype)
    gold = torch.randint(1, vocabulary, (batch, steps), generator=generator)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    return decoder, context, HammingCost(gold, PAD), lengths


def local_scores(decoder, context, symbols, normalizer):
    """``[B, T]`` of ``symbols [B, T]``, from the definition."""
    state, scores = decoder.init_state(context), []
    vectors = decoder.embedding[decoder.start].expand(len(symbols), -1)
    for t in range(symbols.size(1)):
        hidden, state = decoder.features(state, vectors)
        logits = decoder.out(hidden)
        scores.append(logits.gather(1, symbols[:, t, None])[:, 0] - normalizer * logits.exp().sum(1).log())
        vectors = decoder.embedding[symbols[:, t]]
    return torch.stack(scores, 1)


def every_hypothesis(space):
    """All of STEPS symbols: labels, or words up to EOS and then PAD."""
    if space.eos is None:
        every = itertools.product(space.symbols.tolist(), repeat=STEPS)
        return [symbols for symbols in every if not space.forbidden(torch.tensor(symbols)).any()]
    words = [symbol for symbol in space.symbols.tolist() if symbol not in (EOS, PAD)]
    ended = [
        (*prefix, EOS, *[PAD] * (STEPS - length - 1))
        for length in range(STEPS)
        for prefix in itertools.product(words, repeat=length)
    ]
    return ended + list(itertools.product(words, repeat=STEPS))


@torch.no_grad()
def enumerated(decoder, context, space):
    """All hypotheses and their scores, best first; after EOS nothing is added."""
    every = torch.tensor(every_hypothesis(space))
    wide = context.expand(len(every), -1, -1)
    scores = local_scores(decoder, wide, every, space.score_normalizer)
    if space.eos is not None:
        scores = scores.masked_fill(every == PAD, 0.0)
    best = scores.sum(1).sort(descending=True)
    return every[best.indices], best.values
