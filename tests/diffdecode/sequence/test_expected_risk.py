"""Expected risk: against its definition, by finite differences, and over all sequences of a toy model."""

import itertools

import pytest
import torch
from toy_decoder import ToyDecoder

from diffdecode.sequence import candidate_weights, expected_risk, first_occurrences


def test_definition():
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.9, 0.0]]).log()
    risks = torch.tensor([[1.0, 0.0, 0.5], [0.2, 1.0, float("nan")]])
    powers = torch.tensor([0.5, 0.3, 0.2]) ** 0.5
    first = ((powers / powers.sum()) * risks[0]).sum()
    second = (0.1**0.5 * 0.2 + 0.9**0.5) / (0.1**0.5 + 0.9**0.5)
    found = expected_risk(scores, risks, 0.5)
    torch.testing.assert_close(found, torch.stack([first, torch.tensor(second)]))


def test_gradient_equals_finite_differences_and_a_candidate_that_is_none_has_none():
    torch.manual_seed(0)
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    risks = torch.rand(3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: expected_risk(s, risks, 0.3), scores)
    fewer = torch.where(torch.arange(5) < 3, scores, -torch.inf)
    (gradient,) = torch.autograd.grad(expected_risk(fewer, risks, 0.3).sum(), scores)
    assert gradient.isfinite().all() and (gradient[:, 3:] == 0).all() and (gradient[:, :3] != 0).all()


def test_all_sequences_at_sharpness_one_give_the_expectation_under_the_model():
    """The gradient is that of E[risk], by REINFORCE's identity over all sequences."""
    torch.manual_seed(1)
    decoder, context = ToyDecoder(vocabulary=4, scale=1.0).double(), torch.randn(1, 3, 3).double()
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))
    risks = torch.rand(len(every), dtype=torch.float64)
    parameters = list(decoder.parameters())
    log_p = decoder.sequence_scores(context.expand(len(every), -1, -1), every).sum(1)
    loss = expected_risk(log_p[None], risks[None], 1.0)[0]
    expectation = (log_p.exp() * risks).sum()
    torch.testing.assert_close(loss, expectation)
    identity = (log_p.exp().detach() * risks * log_p).sum()
    for one, other in zip(
        torch.autograd.grad(loss, parameters, retain_graph=True), torch.autograd.grad(identity, parameters)
    ):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-6)


def test_sharpness_from_all_alike_to_the_best_alone():
    scores, risks = torch.tensor([[-3.0, -1.0, -7.0]]), torch.tensor([[0.9, 0.2, 0.4]])
    assert expected_risk(scores, risks, 1e-6).item() == pytest.approx(0.5, abs=1e-5)
    assert expected_risk(scores, risks, 1e3).item() == pytest.approx(0.2)


def test_what_cannot_be_weighed_is_refused():
    with pytest.raises(ValueError, match=r"sharpness 0.0 must be positive"):
        candidate_weights(torch.zeros(1, 2), 0.0)
    with pytest.raises(ValueError, match="sentence 1 of the batch has no candidate"):
        candidate_weights(torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]]), 1.0)


def test_first_occurrences():
    rows = torch.tensor([[[1, 2], [1, 3], [1, 2], [1, 2]], [[5, 5], [5, 5], [0, 5], [5, 0]]])
    assert first_occurrences(rows).tolist() == [[True, True, False, False], [True, False, True, True]]
