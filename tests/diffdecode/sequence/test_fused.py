"""The fused step against plain autograd: same values, same gradients, and when it has to give up."""

import math

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_decoder import ToyDecoder

from diffdecode.categorical import ESTIMATORS
from diffdecode.categorical.estimators import draws
from diffdecode.sequence import (
    OutputLayer,
    OwnWord,
    Prediction,
    fused_scheduled_sampling,
    output_layer,
    relaxed_decode,
)
from diffdecode.sequence.best_candidates import best_candidates
from diffdecode.sequence.few_rows import FEW, FewRows
from diffdecode.sequence.race import race
from diffdecode.sequence.scheduled_sampling.fused import (
    choose_among_best,
    discarded_mass,
)

V = 40


def problem(seed, batch=4, steps=5, dtype=torch.float64, vocabulary=V, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    decoder = ToyDecoder(vocabulary, width=7, scale=scale, seed=seed).to(dtype)
    context = torch.randn(batch, steps, 3, generator=generator).to(dtype).requires_grad_()
    gold = torch.randint(1, vocabulary, (batch, steps), generator=generator)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    return decoder, context, gold, lengths


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gradients(loss, decoder, context):
    return torch.autograd.grad(loss, [*decoder.parameters(), context])


def plain(decoder, context, gold, own, gold_probability, seed=0):
    state = decoder.init_state(context)
    log_probs = relaxed_decode(decoder, state, gold, own, gold_probability, generator(seed))
    return log_probs.gather(2, gold[..., None])[..., 0]


def fused(decoder, context, gold, lengths, own, gold_probability, seed=0, **options):
    state = decoder.init_state(context)
    return fused_scheduled_sampling(
        decoder, state, gold, lengths, own, gold_probability, generator(seed), **options
    )


def assert_same_gradients(found, expected, relative):
    for a, b in zip(found, expected):
        assert (a - b).abs().max() <= relative * max(float(b.abs().max()), 1e-12)


@pytest.mark.parametrize("estimator", ["soft", "argmax", "argmax_st"])
@pytest.mark.parametrize("gold_probability", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype, relative", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_all_candidates_kept_is_plain_autograd(estimator, gold_probability, dtype, relative):
    decoder, context, gold, lengths = problem(1, dtype=dtype)
    own = OwnWord(estimator, None if estimator == "argmax" else 0.7)
    expected = plain(decoder, context, gold, own, gold_probability)
    found = fused(decoder, context, gold, lengths, own, gold_probability, m=V)
    assert not found.fell_back.any() and (found.discarded == 0).all()
    torch.testing.assert_close(found.gold_log_probs, expected, rtol=relative, atol=relative)
    weights = torch.randn(gold.shape, generator=generator(7), dtype=dtype)
    assert_same_gradients(
        gradients((found.gold_log_probs * weights).sum(), decoder, context),
        gradients((expected * weights).sum(), decoder, context),
        relative * 10,
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("estimator", ["soft", "argmax_st"])
def test_truncated_gradients_equal_plain_autograd_to_1e_6(seed, estimator):
    """With a discarded mass below 1e-8, 8 of 40 candidates give the gradient of all."""
    decoder, context, gold, lengths = problem(seed, scale=4.0)
    own = OwnWord(estimator, tau=0.02)
    found = fused(decoder, context, gold, lengths.fill_(5), own, 0.3, m=8, tolerance=1.0)
    expected = plain(decoder, context, gold, own, 0.3)
    if found.discarded.max() > 1e-8:
        pytest.skip("a near tie at the cut")
    torch.testing.assert_close(found.gold_log_probs, expected, rtol=1e-6, atol=0)
    assert_same_gradients(
        gradients(found.gold_log_probs.sum(), decoder, context),
        gradients(expected.sum(), decoder, context),
        1e-6,
    )


def test_gold_only_is_teacher_forced_cross_entropy():
    decoder, context, gold, lengths = problem(2)
    expected = decoder.sequence_scores(context, gold)
    found = fused(decoder, context, gold, lengths, OwnWord("soft"), 1.0)
    torch.testing.assert_close(found.gold_log_probs, expected, rtol=1e-13, atol=1e-13)
    assert (found.discarded == 0).all() and not found.fell_back.any()
    assert_same_gradients(
        gradients(found.gold_log_probs.sum(), decoder, context),
        gradients(expected.sum(), decoder, context),
        1e-12,
    )


def test_sentences_with_too_much_discarded_mass_fall_back_to_all_candidates():
    decoder, context, gold, lengths = problem(3)
    own = OwnWord("soft", tau=2.0)
    found = fused(decoder, context, gold, lengths, own, 0.5, m=4)
    redone = found.fell_back
    assert redone.tolist() == (found.discarded.amax(1) > 1e-3).tolist() == [False, True, False, True]
    expected = plain(decoder, context, gold, own, 0.5)  # the same coins, too
    accepted = fused(decoder, context, gold, lengths, own, 0.5, m=4, tolerance=1.0)
    assert not accepted.fell_back.any()
    assert torch.equal(found.gold_log_probs[redone], expected[redone])
    assert torch.equal(found.gold_log_probs[~redone], accepted.gold_log_probs[~redone])
    every = fused(decoder, context, gold, torch.full((4,), 5), own, 0.0, m=4)
    assert every.fell_back.all()
    assert torch.equal(every.gold_log_probs, plain(decoder, context, gold, own, 0.0))


def test_only_words_that_are_fed_count_as_discarded():
    decoder, context, gold, _ = problem(4)
    lengths = torch.tensor([1, 2, 3, 5])
    found = fused(decoder, context, gold, lengths, OwnWord("soft", 2.0), 0.0, m=4, tolerance=1.0)
    fed = torch.arange(5)[None] + 1 < lengths[:, None]
    assert (found.discarded[fed] > 0).all()
    assert (found.discarded[~fed] == 0).all()


@settings(max_examples=cases(75, 600), deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0.1, 20.0), st.floats(0.2, 8.0))
def test_discarded_mass_is_an_upper_bound(seed, m, alpha, spread):
    log_probs = (spread * torch.randn(5, 30, generator=generator(seed), dtype=torch.float64)).log_softmax(1)
    best, symbols = best_candidates(log_probs, m)
    rest = 1 - best.exp().sum(1)
    found = Prediction(best, symbols, rest.clamp_min(1e-15), 30 - m, None, torch.zeros(5), best[:, -1])
    true = 1 - (alpha * log_probs).softmax(1).gather(1, symbols).sum(1)
    bound = discarded_mass(found, OwnWord("soft", tau=1 / alpha))
    assert (bound >= true - 1e-9).all()
    assert (bound <= 1).all()
    exact = discarded_mass(found, OwnWord("soft", tau=1.0))
    torch.testing.assert_close(exact, rest, atol=1e-9, rtol=1e-9)


def raced(m, arrivals, rows=20_000):
    """Words shown in a race among five, of which the one that is most probable is banned."""
    log_probs = torch.tensor([0.3, 0.15, 0.25, 0.2, 0.1]).log()
    decoder = ToyDecoder(5, width=1)
    decoder.out.weight.data.zero_()
    decoder.out.bias.data = log_probs
    with torch.no_grad():
        layer = OutputLayer(decoder, rows, banned=torch.tensor([0]))
        return layer.predict(torch.zeros(rows, 1), m, None, arrivals, generator())


@pytest.mark.parametrize("estimator", ["sample", "st", "st_gumbel", "reinmax"])
@pytest.mark.parametrize("m, arrivals", [(1, 1), (2, 1), (4, 1)])
def test_a_word_is_drawn_among_all_words(estimator, m, arrivals):
    found = raced(m, arrivals)
    chosen = choose_among_best(found, OwnWord(estimator), generator(1)).argmax(1, keepdim=True)
    frequency = torch.bincount(found.symbols.gather(1, chosen)[:, 0], minlength=5) / len(chosen)
    expected = torch.tensor([0.0, 0.15, 0.25, 0.2, 0.1]) / 0.7
    torch.testing.assert_close(frequency, expected, atol=0.012, rtol=0)


def test_a_race_is_gumbel_noise_on_all_scores():
    """The three fastest of four, in order, and the time of the third are as in a race drawn in full."""
    found = raced(m=1, arrivals=3)
    assert found.outside == 0
    times = (found.noise.log() - found.best).sort(1)
    order = found.symbols.gather(1, times.indices)[:, :3]
    full = torch.empty(20_000, 4, dtype=torch.float64).exponential_(generator=generator(2)).log()
    full = (full - torch.tensor([0.15, 0.25, 0.2, 0.1]).double().log()).sort(1)
    expected = full.indices[:, :3] + 1

    def frequencies(orders):
        return torch.bincount(orders @ torch.tensor([25, 5, 1]), minlength=125) / len(orders)

    torch.testing.assert_close(frequencies(order), frequencies(expected), atol=0.012, rtol=0)
    share = torch.linspace(0.05, 0.95, 10)
    one, other = (values[:, 2].float().quantile(share) for values in (times.values, full.values))
    torch.testing.assert_close(one, other, atol=0.06, rtol=0)


def test_a_race_leaves_the_weights_as_they_were():
    weights = torch.rand(4, 11, generator=generator(), dtype=torch.float64)
    weights[0, 3:], weights[1] = 0.0, 0.0
    before = weights.clone()
    best = weights.topk(2).indices
    found = race(weights, best, 9, generator())
    assert torch.equal(weights, before)
    assert found.rest.abs().max() == 0  # nobody is left
    assert found.noise[0].isinf().sum() == 8 and found.noise[2:].isfinite().all()
    for row in torch.cat([best, found.symbols], 1)[2:].tolist():
        assert sorted(row) == list(range(11))
    partly = race(weights, best, 3, generator())
    shown = torch.cat([best, partly.symbols], 1)[2:]
    left = before[2:].sum(1) - before[2:].gather(1, shown).sum(1)
    torch.testing.assert_close(partly.rest[2:], left)


def test_later_arrivals_are_expected_to_weigh_no_more_than_the_bound():
    log_probs = torch.randn(40, generator=generator(), dtype=torch.float64).log_softmax(0)
    weights, own = log_probs.exp().repeat(4000, 1), OwnWord("gumbel_soft", tau=0.4)
    best = weights.topk(4).indices
    found = race(weights, best, 3, generator())
    symbols = torch.cat([best, found.symbols], 1)
    nothing = torch.zeros(4000, dtype=torch.float64)
    shown = Prediction(
        log_probs[symbols], symbols, found.rest, 33, None, nothing, nothing, found.noise, found.last
    )
    clocks = torch.empty_like(weights).exponential_(generator=generator(3))
    times = (found.last[:, None] + clocks / weights).scatter(1, symbols, math.inf)  # no memory
    kept = ((log_probs[symbols].exp() / found.noise) ** 2.5).sum(1)
    later = (times**-2.5).sum(1)
    assert 0 < (later / (later + kept)).mean() <= discarded_mass(shown, own).mean()
    assert (discarded_mass(shown, OwnWord("gumbel_soft", tau=1.0)) == 1).all()


@pytest.mark.parametrize("estimator", ["gumbel_soft", "st_gumbel", "reinmax", "st"])
def test_all_candidates_kept_and_the_same_draws_are_plain_autograd(estimator, monkeypatch):
    """With a noise of E = 1 for each word, whatever its place."""
    decoder, context, gold, lengths = problem(17)
    monkeypatch.setattr(draws, "standard_exponential", lambda shape, like, *_: like.new_ones(shape))
    own = OwnWord(estimator, 0.7)
    expected = plain(decoder, context, gold, own, 0.3)
    found = fused(decoder, context, gold, lengths, own, 0.3, m=V)
    torch.testing.assert_close(found.gold_log_probs, expected, rtol=1e-12, atol=1e-12)
    assert_same_gradients(
        gradients(found.gold_log_probs.sum(), decoder, context),
        gradients(expected.sum(), decoder, context),
        1e-11,
    )


@pytest.mark.parametrize("estimator", [name for name, estimator in ESTIMATORS.items() if estimator.fusable])
@pytest.mark.parametrize("tau", [1e-6, 1.0, 1e3])
def test_every_method_is_finite(estimator, tau):
    decoder, context, gold, lengths = problem(6, dtype=torch.float32)
    own = OwnWord(estimator, None if estimator in ("argmax", "sample") else tau)
    found = fused(decoder, context, gold, lengths, own, 0.3, m=8, tolerance=1.0)
    assert found.gold_log_probs.isfinite().all() and found.discarded.isfinite().all()
    for gradient in gradients(-found.gold_log_probs.sum(), decoder, context):
        assert gradient.isfinite().all()


def test_banned_words_are_not_fed_but_count_in_the_loss():
    decoder, context, gold, lengths = problem(7)
    allowed = torch.ones(V, dtype=torch.bool)
    allowed[torch.tensor([0, 3, 17])] = False
    decoder.out.bias.data[3] = 30.0  # by far the best word, were it allowed
    own = OwnWord("soft", 0.5, allowed)
    expected = plain(decoder, context, gold, own, 0.3)
    found = fused(decoder, context, gold, lengths, own, 0.3, m=V - 3)
    torch.testing.assert_close(found.gold_log_probs, expected, rtol=1e-12, atol=1e-12)
    assert_same_gradients(
        gradients(found.gold_log_probs.sum(), decoder, context),
        gradients(expected.sum(), decoder, context),
        1e-11,
    )


class Tied(ToyDecoder):
    """Input and output share one matrix, and the output has no bias."""

    def __init__(self, seed):
        super().__init__(V, width=4, seed=seed)
        self.out = None

    @property
    def output_weight(self):
        return self.embed.weight

    @property
    def output_bias(self):
        return None

    def step(self, state, vectors):
        h, state = self.features(state, vectors)
        return torch.log_softmax(h @ self.embed.weight.t(), -1), state


def test_tied_embeddings_get_both_gradients():
    _, context, gold, lengths = problem(8)
    decoder = Tied(8).double()
    own = OwnWord("soft", 0.7)
    found = fused(decoder, context, gold, lengths, own, 0.3, m=V).gold_log_probs.sum()
    expected = plain(decoder, context, gold, own, 0.3).sum()
    assert_same_gradients(gradients(found, decoder, context), gradients(expected, decoder, context), 1e-12)


def test_steps_outside_the_loss_leave_no_trace():
    """Only some steps' scores enter the loss, so that not every step has a backward pass."""
    decoder, context, gold, lengths = problem(9)
    own = OwnWord("soft", 0.7)
    for kept in (slice(0, 2), slice(3, 4)):
        found = fused(decoder, context, gold, lengths, own, 1.0, m=V).gold_log_probs[:, kept].sum()
        expected = plain(decoder, context, gold, own, 1.0)[:, kept].sum()
        assert_same_gradients(
            gradients(found, decoder, context), gradients(expected, decoder, context), 1e-12
        )


@pytest.mark.parametrize("frozen", ["out", "embed", "cell"])
def test_frozen_parts_get_no_gradient_and_the_others_keep_theirs(frozen):
    decoder, context, gold, lengths = problem(10)
    getattr(decoder, frozen).requires_grad_(False)
    free = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    own = OwnWord("soft", 0.7)
    found = fused(decoder, context, gold, lengths, own, 0.3, m=V).gold_log_probs.sum()
    expected = plain(decoder, context, gold, own, 0.3).sum()
    assert_same_gradients(torch.autograd.grad(found, free), torch.autograd.grad(expected, free), 1e-12)


def test_without_gradient_no_memory_is_kept():
    decoder, context, gold, _ = problem(11)
    with torch.no_grad():
        layer = OutputLayer(decoder, rows=4)
        hidden, _ = decoder.features(decoder.init_state(context), decoder.embedding[gold[:, 0]])
        for _ in range(3):  # more rows than announced do not matter here
            found = layer.predict(hidden, 5, gold[:, 0])
        expected = torch.log_softmax(decoder.out(hidden), -1)
    assert layer.tape.logits is None
    torch.testing.assert_close(found.gold, expected.gather(1, gold[:, :1])[:, 0])
    torch.testing.assert_close(found.best, expected.topk(5).values)
    torch.testing.assert_close(found.rest, 1 - expected.exp().topk(5).values.sum(1))


def test_a_second_backward_pass_is_refused():
    decoder, context, gold, lengths = problem(12)
    loss = fused(decoder, context, gold, lengths, OwnWord("soft"), 1.0).gold_log_probs.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()


def test_huge_and_tiny_logits_are_finite():
    decoder, context, gold, lengths = problem(13, dtype=torch.float32, scale=2000.0)
    found = fused(decoder, context, gold, lengths, OwnWord("soft", 1.0), 0.5, m=4, tolerance=1.0)
    assert found.gold_log_probs.isfinite().all()
    for gradient in gradients(found.gold_log_probs.sum(), decoder, context):
        assert gradient.isfinite().all()


def test_nan_is_reported_and_not_decoded_on():
    decoder, context, gold, lengths = problem(15)
    bad = context.detach().clone()
    bad[2, 0] = torch.nan
    with pytest.raises(ValueError, match="2"):
        fused(decoder, bad, gold, lengths.fill_(5), OwnWord("soft"), 0.0)


def test_errors_name_the_problem():
    decoder, context, gold, lengths = problem(14)
    with pytest.raises(ValueError, match="'gapped_st' cannot be fused; these can: argmax, argmax_st"):
        fused(decoder, context, gold, lengths, OwnWord("gapped_st"), 0.5)
    layer = OutputLayer(decoder, rows=3)
    hidden, _ = decoder.features(decoder.init_state(context), decoder.embedding[gold[:, 0]])
    with pytest.raises(ValueError, match="4 rows, but only 3"):
        layer.predict(hidden, 2)
    with pytest.raises(ValueError, match=f"m=0 must be between 1 and the number of candidates, {V}"):
        layer.predict(hidden, 0)


@settings(max_examples=cases(50, 400), deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3000), st.integers(1, 40))
def test_best_candidates_are_exact(seed, vocabulary, m):
    m = min(m, vocabulary)
    logits = torch.randn(3, vocabulary, generator=generator(seed))
    if seed % 2:
        logits = logits.round(decimals=1)  # ties
    if seed % 3 == 0:
        logits[:, : vocabulary // 2] = -math.inf
    values, symbols = best_candidates(logits, m)
    assert torch.equal(values, logits.topk(m).values)
    assert torch.equal(logits.gather(1, symbols), values)
    assert all(len(set(row.tolist())) == m for row in symbols)


def test_products_with_few_rows_are_ordinary_products():
    weight, bias = torch.randn(700, 9, generator=generator()), torch.randn(700, generator=generator(1))
    for added in (bias, None):
        product = FewRows(weight, added)
        for rows in (0, 1, 5, FEW, FEW + 1):
            hidden = torch.randn(rows, 9, generator=generator(rows))
            expected = torch.nn.functional.linear(hidden, weight, added)
            torch.testing.assert_close(product(hidden), expected, rtol=1e-5, atol=1e-5)
            product.forget()
            torch.testing.assert_close(product(hidden), expected, rtol=1e-5, atol=1e-5)
    double = torch.randn(3, 9, generator=generator(), dtype=torch.float64)
    found = FewRows(weight.double(), None)(double)
    assert torch.equal(found, torch.nn.functional.linear(double, weight.double()))


@pytest.mark.parametrize("dtype, relative", [(torch.float64, 1e-12), (torch.bfloat16, 0.05)])
def test_what_rows_expect_is_computed_some_rows_at_a_time(monkeypatch, dtype, relative):
    decoder, context, gold, lengths = problem(16, dtype=dtype)
    own = OwnWord("soft", 0.7)
    expected = gradients(plain(decoder, context, gold, own, 0.3).sum(), decoder, context)
    monkeypatch.setattr(output_layer, "AT_ONCE", 3)
    found = fused(decoder, context, gold, lengths, own, 0.3, m=V).gold_log_probs.sum()
    assert_same_gradients(gradients(found, decoder, context), expected, relative)
