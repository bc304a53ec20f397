"""Schedules: the printed formulas where they can be computed, and no overflow where they cannot."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffdecode.sequence import MIXING_SCHEDULES, annealed_alpha, gold_probability


def test_alpha_by_hand():
    assert [annealed_alpha(e, 0.1, 2.0, 0.5) for e in (1, 2, 3, 4, 100)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert annealed_alpha(7, 3.0) == 3.0
    assert annealed_alpha(10**9, 0.1, 1.5, 100.0) == 100.0
    assert annealed_alpha(10**9, 0.1, 0.5, 100.0) == 0.0


@given(progress=st.integers(2, 600), decay=st.floats(1, 1000))
def test_inverse_sigmoid_is_the_printed_formula(progress, decay):
    if progress / decay < 700:
        printed = decay / (decay + math.exp(progress / decay))
        assert gold_probability("inverse_sigmoid", progress, decay) == pytest.approx(printed, rel=1e-12)


@given(
    schedule=st.sampled_from(MIXING_SCHEDULES),
    progress=st.integers(1, 10**12),
    decay=st.floats(1e-3, 1e9),
)
def test_always_a_probability_that_never_grows(schedule, progress, decay):
    now, later = (gold_probability(schedule, p, decay) for p in (progress, progress + 1))
    assert 0 <= later <= now <= 1


def test_first_epoch_and_ends():
    assert gold_probability("inverse_sigmoid", 1, 0.5) == 1.0
    assert [gold_probability("linear", e, 4) for e in (1, 3, 5, 50)] == [1.0, 0.5, 0.0, 0.0]
    assert gold_probability("never", 1) == 0.0
    assert gold_probability("always", 10**6) == 1.0


@pytest.mark.parametrize("wrong", [{"schedule": "cosine"}, {"schedule": "linear", "decay": 0.0}])
def test_refuses_nonsense(wrong):
    with pytest.raises(ValueError):
        gold_probability(progress=1, **wrong)
    with pytest.raises(ValueError):
        annealed_alpha(1, -1.0)
