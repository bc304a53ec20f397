"""The truncation bounds: never below the true distance, and small when they should be."""

import math

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdecode.categorical import TOP_K_OPERATORS, TopKOperator, continuous_top_k, tail_bound

OPERATORS = ("peaked", "softsort", "lapsum", "successive")


def distance_and_bound(scores, kept, k, alpha, operator, use_mass):
    """Largest TV distance of a row to its truncation ``[B]``, and its bound ``[B]``."""
    dense = continuous_top_k(scores, k, alpha, operator)
    best = scores.topk(kept, dim=1)
    rows = torch.zeros_like(dense).scatter(
        2, best.indices[:, None].expand(-1, k, -1), continuous_top_k(best.values, k, alpha, operator)
    )
    distance = 0.5 * (dense - rows).abs().sum(-1).amax(1)
    rest = scores.scatter(1, best.indices, -math.inf)
    discarded = scores.size(1) - kept
    cut = rest.amax(1) if use_mass else best.values[:, -1]  # the exact maximum, or one more than that
    mass = rest.exp().sum(1) if use_mass else None
    return distance, tail_bound(best.values, k, alpha, operator, cut, discarded, mass)


@settings(max_examples=cases(62, 500), deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(0, 8),
    st.integers(0, 40),
    st.floats(0.05, 50.0),
    st.floats(0.1, 8.0),
    st.sampled_from(OPERATORS),
    st.booleans(),
)
def test_bound_holds(seed, k, extra, discarded, alpha, spread, operator, use_mass):
    generator = torch.Generator().manual_seed(seed)
    kept = k + extra
    scores = spread * torch.randn(3, kept + discarded, generator=generator, dtype=torch.float64)
    if seed % 3 == 0:
        scores = scores.round()  # ties
    if seed % 5 == 0 and kept + discarded > k:
        scores[0, -1] = -math.inf
    distance, bound = distance_and_bound(scores, kept, k, alpha, operator, use_mass)
    assert (distance <= bound + 1e-12).all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_bound_is_useful(operator):
    """On log-probabilities of a peaked model it falls with M, and gets small."""
    generator = torch.Generator().manual_seed(0)
    scores = (4 * torch.randn(20, 3000, generator=generator, dtype=torch.float64)).log_softmax(1)
    previous = 1.0
    for kept in (16, 64, 256):
        bound = distance_and_bound(scores, kept, 3, 2.0, operator, use_mass=True)[1]
        assert bound.mean() < previous
        previous = bound.mean()
    assert previous < 1e-2


@pytest.mark.parametrize("operator", OPERATORS)
def test_mass_tightens_the_bound(operator):
    generator = torch.Generator().manual_seed(1)
    scores = (4 * torch.randn(20, 3000, generator=generator, dtype=torch.float64)).log_softmax(1)
    with_mass = distance_and_bound(scores, 128, 3, 2.0, operator, use_mass=True)[1]
    without = distance_and_bound(scores, 128, 3, 2.0, operator, use_mass=False)[1]
    assert (with_mass < without).all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_nothing_discarded_is_no_error(operator):
    scores = torch.tensor([[0.0, -1.0, -2.0]])
    cut = torch.tensor([-2.0])
    assert tail_bound(scores, 2, 0.1, operator, cut, 0).item() == 0
    assert tail_bound(scores, 2, 0.1, operator, torch.tensor([-math.inf]), 5).item() == 0


def test_unknown_operator():
    with pytest.raises(ValueError, match="unknown top-k operator 'sharp'"):
        tail_bound(torch.zeros(1, 3), 2, 1.0, "sharp", torch.zeros(1), 4)


def test_operator_without_a_bound(monkeypatch):
    """A registered operator may lack one: then it is for searches over all candidates only."""
    operator = TopKOperator(lambda scores, k, alpha: TOP_K_OPERATORS["peaked"].rows(scores, k, alpha))
    monkeypatch.setitem(TOP_K_OPERATORS._members, "unproven", operator)
    assert continuous_top_k(torch.zeros(1, 3), 2, 1.0, "unproven").shape == (1, 2, 3)
    with pytest.raises(ValueError, match="'unproven' has no tail bound"):
        tail_bound(torch.zeros(1, 3), 2, 1.0, "unproven", torch.zeros(1), 4)
