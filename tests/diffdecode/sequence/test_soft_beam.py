"""Soft beam search: its hard limit, its gradient, its independence of batch mates, any alpha."""

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_decoder import ToyDecoder

from diffdecode.sequence import HammingCost, SearchSpace, SoftBeamOptions, hard_beam, soft_beam

TAGS = SearchSpace(torch.arange(1, 6))
ENDING = SearchSpace(torch.arange(1, 6), eos=1, pad=2, shortest=1)


def problem(seed, batch=4, steps=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    decoder = ToyDecoder(6, seed=seed).to(dtype)
    context = torch.randn(batch, steps, 3, generator=generator).to(dtype)
    gold = torch.randint(1, 6, (batch, steps), generator=generator)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    return decoder, context, gold, lengths


@pytest.mark.parametrize("space", [TAGS, ENDING], ids=["tagging", "absorbing eos"])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cost_weight", [0.0, 0.7])
def test_becomes_the_hard_beam(seed, space, cost_weight):
    decoder, context, gold, lengths = problem(seed)
    cost = HammingCost(gold, pad=2)
    hard = hard_beam(decoder, decoder.init_state(context), lengths, 3, space, cost, cost_weight)
    options = SoftBeamOptions(3, alpha=1e9, cost_weight=cost_weight)
    soft = soft_beam(decoder, decoder.init_state(context), lengths, space, options, cost)
    torch.testing.assert_close(soft.scores, hard.scores, atol=1e-6, rtol=0)
    torch.testing.assert_close(soft.direct_loss(), hard.costs[:, 0].double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(soft.max_score(), hard.scores[:, 0], atol=1e-6, rtol=0)
    among = (hard.scores.softmax(1) * hard.costs).sum(1)
    torch.testing.assert_close(soft.risk(), among.double(), atol=1e-4, rtol=0)


def slope(loss, parameters, direction, epsilon=1e-6):
    """Central difference of ``loss()`` along ``direction``."""
    values = []
    for sign in (1, -1):
        for parameter, step in zip(parameters, direction):
            parameter.data.add_(step, alpha=sign * epsilon)
        values.append(loss().item())
        for parameter, step in zip(parameters, direction):
            parameter.data.sub_(step, alpha=sign * epsilon)
    return (values[0] - values[1]) / (2 * epsilon)


@pytest.mark.parametrize("objective", ["direct_loss", "max_score", "risk"])
@pytest.mark.parametrize("space", [TAGS, ENDING], ids=["tagging", "absorbing eos"])
@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("recompute", [True, False])
def test_gradient_equals_finite_differences(objective, space, alpha, recompute):
    decoder, context, gold, lengths = problem(1)
    options = SoftBeamOptions(3, alpha, cost_weight=0.5, recompute=recompute)
    cost = HammingCost(gold, 2, torch.tensor([1.0, 1.0, 1.0, 2.0, 1.0, 1.0]))

    def loss():
        found = soft_beam(decoder, decoder.init_state(context), lengths, space, options, cost)
        return getattr(found, objective)().sum()

    loss().backward()
    parameters = list(decoder.parameters())
    direction = [torch.randn_like(parameter) for parameter in parameters]
    expected = slope(loss, parameters, direction)
    found = sum((parameter.grad * step).sum().item() for parameter, step in zip(parameters, direction))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_recomputing_changes_no_gradient():
    gradients = []
    for recompute in (1.0, 0.6, 0.0):
        decoder, context, gold, lengths = problem(2)
        options = SoftBeamOptions(3, 1.0, recompute=recompute)
        soft_beam(
            decoder, decoder.init_state(context), lengths, TAGS, options, HammingCost(gold, 0)
        ).direct_loss().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in decoder.parameters()]))
    assert torch.equal(gradients[0], gradients[2]) and torch.equal(gradients[1], gradients[2])


def test_recomputed_steps_are_spread_evenly():
    steps = [SoftBeamOptions(recompute=0.6).recomputes(t) for t in range(10)]
    assert sum(steps) == 6 and not any(steps[i : i + 2] == [False, False] for i in range(9))
    assert all(SoftBeamOptions().recomputes(t) for t in range(10))
    assert not any(SoftBeamOptions(recompute=0.0).recomputes(t) for t in range(10))


@pytest.mark.parametrize("space", [TAGS, ENDING], ids=["tagging", "absorbing eos"])
def test_batch_mates_and_padding_change_nothing(space):
    decoder, context, gold, lengths = problem(3, batch=5)
    options = SoftBeamOptions(3, 1.0)
    together = soft_beam(
        decoder, decoder.init_state(context), lengths, space, options, HammingCost(gold, 2)
    ).direct_loss()
    for b, length in enumerate(lengths.tolist()):
        row = slice(b, b + 1)
        alone = soft_beam(
            decoder,
            decoder.init_state(context[row, :length]),
            lengths[row],
            space,
            options,
            HammingCost(gold[row, :length], 2),
        ).direct_loss()
        torch.testing.assert_close(alone, together[row], atol=1e-12, rtol=0)


@settings(max_examples=cases(15, 120), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    exponent=st.floats(-3, 8),
    scale=st.sampled_from([0.0, 1.0, 30.0]),
    space=st.sampled_from([TAGS, ENDING]),
)
def test_finite_at_any_alpha(seed, exponent, scale, space):
    """Float32, alpha from 1e-3 to 1e8, from exact ties (scale 0) to saturated models (scale 30)."""
    decoder, context, gold, lengths = problem(seed, dtype=torch.float32)
    for parameter in decoder.parameters():
        parameter.data.mul_(scale)
    options = SoftBeamOptions(3, 10.0**exponent)
    found = soft_beam(decoder, decoder.init_state(context), lengths, space, options, HammingCost(gold, 2))
    loss = found.direct_loss()
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(found.scores).all()
    assert (loss >= -1e-4).all() and (loss <= lengths + 1e-3).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in decoder.parameters())


@pytest.mark.parametrize("space", [TAGS, ENDING], ids=["tagging", "absorbing eos"])
@pytest.mark.parametrize("seed", range(4))
def test_length_penalty_ranks_by_score_per_word(seed, space):
    decoder, context, gold, lengths = problem(seed)
    cost, options = HammingCost(gold, pad=2), SoftBeamOptions(3, alpha=1e9, length_penalty=1.0)
    hard = hard_beam(decoder, decoder.init_state(context), lengths, 3, space, cost)
    words = space.lengths(hard.symbols)
    soft = soft_beam(decoder, decoder.init_state(context), lengths, space, options, cost)
    torch.testing.assert_close(soft.words, words.double(), atol=1e-4, rtol=0)
    expected, best = (hard.scores / words).max(1)
    torch.testing.assert_close(soft.max_score(), expected, atol=1e-4, rtol=0)
    costs = hard.costs.gather(1, best[:, None])[:, 0].double()
    torch.testing.assert_close(soft.direct_loss(), costs, atol=1e-4, rtol=0)
    if space is TAGS:
        assert torch.equal(words, lengths[:, None].expand(-1, 3))


def test_the_beam_grows_from_one_element():
    """k equal elements at the start would remain k copies; grown, the elements differ."""
    decoder, context, _, _ = problem(4)
    found = soft_beam(
        decoder, decoder.init_state(context), torch.full((4,), 5), TAGS, SoftBeamOptions(3, alpha=1e6)
    )
    assert (found.scores[:, :-1] - found.scores[:, 1:] > 1e-3).all()


def test_observes_each_selection():
    decoder, context, _, _ = problem(4)
    found = soft_beam(
        decoder,
        decoder.init_state(context),
        torch.full((4,), 5),
        TAGS,
        SoftBeamOptions(2, alpha=1.0),
        observe=lambda seen: (tuple(seen.weights.shape), tuple(seen.scores.shape)),
    )
    assert found.observed == [((4, 2, 1, 5), (4, 2))] + [((4, 2, 2, 5), (4, 2))] * 4
    assert torch.equal(found.costs, torch.zeros_like(found.costs))


def test_pad_embedding_gets_no_gradient():
    decoder, context, gold, lengths = problem(5)
    soft_beam(
        decoder, decoder.init_state(context), lengths, ENDING, SoftBeamOptions(3, 0.1), HammingCost(gold, 2)
    ).direct_loss().sum().backward()
    assert (decoder.embed.weight.grad[2] == 0).all()
    assert (decoder.embed.weight.grad[3] != 0).any()


def test_refuses_a_beam_wider_than_the_vocabulary():
    decoder, context, _, lengths = problem(0)
    with pytest.raises(ValueError, match="beam size 6 must be between 1 and the number of symbols"):
        soft_beam(decoder, decoder.init_state(context), lengths, TAGS, SoftBeamOptions(6))


def test_refuses_a_negative_length():
    decoder, context, _, _ = problem(0)
    with pytest.raises(ValueError, match="sentence 2 of the batch has length -1"):
        soft_beam(decoder, decoder.init_state(context), torch.tensor([1, 2, -1, 1]), TAGS, SoftBeamOptions(2))


def test_hamming_cost_beyond_the_reference():
    cost = HammingCost(torch.tensor([[3, 4]]), pad=1, wrong_costs=torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0]))
    symbols = torch.tensor([[1, 2, 3]])
    assert cost(0, symbols).tolist() == [[1.0, 2.0, 0.0]]
    assert cost(2, symbols).tolist() == [[0.0, 2.0, 1.0]]
