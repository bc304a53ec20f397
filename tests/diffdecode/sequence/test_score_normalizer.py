"""Local scores ``logit - lambda * log Z``: against enumeration, at any size of logits, in all searches."""

from dataclasses import replace

import pytest
import torch
from exploring import cases
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
    enumerated,
    problem,
)

from diffdecode.sequence import (
    SearchSpace,
    SoftBeamOptions,
    hard_beam,
    soft_beam,
    soft_beam_decode,
    truncated_soft_beam,
)

OPERATORS = ("peaked", "softsort", "lapsum", "successive")


@NORMALIZERS
@SHIFTS
@IN_EACH_SPACE
@pytest.mark.parametrize("seed", range(2))
def test_a_beam_of_all_is_the_enumeration(seed, space, normalizer, shift):
    decoder, context, _, _ = problem(seed, shift, batch=1)
    space = replace(space, score_normalizer=normalizer)
    every, scores = enumerated(decoder, context, space)
    found = hard_beam(decoder, decoder.init_state(context), torch.tensor([STEPS]), 200, space)
    finite = found.scores[0].isfinite()
    torch.testing.assert_close(found.scores[0][finite], scores)
    assert torch.equal(found.symbols[0, 0], every[0])
    torch.testing.assert_close(found.step_scores[0].sum(1)[finite], scores)


def test_the_normalizer_decides():
    """In some problems the best hypotheses of different normalisers differ: the tests above see it."""
    found = {}
    for normalizer in (0.0, 0.5, 1.0):
        space = replace(TAGS, score_normalizer=normalizer)
        for seed in range(8):
            decoder, context, _, _ = problem(seed, batch=1)
            found.setdefault(seed, set()).add(tuple(enumerated(decoder, context, space)[0][0].tolist()))
    assert any(len(best) > 1 for best in found.values())


@NORMALIZERS
@SHIFTS
@IN_EACH_SPACE
@pytest.mark.parametrize("cost_weight", [0.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_beams_become_the_hard_beam(space, normalizer, shift, cost_weight, dtype):
    decoder, context, cost, lengths = problem(3, shift, dtype=dtype)
    space = replace(space, score_normalizer=normalizer)
    hard = hard_beam(decoder, decoder.init_state(context), lengths, 3, space, cost, cost_weight)
    options = SoftBeamOptions(3, 1e9, cost_weight=cost_weight)
    state = decoder.init_state(context)
    for soft in (
        soft_beam(decoder, state, lengths, space, options, cost),
        truncated_soft_beam(decoder, state, lengths, space, options, cost, size=8, tolerance=1.0),
    ):
        atol = 1e-6 if dtype == torch.float64 else 1e-3
        torch.testing.assert_close(soft.scores, hard.scores, atol=atol, rtol=0)
        torch.testing.assert_close(soft.direct_loss(), hard.costs[:, 0].to(dtype), atol=1e-4, rtol=0)


@NORMALIZERS
@SHIFTS
@IN_EACH_SPACE
def test_soft_decoding_becomes_hard_decoding(space, normalizer, shift):
    decoder, context, _, lengths = problem(4, shift)
    space = replace(space, score_normalizer=normalizer)
    hard = hard_beam(decoder, decoder.init_state(context), lengths, 3, space)
    soft = soft_beam_decode(decoder, decoder.init_state(context), lengths, space, SoftBeamOptions(3, 1e9))
    steps = min(hard.symbols.size(2), soft.symbols.size(2))
    assert torch.equal(soft.symbols[..., :steps], hard.symbols[..., :steps])
    torch.testing.assert_close(soft.scores, hard.scores, atol=1e-6, rtol=0)


def gradients(found, decoder):
    loss = (found.direct_loss() + 0.1 * found.max_score()).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(decoder.parameters()))])


@IN_EACH_SPACE
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("normalizer", [0.0, 0.5])
def test_all_candidates_kept_is_the_dense_search(space, operator, normalizer):
    decoder, context, cost, lengths = problem(5)
    space = replace(space, score_normalizer=normalizer)
    options, state = SoftBeamOptions(3, 1.0, operator, cost_weight=0.5), decoder.init_state(context)
    dense = soft_beam(decoder, state, lengths, space, options, cost)
    found = truncated_soft_beam(decoder, state, lengths, space, options, cost, size=3 * V)
    assert not found.fell_back.any() and (found.tail == 0).all()
    torch.testing.assert_close(found.scores, dense.scores, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.costs, dense.costs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(found, decoder), gradients(dense, decoder), rtol=1e-9, atol=1e-11)


@IN_EACH_SPACE
@pytest.mark.parametrize("normalizer", [0.0, 0.5])
@pytest.mark.parametrize("size", [None, 3 * V])
def test_gradient_equals_finite_differences(space, normalizer, size):
    """Of the dense search, and of the truncated one with its own backward pass of the output layer."""
    decoder, context, cost, lengths = problem(6)
    space, options = replace(space, score_normalizer=normalizer), SoftBeamOptions(3, 1.0, cost_weight=0.5)

    def loss():
        state = decoder.init_state(context)
        if size is None:
            found = soft_beam(decoder, state, lengths, space, options, cost)
        else:
            found = truncated_soft_beam(decoder, state, lengths, space, options, cost, size=size)
        return (found.direct_loss() + 0.1 * found.max_score()).sum()

    parameters = list(decoder.parameters())
    found, values = torch.autograd.grad(loss(), parameters), []
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    for shift in (1e-6, -2e-6):
        for parameter, step in zip(parameters, direction):
            parameter.data.add_(step, alpha=shift)
        values.append(loss().item())
    slope = sum((gradient * step).sum().item() for gradient, step in zip(found, direction))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7)


@settings(max_examples=cases(25, 200), deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(3, 20),
    st.floats(0.3, 20.0),
    st.sampled_from(OPERATORS),
    st.booleans(),
    st.floats(0.0, 1.5),
    st.sampled_from([-300.0, 0.0, 300.0]),
)
def test_the_tail_bound_holds_at_the_first_step(seed, size, alpha, operator, ends, normalizer, shift):
    """A cost lies in [0, 1]: its expectations under two rows differ by no more than their distance."""
    decoder, context, cost, lengths = problem(seed, shift, vocabulary=30, steps=1)
    symbols = torch.arange(1, 30)
    space = SearchSpace(symbols, EOS, PAD) if ends else SearchSpace(symbols)
    space = replace(space, score_normalizer=normalizer)
    options, state = SoftBeamOptions(3, alpha, operator), decoder.init_state(context)
    dense = soft_beam(decoder, state, lengths, space, options, cost)
    found = truncated_soft_beam(decoder, state, lengths, space, options, cost, size=size, tolerance=1.0)
    assert ((found.costs - dense.costs).abs() <= found.tail[:, None] + 1e-9).all()


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("shift", [-500.0, 500.0])
def test_the_size_of_scores_does_not_change_the_tail(operator, shift):
    """exp of the scores is 0 or infinite in float32; their differences, which matter, are the same."""
    options, tails = SoftBeamOptions(3, 1.5, operator), []
    space = SearchSpace(torch.arange(1, 30), score_normalizer=0.0)
    for added in (0.0, shift):
        decoder, context, cost, lengths = problem(7, added, vocabulary=30, dtype=torch.float32)
        state = decoder.init_state(context)
        found = truncated_soft_beam(decoder, state, lengths, space, options, cost, size=12, tolerance=1.0)
        tails.append(found.tail)
    assert (tails[0] > 1e-8).any()
    torch.testing.assert_close(tails[1], tails[0], rtol=0.05, atol=1e-6)


@SHIFTS
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e8])
def test_finite_at_any_alpha(alpha, shift):
    decoder, context, cost, lengths = problem(8, shift, dtype=torch.float32)
    space, state = replace(ENDING, score_normalizer=0.0), decoder.init_state(context)
    for search in (soft_beam, truncated_soft_beam):
        found = search(decoder, state, lengths, space, SoftBeamOptions(3, alpha), cost)
        assert found.scores.isfinite().all() and gradients(found, decoder).isfinite().all()


class OnlySteps:
    """A decoder that shows nothing but log-probabilities."""

    def __init__(self, decoder):
        self.embedding, self.start = decoder.embedding, decoder.start
        self.step, self.map_state = decoder.step, decoder.map_state


def test_other_scores_need_a_linear_output_layer():
    decoder, context, _, lengths = problem(9)
    state, steps = decoder.init_state(context), OnlySteps(decoder)
    expected = hard_beam(decoder, state, lengths, 3, TAGS)
    assert torch.equal(hard_beam(steps, state, lengths, 3, TAGS).scores, expected.scores)
    raw = replace(TAGS, score_normalizer=0.0)
    for search in (
        lambda: hard_beam(steps, state, lengths, 3, raw),
        lambda: soft_beam(steps, state, lengths, raw, SoftBeamOptions(3)),
        lambda: soft_beam_decode(steps, state, lengths, raw, SoftBeamOptions(3)),
    ):
        with pytest.raises(TypeError, match="score_normalizer other than 1 needs logits"):
            search()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_searched_in_float32(dtype):
    decoder, context, _, lengths = problem(10, dtype=dtype)
    raw = replace(TAGS, score_normalizer=0.0)
    found = hard_beam(decoder, decoder.init_state(context), lengths, 3, raw)
    assert found.scores.dtype == torch.float32 and found.scores[:, 0].isfinite().all()


def test_under_autocast_only_the_steps_are_in_half_precision():
    decoder, context, _, lengths = problem(11, dtype=torch.float32)
    raw = replace(TAGS, score_normalizer=0.0)
    expected = hard_beam(decoder, decoder.init_state(context), lengths, 3, raw)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = hard_beam(decoder, decoder.init_state(context), lengths, 3, raw)
    assert found.scores.dtype == torch.float32
    torch.testing.assert_close(found.scores, expected.scores, rtol=0.1, atol=0.3)


@pytest.mark.parametrize("normalizer", [-0.1, float("nan"), float("inf")])
def test_refuses_what_is_no_normalizer(normalizer):
    with pytest.raises(ValueError, match=r"score_normalizer .* must be a number of at least 0"):
        replace(TAGS, score_normalizer=normalizer)
