"""One choice among V: continuous top-k and gradient estimators."""

from diffdecode.categorical.top_k import TOP_K_OPERATORS, continuous_top_k, hard_top_k, register_top_k

__all__ = ["TOP_K_OPERATORS", "continuous_top_k", "hard_top_k", "register_top_k"]
