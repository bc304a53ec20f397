"""Trees and graphs over a sentence's words: best ones, marginals, samples and surrogate gradients."""

from diffdecode.structure.nonprojective import nonprojective_marginals, nonprojective_tree
from diffdecode.structure.projective import projective_marginals, projective_tree
from diffdecode.structure.trees import PADDING, heads_to_arcs, tree_scores

__all__ = [
    "PADDING",
    "heads_to_arcs",
    "nonprojective_marginals",
    "nonprojective_tree",
    "projective_marginals",
    "projective_tree",
    "tree_scores",
]
