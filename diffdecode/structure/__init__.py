"""Trees and graphs over a sentence's words: best ones, marginals, samples and surrogate gradients."""

from diffdecode.structure.graphs.layer import graph_argmax
from diffdecode.structure.graphs.parts import (
    NO_ARC,
    GraphParts,
    SemanticGraph,
    graph_parts,
    graph_scores,
    semantic_graph,
)
from diffdecode.structure.projections import (
    project_dep,
    project_sdp,
    project_sdp_sequential,
    project_simplex,
)
from diffdecode.structure.surrogates import SURROGATES, Surrogate, make_surrogate, register
from diffdecode.structure.trees.k_best import k_best_trees
from diffdecode.structure.trees.layer import tree_argmax
from diffdecode.structure.trees.losses import (
    graph_hinge_loss,
    graph_negative_log_likelihood,
    tree_hinge_loss,
    tree_negative_log_likelihood,
)
from diffdecode.structure.trees.marginals import tree_entropy
from diffdecode.structure.trees.nonprojective import nonprojective_marginals, nonprojective_tree
from diffdecode.structure.trees.projection import TreeProjection, project_trees
from diffdecode.structure.trees.projective import projective_marginals, projective_tree
from diffdecode.structure.trees.sampling import sample_nonprojective_trees, sample_projective_trees
from diffdecode.structure.trees.tensors import PADDING, heads_to_arcs, tree_scores, unchecked

__all__ = [
    "NO_ARC",
    "PADDING",
    "SURROGATES",
    "GraphParts",
    "SemanticGraph",
    "Surrogate",
    "TreeProjection",
    "graph_argmax",
    "graph_hinge_loss",
    "graph_negative_log_likelihood",
    "graph_parts",
    "graph_scores",
    "heads_to_arcs",
    "k_best_trees",
    "make_surrogate",
    "nonprojective_marginals",
    "nonprojective_tree",
    "project_dep",
    "project_sdp",
    "project_sdp_sequential",
    "project_simplex",
    "project_trees",
    "projective_marginals",
    "projective_tree",
    "register",
    "sample_nonprojective_trees",
    "sample_projective_trees",
    "semantic_graph",
    "tree_argmax",
    "tree_entropy",
    "tree_hinge_loss",
    "tree_negative_log_likelihood",
    "tree_scores",
    "unchecked",
]
