"""One choice among V: continuous top-k and gradient estimators."""

from diffdecode.categorical.estimators import ESTIMATORS, Sample, sample
from diffdecode.categorical.gumbel_rao import conditional_gumbel_softmax, gumbel_rao_backward
from diffdecode.categorical.lapsum import lapsum_top_k
from diffdecode.categorical.overlap import beam_overlap
from diffdecode.categorical.reinmax import (
    reinmax_backward,
    reinmax_loo_backward,
    reinmax_tau_backward,
    unbiased_reinmax,
)
from diffdecode.categorical.score_function import MovingAverage, draw, reinforce, rloo
from diffdecode.categorical.softsort import softsort_top_k
from diffdecode.categorical.straight_through import straight_through_backward
from diffdecode.categorical.successive import successive_top_k
from diffdecode.categorical.tail_bound import TAIL_BOUNDS, tail_bound
from diffdecode.categorical.top_k import (
    TOP_K_OPERATORS,
    continuous_top_k,
    hard_top_k,
    peaked_top_k,
    register_top_k,
    relaxed_rows,
)

__all__ = [
    "ESTIMATORS",
    "TAIL_BOUNDS",
    "TOP_K_OPERATORS",
    "MovingAverage",
    "Sample",
    "beam_overlap",
    "conditional_gumbel_softmax",
    "continuous_top_k",
    "draw",
    "gumbel_rao_backward",
    "hard_top_k",
    "lapsum_top_k",
    "peaked_top_k",
    "register_top_k",
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
