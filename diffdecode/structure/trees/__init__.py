"""Dependency trees: decisions, marginals, samples, projections, losses and the layer."""

from diffdecode.structure.kernels.status import NO_TREE, NOT_A_SCORE, OK, PADDING, TOO_LARGE, possible_arcs
from diffdecode.structure.trees.functions import (
    k_best_trees,
    nonprojective_marginals,
    nonprojective_tree,
    project_trees,
    projective_marginals,
    projective_tree,
    sample_nonprojective_trees,
    sample_projective_trees,
    tree_entropy,
)
from diffdecode.structure.trees.gold import check_gold_heads, refuse_forbidden_gold
from diffdecode.structure.trees.kind import TreeKind
from diffdecode.structure.trees.layer import Trees, tree_argmax
from diffdecode.structure.trees.losses import tree_hinge_loss, tree_negative_log_likelihood
from diffdecode.structure.trees.projection import TreeProjection, project_dep
from diffdecode.structure.trees.tensors import Lengths, check_inputs, heads_to_arcs, tree_scores

__all__ = [
    "NOT_A_SCORE",
    "NO_TREE",
    "OK",
    "PADDING",
    "TOO_LARGE",
    "Lengths",
    "TreeKind",
    "TreeProjection",
    "Trees",
    "check_gold_heads",
    "check_inputs",
    "heads_to_arcs",
    "k_best_trees",
    "nonprojective_marginals",
    "nonprojective_tree",
    "possible_arcs",
    "project_dep",
    "project_trees",
    "projective_marginals",
    "projective_tree",
    "refuse_forbidden_gold",
    "sample_nonprojective_trees",
    "sample_projective_trees",
    "tree_argmax",
    "tree_entropy",
    "tree_hinge_loss",
    "tree_negative_log_likelihood",
    "tree_scores",
]
