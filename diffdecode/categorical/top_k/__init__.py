"""Continuous top-k: one relaxed one-hot row for each of the k best of M candidates, one operator a file."""

from diffdecode.categorical.top_k.base import (
    TOP_K_OPERATORS,
    VANISHES,
    Discarded,
    TopKOperator,
    gap_to_cut,
    ranked_scores,
    without_infinities,
)
from diffdecode.categorical.top_k.lapsum import lapsum_top_k
from diffdecode.categorical.top_k.overlap import beam_overlap
from diffdecode.categorical.top_k.peaked import peaked_top_k
from diffdecode.categorical.top_k.selection import (
    continuous_top_k,
    hard_top_k,
    refuse_bad_best,
    relaxed_rows,
)
from diffdecode.categorical.top_k.softsort import softsort_top_k
from diffdecode.categorical.top_k.successive import successive_top_k
from diffdecode.categorical.top_k.tail_bound import tail_bound
from diffdecode.registry import import_members

import_members(__name__, __path__)

__all__ = [
    "TOP_K_OPERATORS",
    "VANISHES",
    "Discarded",
    "TopKOperator",
    "beam_overlap",
    "continuous_top_k",
    "gap_to_cut",
    "hard_top_k",
    "lapsum_top_k",
    "peaked_top_k",
    "ranked_scores",
    "refuse_bad_best",
    "relaxed_rows",
    "softsort_top_k",
    "successive_top_k",
    "tail_bound",
    "without_infinities",
]
