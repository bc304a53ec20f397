"""Alone = in company: what a search makes of a sentence does not depend on the sentences beside it.

Every search, in training and in decoding: beside shorter, longer and empty sentences, in any order, in
batches of any size, on one and on two threads.
"""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_decoder import ToyDecoder

from diffdecode.categorical import TOP_K_OPERATORS
from diffdecode.sequence import (
    HammingCost,
    OwnWord,
    SearchSpace,
    SoftBeamOptions,
    contrast,
    fused_scheduled_sampling,
    global_loss,
    hard_beam,
    relaxed_decode,
    score_stepwise,
    soft_beam,
    soft_beam_decode,
    truncated_soft_beam,
    two_pass_decode,
)

V, EOS, PAD = 8, 1, 2
SPACES = {
    "tagging": SearchSpace(torch.arange(1, V)),
    "ending": SearchSpace(torch.arange(1, V), EOS, PAD),
    "ending, not normalised": SearchSpace(torch.arange(1, V), EOS, PAD, score_normalizer=0.3),
}
OWN_WORDS = {
    "soft": OwnWord("soft", 0.5),
    "argmax_st": OwnWord("argmax_st", 2.0),
    "argmax": OwnWord("argmax"),
}


class Batch:
    """Sentences side by side: what is beyond the end of one is noise, which must not matter."""

    def __init__(self, seed: int, lengths: list[int], extra_steps: int, eos_bias: float):
        generator = torch.Generator().manual_seed(seed)
        self.decoder = ToyDecoder(V, seed=seed).double()
        self.decoder.out.bias.data[EOS] += eos_bias
        self.extra_steps = extra_steps
        longest = max(lengths) + extra_steps
        shape = len(lengths), max(longest, 1)
        self.contexts = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
        self.gold = torch.randint(3, V, shape, generator=generator)
        self.lengths = torch.tensor(lengths)

    def rows(self, order: list[int]):
        """Contexts (with gradient), padded gold and steps of these sentences, no longer than they need."""
        steps = self.lengths[order] + (self.lengths[order] > 0) * self.extra_steps
        size = max(int(steps.max()), 1)
        contexts = self.contexts[order, :size].clone().requires_grad_()
        inside = torch.arange(size) < self.lengths[order, None]
        return contexts, self.gold[order, :size].masked_fill(~inside, PAD), steps


def dense(batch, contexts, gold, steps, space, options, _):
    found = soft_beam(
        batch.decoder, batch.decoder.init_state(contexts), steps, space, options, HammingCost(gold, PAD)
    )
    return found.direct_loss() + 0.1 * found.max_score(), [found.scores, found.costs, found.words]


def truncated(batch, contexts, gold, steps, space, options, _):
    state, cost = batch.decoder.init_state(contexts), HammingCost(gold, PAD)
    found = truncated_soft_beam(batch.decoder, state, steps, space, options, cost, size=6, tolerance=0.5)
    return found.direct_loss() + 0.1 * found.max_score(), [found.scores, found.costs, found.words, found.tail]


def uncounted(batch, contexts, gold, steps, space, options, _):
    """The soft search of decoding: without costs, it stops early."""
    found = soft_beam(batch.decoder, batch.decoder.init_state(contexts), steps, space, options)
    return found.max_score(), [found.scores, found.words]


def relaxed(batch, contexts, gold, steps, space, options, own):
    log_probs = relaxed_decode(batch.decoder, batch.decoder.init_state(contexts), gold, own)
    return scored(log_probs.gather(2, gold[..., None])[..., 0], steps)


def fused(batch, contexts, gold, steps, space, options, own):
    state = batch.decoder.init_state(contexts)
    found = fused_scheduled_sampling(batch.decoder, state, gold, steps, own, m=4, tolerance=0.2)
    return scored(found.gold_log_probs, steps)


def two_pass(batch, contexts, gold, steps, space, options, own):
    decoder = batch.decoder

    def run(inputs):
        state, outputs = decoder.init_state(contexts), []
        for t in range(inputs.size(1)):
            log_probs, state = decoder.step(state, inputs[:, t])
            outputs.append(log_probs)
        return torch.stack(outputs, 1)

    log_probs = two_pass_decode(run, decoder.embedding, decoder.start, gold, own)
    return scored(log_probs.gather(2, gold[..., None])[..., 0], steps)


def scored(gold_log_probs, steps):
    """Losses and scores, of the words inside the sentences."""
    inside = torch.arange(gold_log_probs.size(1)) < steps[:, None]
    scores = gold_log_probs * inside
    return -scores.sum(1), [scores.sum(1)]


def globally_normalised(batch, contexts, gold, steps, space, early):
    decoder, state = batch.decoder, batch.decoder.init_state(contexts)
    found = contrast(decoder, state, gold, steps, 3, space, early)
    return global_loss(found, partial(score_stepwise, decoder, state), space), []


SOFT_BEAMS = {"dense": dense, "truncated": truncated, "uncounted": uncounted}
SAMPLING = {"relaxed": relaxed, "fused": fused, "two_pass": two_pass}


def trained(search, batch, order, space, options, own):
    """What training sees of each sentence: results, gradients of its context; and of the parameters."""
    contexts, gold, steps = batch.rows(order)
    losses, results = search(batch, contexts, gold, steps, space, options, own)
    variables = [contexts, *batch.decoder.parameters()]
    if losses.requires_grad:
        grads = torch.autograd.grad(losses.sum(), variables, allow_unused=True)
    else:
        grads = [None] * len(variables)
    grads = [torch.zeros_like(v) if g is None else g for v, g in zip(variables, grads)]
    size = batch.contexts.size(1)
    by_context = torch.nn.functional.pad(grads[0], (0, 0, 0, size - grads[0].size(1)))
    return [losses.detach(), *(r.detach() for r in results), by_context], grads[1:]


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def same(found, expected):
    """Equal but for the order of sums; a batch of empty sentences does not know the decoder's type."""
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8, check_dtype=False)


def assert_alone_is_in_company(run, count, seed):
    """``run(order)`` gives per-sentence tensors and totals; ``count`` sentences."""
    alone = [run([b]) for b in range(count)]
    totals = [sum(parts) for parts in zip(*(total for _, total in alone))]
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    for number, batches in enumerate(([shuffled], [shuffled[:2], shuffled[2:]])):
        with threads(1 + number % 2):
            together = [(order, *run(order)) for order in batches if order]
        for order, results, _ in together:
            for place, b in enumerate(order):
                for mine, expected in zip(results, alone[b][0], strict=True):
                    same(mine[place], expected[0])
        summed = [sum(parts) for parts in zip(*(total for *_, total in together))]
        for mine, expected in zip(summed, totals, strict=True):
            same(mine, expected)


alphas = st.sampled_from([0.05, 1.0, 30.0])
operators = st.sampled_from(list(TOP_K_OPERATORS))
problems = st.tuples(
    st.integers(0, 10**6),
    st.lists(st.integers(0, 4), min_size=2, max_size=3).filter(any),
    st.sampled_from([0, 2]),
    st.sampled_from([0.0, 4.0, 40.0]),
)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("search", SOFT_BEAMS)
@settings(max_examples=3, deadline=None)
@given(problems, operators, alphas, st.booleans(), st.sampled_from([0.0, 0.7]))
def test_soft_beams_in_training(search, space, problem, operator, alpha, hard_forward, cost_weight):
    batch = Batch(*problem)
    options = SoftBeamOptions(
        3, alpha, operator, hard_forward, cost_weight, recompute=0.0, length_penalty=1.0
    )

    def run(order):
        return trained(SOFT_BEAMS[search], batch, order, SPACES[space], options, None)

    assert_alone_is_in_company(run, len(batch.lengths), problem[0])


@pytest.mark.parametrize("own", OWN_WORDS)
@pytest.mark.parametrize("search", SAMPLING)
@settings(max_examples=2, deadline=None)
@given(problems)
def test_scheduled_sampling(search, own, problem):
    batch = Batch(*problem)

    def run(order):
        return trained(SAMPLING[search], batch, order, None, None, OWN_WORDS[own])

    assert_alone_is_in_company(run, len(batch.lengths), problem[0])


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("space", SPACES)
@settings(max_examples=3, deadline=None)
@given(problems)
def test_global_loss(space, early, problem):
    batch = Batch(*problem)

    def search(batch, contexts, gold, steps, space, *_):
        return globally_normalised(batch, contexts, gold, steps, space, early)

    def run(order):
        return trained(search, batch, order, SPACES[space], None, None)

    assert_alone_is_in_company(run, len(batch.lengths), problem[0])


def hypotheses(found):
    """Words, scores and growth of each hypothesis, without what a batch mate's length adds."""
    words = [[[s for s in row if s not in (-1, PAD)] for row in beam] for beam in found.symbols.tolist()]
    return words, found.scores, found.step_scores.sum(2), found.costs


def decoders(space, options, gold):
    def soft(decoder, state, steps):
        return soft_beam_decode(decoder, state, steps, space, options)

    def hard(decoder, state, steps):
        return hard_beam(decoder, state, steps, 3, space)

    def augmented(decoder, state, steps):
        return hard_beam(decoder, state, steps, 3, space, HammingCost(gold, PAD), 0.7)

    return {"soft": soft, "hard": hard, "augmented": augmented}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("search", ["soft", "hard", "augmented"])
@settings(max_examples=6, deadline=None)
@given(problems, alphas, operators)
def test_decoding(search, space, problem, alpha, operator):
    batch = Batch(*problem)
    options = SoftBeamOptions(3, alpha, operator)

    def run(order):
        contexts, gold, steps = batch.rows(order)
        decode = decoders(SPACES[space], options, gold)[search]
        return hypotheses(decode(batch.decoder, batch.decoder.init_state(contexts), steps))

    count = len(batch.lengths)
    alone = [run([b]) for b in range(count)]
    for number, order in enumerate((list(range(count)), list(reversed(range(count))))):
        with threads(1 + number):
            words, *numbers = run(order)
        for place, b in enumerate(order):
            k = alone[b][1].size(1)
            assert words[place][:k] == alone[b][0][0]
            for mine, expected in zip(numbers, alone[b][1:], strict=True):
                same(mine[place, :k], expected[0])
            assert (numbers[0][place, k:] == -torch.inf).all()


def test_a_finished_sentence_is_held():
    """Every hypothesis of the first sentence ends at once; the second takes 20 steps. Nothing mixes on."""
    decoder = ToyDecoder(V, seed=0).double()
    decoder.out.bias.data[EOS] += 60.0
    contexts = torch.zeros(2, 20, 3, dtype=torch.float64)
    space, options = SPACES["ending"], SoftBeamOptions(3, 1.0, "softsort")
    cost = HammingCost(torch.full((2, 20), 5), PAD)
    steps = torch.tensor([2, 20])
    found = soft_beam(decoder, decoder.init_state(contexts), steps, space, options, cost)
    start = soft_beam(decoder, decoder.init_state(contexts), torch.tensor([2, 2]), space, options, cost)
    torch.testing.assert_close(found.scores, start.scores)
    # One missing word costs 1 at each of the 18 other steps, the same for each element.
    torch.testing.assert_close(found.costs - start.costs, torch.tensor([[0.0], [18.0]]).double().expand(2, 3))


@pytest.mark.parametrize("space", SPACES)
def test_a_batch_of_nothing(space):
    """Only empty sentences, and no sentence at all."""
    decoder = ToyDecoder(V, seed=0).double()
    for count in (2, 0):
        state = decoder.init_state(torch.zeros(count, 1, 3, dtype=torch.float64))
        lengths = torch.zeros(count, dtype=torch.long)
        soft = soft_beam(decoder, state, lengths, SPACES[space], SoftBeamOptions(3))
        assert soft.scores.shape == (count, 3)
        assert (soft.direct_loss() == 0).all()
        for found in (
            soft_beam_decode(decoder, state, lengths, SPACES[space], SoftBeamOptions(3)),
            hard_beam(decoder, state, lengths, 3, SPACES[space]),
        ):
            assert found.symbols.size(0) == count and found.symbols.size(2) == 0
            assert (found.scores[:, 0] == 0).all()
