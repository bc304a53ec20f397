"""The truncated soft beam against the dense one: equal when all is kept, within its bound otherwise."""

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_decoder import ToyDecoder

from diffdecode.categorical import beam_overlap
from diffdecode.sequence import HammingCost, SearchSpace, SoftBeamOptions, soft_beam, truncated_soft_beam

V = 30
TAGS = SearchSpace(torch.arange(1, V))
ENDING = SearchSpace(torch.arange(1, V), eos=1, pad=2)
SPACES = pytest.mark.parametrize("space", [TAGS, ENDING], ids=["tagging", "absorbing eos"])
OPERATORS = ("peaked", "softsort", "lapsum", "successive")


def problem(seed, batch=4, steps=5, dtype=torch.float64, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    decoder = ToyDecoder(V, width=7, scale=scale, seed=seed).to(dtype)
    context = torch.randn(batch, steps, 3, generator=generator).to(dtype).requires_grad_()
    gold = torch.randint(1, V, (batch, steps), generator=generator)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    lengths[0] = steps
    return decoder, context, HammingCost(gold, 2), lengths


def gradients(found, decoder, context):
    loss = (found.direct_loss() + 0.1 * found.max_score()).sum()
    return torch.autograd.grad(loss, [*decoder.parameters(), context])


def assert_same_gradients(found, expected, relative):
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for a, b in zip(found, expected):
        assert (a - b).abs().max() <= relative * scale


def both(seed, space, options, size, tolerance=1.0, **kind):
    decoder, context, cost, lengths = problem(seed, **kind)
    dense = soft_beam(decoder, decoder.init_state(context), lengths, space, options, cost)
    found = truncated_soft_beam(
        decoder, decoder.init_state(context), lengths, space, options, cost, size=size, tolerance=tolerance
    )
    return dense, found, decoder, context


@SPACES
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("cost_weight", [0.0, 0.7])
@pytest.mark.parametrize("alpha", [0.1, 3.0])
def test_all_candidates_kept_is_the_dense_search(space, operator, cost_weight, alpha):
    options = SoftBeamOptions(3, alpha, operator, cost_weight=cost_weight)
    dense, found, decoder, context = both(0, space, options, size=3 * V)
    assert not found.fell_back.any() and (found.tail == 0).all()
    torch.testing.assert_close(found.scores, dense.scores, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.costs, dense.costs, rtol=1e-12, atol=1e-12)
    assert_same_gradients(gradients(found, decoder, context), gradients(dense, decoder, context), 1e-10)


@SPACES
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("cost_weight", [0.0, 0.7])
@pytest.mark.parametrize("hard_forward", [False, True])
def test_a_small_tail_changes_little(space, operator, cost_weight, hard_forward):
    """Random problems with an alpha at which 12 of 90 candidates are nearly all."""
    alpha = 20.0 if operator == "peaked" else 30.0
    options = SoftBeamOptions(3, alpha, operator, hard_forward, cost_weight)
    checked = 0
    for seed in range(6):
        dense, found, decoder, context = both(seed, space, options, size=12, scale=4.0)
        if found.tail.max() > 1e-9:
            continue
        torch.testing.assert_close(found.scores, dense.scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.costs, dense.costs, rtol=0, atol=1e-6)
        assert_same_gradients(gradients(found, decoder, context), gradients(dense, decoder, context), 1e-6)
        checked += 1
        if checked == 2:
            return
    pytest.fail("fewer than two of the problems have a small tail")


@settings(max_examples=cases(20, 160), deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(3, 20),
    st.floats(0.3, 20.0),
    st.sampled_from(OPERATORS),
    st.sampled_from([TAGS, ENDING]),
    st.sampled_from([0.0, 0.7]),
)
def test_the_bound_holds_at_the_first_step(seed, size, alpha, operator, space, cost_weight):
    """There both searches have the same candidates. A cost lies in [0, 1], so that its expectation under two
    rows differs by no more than their distance."""
    options = SoftBeamOptions(3, alpha, operator, cost_weight=cost_weight)
    decoder, context, cost, lengths = problem(seed, steps=1)
    dense = soft_beam(decoder, decoder.init_state(context), lengths, space, options, cost)
    found = truncated_soft_beam(
        decoder, decoder.init_state(context), lengths, space, options, cost, size=size, tolerance=1.0
    )
    assert ((found.costs - dense.costs).abs() <= found.tail[:, None] + 1e-9).all()


@SPACES
def test_too_long_a_tail_falls_back_to_the_dense_search(space):
    options = SoftBeamOptions(3, 0.1, "lapsum")
    dense, found, decoder, context = both(1, space, options, size=8, tolerance=1e-3)
    assert found.fell_back.all() and found.tail.min() > 1e-3
    assert torch.equal(found.scores, dense.scores) and torch.equal(found.costs, dense.costs)
    for a, b in zip(gradients(found, decoder, context), gradients(dense, decoder, context)):
        assert torch.equal(a, b)


@SPACES
def test_a_sentence_does_not_depend_on_its_batch_mates(space):
    decoder, context, cost, lengths = problem(2)
    options = SoftBeamOptions(3, 2.0, "softsort")
    together = truncated_soft_beam(
        decoder, decoder.init_state(context), lengths, space, options, cost, size=10, tolerance=1.0
    )
    for b in range(4):
        alone = truncated_soft_beam(
            decoder,
            decoder.init_state(context[b : b + 1]),
            lengths[b : b + 1],
            space,
            options,
            HammingCost(cost.gold[b : b + 1], 2),
            size=10,
            tolerance=1.0,
        )
        torch.testing.assert_close(alone.scores, together.scores[b : b + 1])
        torch.testing.assert_close(alone.costs, together.costs[b : b + 1])
        torch.testing.assert_close(alone.tail, together.tail[b : b + 1])


@SPACES
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3, 1e8])
def test_finite_at_any_alpha(space, operator, alpha):
    options = SoftBeamOptions(3, alpha, operator)
    decoder, context, cost, lengths = problem(3, dtype=torch.float32)
    found = truncated_soft_beam(
        decoder, decoder.init_state(context), lengths, space, options, cost, size=8, tolerance=1.0
    )
    assert found.scores.isfinite().all() and found.costs.isfinite().all() and found.tail.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(found, decoder, context))


def test_overlap_can_be_observed():
    decoder, context, cost, lengths = problem(4)
    for alpha, low, high in ((0.01, 0.5, 1.0), (1e6, 0.0, 1e-3)):
        found = truncated_soft_beam(
            decoder,
            decoder.init_state(context),
            lengths,
            TAGS,
            SoftBeamOptions(3, alpha, "softsort"),
            cost,
            observe=lambda seen: (beam_overlap(seen.weights), seen.running),
            size=8,
            tolerance=1.0,
        )
        overlap, running = (torch.stack(seen) for seen in zip(*found.observed))
        assert overlap.shape == (5, 4)
        assert torch.equal(running, torch.arange(5)[:, None] < lengths)
        overlap = overlap[running]
        assert low <= overlap.min() and overlap.max() <= high


def test_nan_is_reported_and_not_searched_on():
    decoder, context, cost, lengths = problem(5)
    bad = context.detach().clone()
    bad[2, 0] = torch.nan
    with pytest.raises(ValueError, match="batch row 2 has a score of nan"):
        truncated_soft_beam(
            decoder, decoder.init_state(bad), lengths, TAGS, SoftBeamOptions(3, 1.0), cost, tolerance=1e-3
        )


def test_errors_name_the_problem():
    decoder, context, cost, lengths = problem(6)
    with pytest.raises(ValueError, match="2 candidates are too few for a beam of 3"):
        truncated_soft_beam(
            decoder, decoder.init_state(context), lengths, TAGS, SoftBeamOptions(3), cost, size=2
        )
    with pytest.raises(ValueError, match=f"beam size {V} must be between 1 and .* {V - 1}"):
        truncated_soft_beam(
            decoder, decoder.init_state(context), lengths, TAGS, SoftBeamOptions(V), cost, size=64
        )
