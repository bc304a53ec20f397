"""Gradient estimators of one choice among V: one estimator a file."""

from diffdecode.categorical.estimators.base import ESTIMATORS, Estimator
from diffdecode.categorical.estimators.draws import (
    checked_max,
    checked_softmax,
    draw_index,
    gumbel,
    standard_exponential,
)
from diffdecode.categorical.estimators.gumbel_rao import conditional_gumbel_softmax, gumbel_rao_backward
from diffdecode.categorical.estimators.hard_choice import hard_choice, one_hot, softmax_vjp
from diffdecode.categorical.estimators.reinmax import (
    reinmax_backward,
    reinmax_loo_backward,
    reinmax_tau_backward,
    unbiased_pair_gradient,
    unbiased_reinmax,
)
from diffdecode.categorical.estimators.sample import Sample, sample
from diffdecode.categorical.estimators.score_function import MovingAverage, draw, reinforce, rloo
from diffdecode.categorical.estimators.straight_through import straight_through_backward
from diffdecode.registry import import_members

import_members(__name__, __path__)

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "MovingAverage",
    "Sample",
    "checked_max",
    "checked_softmax",
    "conditional_gumbel_softmax",
    "draw",
    "draw_index",
    "gumbel",
    "gumbel_rao_backward",
    "hard_choice",
    "one_hot",
    "reinforce",
    "reinmax_backward",
    "reinmax_loo_backward",
    "reinmax_tau_backward",
    "rloo",
    "sample",
    "softmax_vjp",
    "standard_exponential",
    "straight_through_backward",
    "unbiased_pair_gradient",
    "unbiased_reinmax",
]
