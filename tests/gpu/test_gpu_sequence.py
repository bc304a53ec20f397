"""Searches on a GPU: the CPU's values and gradients."""

from functools import partial

import pytest
import torch
from test_gpu_structure import compare, seeded
from test_waits import ONE, OPTIONS, SOFT, Decoder, space_on

from diffdecode.sequence import (
    HammingCost,
    OwnWord,
    SearchSpace,
    SpanCost,
    contrast,
    expected_risk,
    first_occurrences,
    fused_scheduled_sampling,
    global_loss,
    hard_beam,
    path_costs,
    relaxed_decode,
    sample_sequences,
    score_stepwise,
    soft_beam,
    soft_beam_decode,
    truncated_soft_beam,
    two_pass_decode,
)

V, STEPS = 40, 5


def dense(decoder, state, gold, lengths):
    beam = soft_beam(decoder, state, lengths, space_on(gold), OPTIONS, HammingCost(gold, 2))
    return beam.direct_loss(), beam.scores, beam.costs


def truncated(decoder, state, gold, lengths):
    cost = HammingCost(gold, 2)
    beam = truncated_soft_beam(decoder, state, lengths, space_on(gold), OPTIONS, cost, size=20, tolerance=1.0)
    return beam.direct_loss(), beam.scores


def against_a_hard_beam(decoder, state, gold, lengths):
    space = SearchSpace(torch.arange(3, V, device=gold.device))
    found = contrast(decoder, state, gold, lengths, 3, space)
    return global_loss(found, partial(score_stepwise, decoder, state), space)


def risk_of_samples(decoder, state, gold, lengths):
    space = SearchSpace(torch.arange(3, V, device=gold.device))
    noise = torch.rand(len(gold), 4, STEPS, generator=seeded(3)).to(gold.device)
    samples = sample_sequences(decoder, state, lengths, noise, space)
    scores = score_stepwise(decoder, state, samples)[0].sum(2)
    risks = (samples != gold[:, None]).sum(2).to(scores.dtype)
    return samples, expected_risk(scores.masked_fill(~first_occurrences(samples), -torch.inf), risks, 0.5)


def two_passes(decoder, state, gold, lengths):
    def run(inputs):
        found, now = [], state
        for t in range(inputs.size(1)):
            log_probs, now = decoder.step(now, inputs[:, t])
            found.append(log_probs)
        return torch.stack(found, 1)

    return two_pass_decode(run, decoder.embedding, decoder.start, gold, SOFT, 0.5, seeded(3))


def relaxed(own_word, decoder, state, gold, lengths):
    return relaxed_decode(decoder, state, gold, own_word, 0.5, generator=seeded(3))


def fused(own_word, decoder, state, gold, lengths):
    found = fused_scheduled_sampling(
        decoder, state, gold, lengths, own_word, 0.5, tolerance=1.0, generator=seeded(3)
    )
    return found.gold_log_probs


def best_sequences(decoder, state, gold, lengths):
    """And their costs, where labels 10 to 13 are spans of two types: B-X, I-X, B-Y, I-Y."""
    beam = hard_beam(decoder, state, lengths, 3, SearchSpace(torch.arange(3, 20, device=gold.device)))
    inside, begins = torch.zeros(V, 2, dtype=torch.bool), torch.zeros(V, dtype=torch.bool)
    inside[10:12, 0] = inside[12:14, 1] = begins[10] = begins[12] = True
    cost = SpanCost(gold, inside.to(gold.device), begins.to(gold.device))
    return beam.symbols, beam.scores, path_costs(cost, beam.symbols)


def decoded(decoder, state, gold, lengths):
    found = soft_beam_decode(decoder, state, lengths, space_on(gold), OPTIONS)
    return found.symbols, found.scores


SEARCHES = {
    "dense": dense,
    "truncated": truncated,
    "against a hard beam": against_a_hard_beam,
    "risk of samples": risk_of_samples,
    "two passes": two_passes,
    "relaxed": partial(relaxed, SOFT),
    "relaxed, straight through": partial(relaxed, ONE),
    "relaxed, sampled": partial(relaxed, OwnWord("sample")),
    "fused": partial(fused, SOFT),
    "fused, sampled": partial(fused, OwnWord("sample")),
    "hard": best_sequences,
    "decoded": decoded,
}


@pytest.mark.parametrize("search", SEARCHES)
def test_searches(accelerator, search):
    def values_and_gradients(gold, lengths):
        decoder = Decoder(V).to(gold.device)
        for parameter in decoder.parameters():  # so that no two sequences are nearly as good as each other
            parameter.data.mul_(4)
        found = SEARCHES[search](decoder, decoder.init_state(len(gold)), gold, lengths)
        found = found if isinstance(found, tuple) else (found,)
        losses = [values for values in found if values.requires_grad]
        if losses:
            sum(values.sum() for values in losses).backward()
        return found, [p.grad for p in decoder.parameters() if p.grad is not None]

    gold = torch.randint(3, 20, (4, STEPS), generator=seeded(1))
    compare(accelerator, values_and_gradients, gold, torch.tensor([STEPS, 2, 4, 1]), atol=1e-4, rtol=1e-4)
