"""Relaxed decoding: teacher forcing at one end, hard rollouts at the other, differentiable between."""

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_decoder import ToyDecoder

from diffdecode.categorical import ESTIMATORS
from diffdecode.sequence import (
    OwnWord,
    gold_coins,
    relaxed_decode,
    relaxed_rollout,
    two_pass_decode,
)

NAMES = [name for name, estimator in ESTIMATORS.items() if not estimator.index_has_k]


def problem(seed, batch=4, steps=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    decoder = ToyDecoder(6, seed=seed).to(dtype)
    context = torch.randn(batch, steps, 3, generator=generator).to(dtype)
    gold = torch.randint(1, 6, (batch, steps), generator=generator)
    return decoder, context, gold


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gold_log_probs(log_probs, gold):
    return log_probs.gather(2, gold[..., None])[..., 0]


def gradients(loss, decoder):
    decoder.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in decoder.parameters()]


@pytest.mark.parametrize("estimator", NAMES)
def test_gold_only_is_teacher_forcing_exactly(estimator):
    decoder, context, gold = problem(0, dtype=torch.float32)
    forced = decoder.sequence_scores(context, gold)
    expected = gradients(-forced.sum(), decoder)
    found = gold_log_probs(
        relaxed_decode(decoder, decoder.init_state(context), gold, OwnWord(estimator), 1.0, generator()), gold
    )
    assert torch.equal(found, forced)
    for a, b in zip(gradients(-found.sum(), decoder), expected):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def hard_rollout(decoder, context, steps):
    """Greedy decoding, written down once more: ids ``[B, T]`` and log-probabilities ``[B, T, V]``."""
    state, vectors = decoder.init_state(context), decoder.embedding[decoder.start].expand(len(context), -1)
    ids, outputs = [], []
    for _ in range(steps):
        log_probs, state = decoder.step(state, vectors)
        ids.append(log_probs.argmax(1))
        outputs.append(log_probs)
        vectors = decoder.embedding[ids[-1]]
    return torch.stack(ids, 1), torch.stack(outputs, 1)


@settings(max_examples=cases(15, 80), deadline=None)
@given(st.integers(0, 10**6))
def test_soft_argmax_becomes_the_hard_rollout(seed):
    decoder, context, _ = problem(seed)
    ids, expected = hard_rollout(decoder, context, 5)
    best = expected.topk(2, dim=2).values
    if (best[..., 0] - best[..., 1]).min() < 1e-4:  # a near tie needs a larger alpha still
        return
    for own in (OwnWord("soft", tau=1e-6), OwnWord("argmax"), OwnWord("argmax_st")):
        found = relaxed_rollout(decoder, decoder.init_state(context), 4, 5, own)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
        assert torch.equal(found.argmax(2), ids)


def test_never_gold_does_not_look_at_gold():
    decoder, context, gold = problem(3)
    runs = [
        relaxed_decode(decoder, decoder.init_state(context), words, OwnWord("soft", 0.5), 0.0)
        for words in (gold, torch.zeros_like(gold))
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize("estimator", NAMES)
@pytest.mark.parametrize("tau", [1e-6, 1.0, 1e3])
def test_every_method_is_finite(estimator, tau):
    decoder, context, gold = problem(1, dtype=torch.float32)
    own = OwnWord(estimator, None if estimator in ("argmax", "sample") else tau)
    log_probs = relaxed_decode(decoder, decoder.init_state(context), gold, own, 0.3, generator())
    loss = -gold_log_probs(log_probs, gold).sum()
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(loss, decoder))


@pytest.mark.parametrize("gold_probability", [0.0, 0.5])
@pytest.mark.parametrize("estimator", ["soft", "gumbel_soft"])
def test_gradient_equals_finite_differences(estimator, gold_probability):
    decoder, context, gold = problem(2)

    def loss():
        state = decoder.init_state(context)
        own = OwnWord(estimator, tau=0.5)
        log_probs = relaxed_decode(decoder, state, gold, own, gold_probability, generator(5))
        return -gold_log_probs(log_probs, gold).sum()

    found = gradients(loss(), decoder)
    direction = [torch.randn(p.shape, generator=generator(9), dtype=p.dtype) for p in decoder.parameters()]
    values = []
    for sign in (1, -1):
        for parameter, step in zip(decoder.parameters(), direction):
            parameter.data.add_(step, alpha=sign * 1e-6)
        values.append(loss().item())
        for parameter, step in zip(decoder.parameters(), direction):
            parameter.data.sub_(step, alpha=sign * 1e-6)
    slope = sum((gradient * step).sum().item() for gradient, step in zip(found, direction))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("estimator", ["argmax", "sample"])
def test_hard_words_pass_no_gradient_but_soft_ones_do(estimator):
    """The loss of the last step alone: through hard words it does not see the first step's output layer."""
    decoder, context, gold = problem(4, steps=2)
    for name, expected in ((estimator, True), ("soft", False)):
        state, captured = decoder.init_state(context), []
        step = decoder.step

        def spy(state, vectors, step=step, captured=captured):
            log_probs, state = step(state, vectors)
            log_probs.retain_grad()
            captured.append(log_probs)
            return log_probs, state

        decoder.step = spy
        log_probs = relaxed_decode(decoder, state, gold, OwnWord(name), 0.0, generator())
        decoder.step = step
        log_probs[:, 1].square().sum().backward()
        assert (captured[0].grad is None or bool((captured[0].grad == 0).all())) == expected


def test_forbidden_words_are_never_fed():
    decoder, context, gold = problem(5)
    allowed = torch.tensor([False, True, True, False, True, True])
    for estimator in NAMES:
        decoder.zero_grad()
        log_probs = relaxed_decode(
            decoder, decoder.init_state(context), gold, OwnWord(estimator, allowed=allowed), 0.0, generator()
        )
        gold_log_probs(log_probs, gold).sum().backward()
        assert (decoder.embed.weight.grad[3] == 0).all()  # 0 is the start symbol
        assert decoder.embed.weight.grad[allowed].abs().sum() > 0


def test_samples_follow_the_distribution():
    log_probs = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, -1)
    picked = OwnWord("sample").vectors(log_probs, torch.eye(3), generator())
    torch.testing.assert_close(picked.mean(0), torch.tensor([0.5, 0.3, 0.2]), atol=0.012, rtol=0)


def test_coins_are_per_word_and_at_the_rate():
    coins = gold_coins(torch.zeros(200, 101, dtype=torch.long), 0.3, generator())
    assert coins.shape == (200, 100)
    assert coins.float().mean().item() == pytest.approx(0.3, abs=0.015)
    assert coins.float().mean(1).std() > 0.03  # not one coin a sentence, not one a step
    assert coins.float().mean(0).std() > 0.02
    assert coins.float().mean(1).std() < 0.1 and coins.float().mean(0).std() < 0.1


def test_a_seed_repeats_and_another_does_not():
    decoder, context, gold = problem(6)
    runs = [
        relaxed_decode(decoder, decoder.init_state(context), gold, OwnWord("sample"), 0.5, generator(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def parallel(decoder, context):
    """The toy decoder as a function of all inputs at once."""

    def run(vectors):
        state, outputs = decoder.init_state(context), []
        for t in range(vectors.size(1)):
            log_probs, state = decoder.step(state, vectors[:, t])
            outputs.append(log_probs)
        return torch.stack(outputs, 1)

    return run


@pytest.mark.parametrize("estimator", ["soft", "argmax", "reinmax"])
def test_two_passes_with_gold_only_are_teacher_forcing(estimator):
    decoder, context, gold = problem(7)
    found = two_pass_decode(
        parallel(decoder, context), decoder.embedding, decoder.start, gold, OwnWord(estimator), 1.0
    )
    assert torch.equal(gold_log_probs(found, gold), decoder.sequence_scores(context, gold))


@pytest.mark.parametrize("gold_probability", [0.0, 0.6])
@pytest.mark.parametrize("estimator", ["soft", "argmax"])
def test_two_passes_equal_single_steps_over_two_words(estimator, gold_probability):
    """Over two words the own word cannot depend on an own word: both modes must agree, gradients as well."""
    decoder, context, gold = problem(8, batch=9, steps=2)
    own = OwnWord(estimator)
    runs = (
        relaxed_decode(decoder, decoder.init_state(context), gold, own, gold_probability, generator(3)),
        two_pass_decode(
            parallel(decoder, context), decoder.embedding, 0, gold, own, gold_probability, generator(3)
        ),
    )
    torch.testing.assert_close(*runs)
    for a, b in zip(*(gradients(run.square().sum(), decoder) for run in runs)):
        torch.testing.assert_close(a, b)


def test_two_passes_use_the_teacher_forced_words():
    decoder, context, gold = problem(10)
    run = parallel(decoder, context)
    forced = run(decoder.embedding[torch.cat([torch.zeros_like(gold[:, :1]), gold[:, :-1]], 1)])
    own = decoder.embedding[forced[:, :-1].argmax(2)]
    start = decoder.embedding[decoder.start].expand(len(gold), 1, -1)
    expected = run(torch.cat([start, own], 1))
    found = two_pass_decode(run, decoder.embedding, decoder.start, gold, OwnWord("argmax"), 0.0)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("gold_probability", [0.0, 0.5, 1.0])
def test_no_sentence_at_all(gold_probability):
    decoder, context, gold = problem(0, batch=0)
    state = decoder.init_state(context)
    assert relaxed_decode(decoder, state, gold, OwnWord(), gold_probability).shape == (0, 5, 6)


def test_errors_name_the_problem():
    decoder, context, gold = problem(0)
    with pytest.raises(ValueError, match=r"unknown gradient estimator 'hardest'; known: .*argmax"):
        OwnWord("hardest")
    with pytest.raises(ValueError, match="reinmax_loo"):
        OwnWord("reinmax_loo")
    with pytest.raises(ValueError, match="'argmax' has no temperature"):
        OwnWord("argmax", tau=0.5)
    with pytest.raises(ValueError, match=r"gold probability 1\.5"):
        relaxed_decode(decoder, decoder.init_state(context), gold, OwnWord(), 1.5)
