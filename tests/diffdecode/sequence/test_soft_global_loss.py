"""The global loss on the soft beam: its limit is the one on the hard beam, its gradient that of its value."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from sequence_enumeration import ENDING, IN_EACH_SPACE, NORMALIZERS, PAD, local_scores, problem

from diffdecode.sequence import (
    HammingCost,
    SoftBeamOptions,
    contrast,
    global_loss,
    score_stepwise,
    soft_beam,
    truncated_soft_beam,
)


def references(seed, space, normalizer):
    """A problem whose references end as hypotheses do, and their scores as a function of the decoder."""
    decoder, context, cost, lengths = problem(seed)
    position = torch.arange(cost.gold.size(1))
    gold, last = cost.gold, position == lengths[:, None] - 1
    if space.eos is not None:  # words, then EOS
        gold = torch.where(last, space.eos, gold.masked_fill((gold == space.eos) | (gold == PAD), 3))
    inside = position < lengths[:, None]
    gold = gold.masked_fill(~inside, PAD)

    def scores():
        return (local_scores(decoder, context, gold, normalizer) * inside).sum(1)

    return decoder, context, gold, lengths, scores


@NORMALIZERS
@IN_EACH_SPACE
def test_becomes_the_global_loss_of_the_hard_beam(space, normalizer):
    space, kept = replace(space, score_normalizer=normalizer), 0
    for seed in range(4):
        decoder, context, gold, lengths, scores = references(seed, space, normalizer)
        state, options = decoder.init_state(context), SoftBeamOptions(3, alpha=1e9)
        found = contrast(decoder, state, gold, lengths, 3, space, early=False)
        expected = global_loss(found, partial(score_stepwise, decoder, state), space)
        soft = soft_beam(decoder, state, lengths, space, options, HammingCost(gold, PAD))
        torch.testing.assert_close(soft.global_loss(scores()), expected, atol=1e-4, rtol=1e-5)
        kept += int(found.kept.sum())
    assert 0 < kept < 16  # references on the beam, which are counted once, and others


@pytest.mark.parametrize("alpha", [0.1, 1.0])
@IN_EACH_SPACE
def test_gradient_equals_finite_differences(space, alpha):
    space = replace(space, score_normalizer=0.0)
    decoder, context, gold, lengths, scores = references(2, space, 0.0)
    options, cost = SoftBeamOptions(3, alpha, "softsort"), HammingCost(gold, PAD)
    parameters = list(decoder.parameters())

    def loss():
        found = soft_beam(decoder, decoder.init_state(context), lengths, space, options, cost)
        return found.global_loss(scores()).sum()

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
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4) and slope


def test_a_beam_that_is_the_reference_costs_nothing_and_empty_sentences_neither():
    space = replace(ENDING, score_normalizer=0.0)
    decoder, context, gold, lengths, scores = references(1, space, 0.0)
    options, cost = SoftBeamOptions(3, 1.0, "softsort"), HammingCost(gold, PAD)
    found = soft_beam(decoder, decoder.init_state(context), torch.zeros_like(lengths), space, options, cost)
    assert not found.global_loss(torch.zeros(len(lengths))).any()
    found.costs = torch.zeros_like(found.costs)
    assert not found.global_loss(scores()).any()


def test_the_truncated_search_has_the_same():
    space = replace(ENDING, score_normalizer=0.5)
    decoder, context, gold, lengths, scores = references(5, space, 0.5)
    state, options = decoder.init_state(context), SoftBeamOptions(3, 1.0, "softsort")
    dense = soft_beam(decoder, state, lengths, space, options, HammingCost(gold, PAD))
    of_all = truncated_soft_beam(
        decoder, state, lengths, space, options, HammingCost(gold, PAD), size=99, tolerance=1.0
    )
    torch.testing.assert_close(
        of_all.global_loss(scores()), dense.global_loss(scores()), atol=1e-6, rtol=1e-6
    )
