"""Cross entropy against a hard beam: the exact loss where it holds everything, early update where not."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_enumeration import (
    ENDING,
    EOS,
    IN_EACH_SPACE,
    NORMALIZERS,
    PAD,
    SHIFTS,
    STEPS,
    TAGS,
    V,
    every_hypothesis,
    local_scores,
    problem,
)

from diffdecode.sequence import contrast, global_loss, hard_beam, score_stepwise

EVERYTHING = V**STEPS


def loss_of(decoder, context, gold, lengths, beam_size, space, early=True):
    state = decoder.init_state(context)
    found = contrast(decoder, state, gold, lengths, beam_size, space, early)
    return global_loss(found, partial(score_stepwise, decoder, state), space)


def gradient(loss, decoder):
    grads = torch.autograd.grad(loss.sum(), list(decoder.parameters()))
    return torch.cat([part.flatten() for part in grads])


def scores(decoder, context, symbols, space):
    """``[R]`` of ``symbols [R, T]`` of one sentence; after EOS nothing is added."""
    local = local_scores(decoder, context.expand(len(symbols), -1, -1), symbols, space.score_normalizer)
    return torch.where(symbols == space.padding, 0.0, local).sum(1)


@NORMALIZERS
@SHIFTS
@IN_EACH_SPACE
def test_a_beam_of_all_gives_the_loss_of_the_globally_normalised_model(space, normalizer, shift):
    decoder, context, _, _ = problem(1, shift, batch=1)
    space = replace(space, score_normalizer=normalizer)
    every = torch.tensor(every_hypothesis(space))
    for number in (len(every) // 3, len(every) - 1):
        all_scores = scores(decoder, context, every, space)
        expected = all_scores.logsumexp(0) - all_scores[number]
        gold = every[number : number + 1]
        found = loss_of(decoder, context, gold, torch.tensor([STEPS]), EVERYTHING, space)
        torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=1e-9)
        grads = gradient(found, decoder), gradient(expected, decoder)
        torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-9)


def test_log_probabilities_of_labels_are_normalised_already():
    decoder, context, _, _ = problem(2, batch=1)
    decoder.out.bias.data[0] = -1e3  # of the vocabulary, only what may be emitted has any probability
    gold = torch.tensor([[1, 4, 2]])
    found = loss_of(decoder, context, gold, torch.tensor([STEPS]), EVERYTHING, TAGS)
    torch.testing.assert_close(found, -decoder.sequence_scores(context, gold).sum(1))


def one_by_one(decoder, context, gold, length, beam_size, space, early):
    """The loss of one sentence, from the definition: lists of prefixes, sorted."""
    beam, reference = [()], tuple(gold.tolist())
    for t in range(length):
        candidates = []
        for prefix in beam:
            if EOS in prefix and space.eos is not None:
                candidates.append((*prefix, PAD))
                continue
            words = [s for s in space.symbols.tolist() if space.eos is None or s != PAD]
            candidates += [(*prefix, symbol) for symbol in words]
        ranking = scores(decoder, context, torch.tensor(candidates), space)
        beam = [candidates[i] for i in ranking.argsort(descending=True)[:beam_size].tolist()]
        if early and reference[: t + 1] not in beam:
            break
    steps = len(beam[0])
    others = [prefix for prefix in beam if prefix != reference[:steps]]
    every = torch.tensor([reference[:steps], *others])
    return -scores(decoder, context, every, space).log_softmax(0)[0], steps


sequences = st.tuples(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([0.0, 0.4, 1.0]))


@IN_EACH_SPACE
@pytest.mark.parametrize("early", [True, False])
@settings(max_examples=15, deadline=None)
@given(sequences, st.data())
def test_equals_one_sentence_at_a_time_from_the_definition(space, early, numbers, data):
    seed, beam_size, normalizer = numbers
    decoder, context, _, _ = problem(seed, batch=3, steps=4)
    space = replace(space, score_normalizer=normalizer)
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, 4), min_size=3, max_size=3)))
    gold = torch.full((3, 4), PAD)
    for b, length in enumerate(lengths.tolist()):
        size = length if space.eos is None else data.draw(st.integers(0, length - 1))
        gold[b, :size] = torch.tensor(
            data.draw(st.lists(st.integers(3, V - 1), min_size=size, max_size=size))
        )
        if space.eos is not None:
            gold[b, size] = EOS
    found = loss_of(decoder, context, gold, lengths, beam_size, space, early)
    for b, length in enumerate(lengths.tolist()):
        reference = gold[b, :length]
        expected, _ = one_by_one(decoder, context[b : b + 1], reference, length, beam_size, space, early)
        torch.testing.assert_close(found[b], expected, rtol=1e-9, atol=1e-9)


def test_some_references_fall_off_early_and_some_do_not():
    """The test above sees both."""
    stopped = set()
    for seed in range(10):
        decoder, context, _, _ = problem(seed, batch=1)
        best = hard_beam(decoder, decoder.init_state(context), torch.tensor([STEPS]), 2, TAGS).symbols[0]
        for gold in (best[1:2], (best[:1] % (V - 1)) + 1):
            _, steps = one_by_one(decoder, context, gold[0], STEPS, 2, TAGS, True)
            stopped.add(steps < STEPS)
    assert stopped == {True, False}


def test_a_reference_that_leads_by_far_costs_nothing():
    decoder, context, _, _ = problem(3, batch=1)
    best = hard_beam(decoder, decoder.init_state(context), torch.tensor([STEPS]), 1, TAGS).symbols[:, 0]
    found = loss_of(decoder, context, best, torch.tensor([STEPS]), 1, TAGS)
    assert found.item() == 0.0 and (gradient(found, decoder) == 0).all()


@IN_EACH_SPACE
def test_an_empty_sentence_costs_nothing(space):
    decoder, context, _, _ = problem(4, batch=2)
    gold = torch.tensor([[3, EOS, PAD], [PAD, PAD, PAD]])
    found = loss_of(decoder, context, gold, torch.tensor([2, 0]), 2, space)
    assert found[1].item() == 0.0 and found[0].item() > 0.0
    alone = loss_of(decoder, context[1:], gold[1:], torch.tensor([0]), 2, space)
    assert alone.item() == 0.0


def test_half_precision_is_scored_in_float32():
    decoder, context, _, _ = problem(5, dtype=torch.bfloat16)
    gold = torch.randint(1, V, (4, STEPS), generator=torch.Generator().manual_seed(0))
    found = loss_of(decoder, context, gold, torch.full((4,), STEPS), 3, replace(ENDING, score_normalizer=0.0))
    assert found.dtype == torch.float32 and found.isfinite().all()
