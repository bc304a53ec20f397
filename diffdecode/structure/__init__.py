"""Trees and graphs over a sentence's words: best ones, marginals, samples and surrogate gradients."""

from diffdecode.structure.active_set import TreeProjection, project_trees
from diffdecode.structure.graph_argmax import graph_argmax
from diffdecode.structure.k_best import k_best_trees
from diffdecode.structure.losses import (
    graph_hinge_loss,
    graph_negative_log_likelihood,
    tree_hinge_loss,
    tree_negative_log_likelihood,
)
from diffdecode.structure.marginals import tree_entropy
from diffdecode.structure.nonprojective import nonprojective_marginals, nonprojective_tree
from diffdecode.structure.projections import (
    project_dep,
    project_sdp,
    project_sdp_sequential,
    project_simplex,
)
from diffdecode.structure.projective import projective_marginals, projective_tree
from diffdecode.structure.sampling import sample_nonprojective_trees, sample_projective_trees
from diffdecode.structure.semantic_graph import (
    NO_ARC,
    GraphParts,
    SemanticGraph,
    graph_parts,
    graph_scores,
    semantic_graph,
)
from diffdecode.structure.surrogates import SURROGATES, Surrogate, make_surrogate, register
from diffdecode.structure.tree_argmax import tree_argmax
from diffdecode.structure.trees import PADDING, heads_to_arcs, tree_scores, unchecked

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
