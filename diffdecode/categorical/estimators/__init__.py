"""Gradient estimators of one choice among V: one estimator a file."""

from diffdecode.categorical.estimators.base import ESTIMATORS, Estimator
from diffdecode.categorical.estimators.gumbel_rao import conditional_gumbel_softmax, gumbel_rao_backward
from diffdecode.categorical.estimators.reinmax import (
    reinmax_backward,
    reinmax_loo_backward,
    reinmax_tau_backward,
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
    "conditional_gumbel_softmax",
    "draw",
    "gumbel_rao_backward",
    "reinforce",
    "reinmax_backward",
    "reinmax_loo_backward",
    "reinmax_tau_backward",
    "rloo",
    "sample",
    "straight_through_backward",
    "unbiased_reinmax",
]
