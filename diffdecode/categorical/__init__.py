"""One choice among V: continuous top-k and gradient estimators."""

from diffdecode.categorical.estimators.gumbel_rao import conditional_gumbel_softmax, gumbel_rao_backward
from diffdecode.categorical.estimators.reinmax import (
    reinmax_backward,
    reinmax_loo_backward,
    reinmax_tau_backward,
    unbiased_reinmax,
)
from diffdecode.categorical.estimators.sample import ESTIMATORS, Sample, sample
from diffdecode.categorical.estimators.score_function import MovingAverage, draw, reinforce, rloo
from diffdecode.categorical.estimators.straight_through import straight_through_backward
from diffdecode.categorical.top_k import (
    TOP_K_OPERATORS,
    Discarded,
    TopKOperator,
    beam_overlap,
    continuous_top_k,
    hard_top_k,
    lapsum_top_k,
    peaked_top_k,
    relaxed_rows,
    softsort_top_k,
    successive_top_k,
    tail_bound,
)

__all__ = [
    "ESTIMATORS",
    "TOP_K_OPERATORS",
    "Discarded",
    "MovingAverage",
    "Sample",
    "TopKOperator",
    "beam_overlap",
    "conditional_gumbel_softmax",
    "continuous_top_k",
    "draw",
    "gumbel_rao_backward",
    "hard_top_k",
    "lapsum_top_k",
    "peaked_top_k",
    "reinforce",
    "reinmax_backward",
    "reinmax_loo_backward",
    "reinmax_tau_backward",
    "relaxed_rows",
    "rloo",
    "sample",
    "softsort_top_k",
    "straight_through_backward",
    "successive_top_k",
    "tail_bound",
    "unbiased_reinmax",
]
