"""Semantic dependency graphs: decisions, projections, losses and the layer."""

from diffdecode.structure.graphs.decode import semantic_graph, uses_a_label_twice
from diffdecode.structure.graphs.joint import (
    JointParts,
    given_the_other,
    joint_negative_log_likelihood,
    joint_scores,
    joint_semantic_graphs,
    pair_table,
)
from diffdecode.structure.graphs.layer import Graphs, graph_argmax
from diffdecode.structure.graphs.losses import graph_hinge_loss, graph_negative_log_likelihood
from diffdecode.structure.graphs.parts import (
    NO_ARC,
    GraphParts,
    SemanticGraph,
    check_graph,
    graph_parts,
    graph_scores,
)
from diffdecode.structure.graphs.projection import project_sdp, project_sdp_sequential

__all__ = [
    "NO_ARC",
    "GraphParts",
    "Graphs",
    "JointParts",
    "SemanticGraph",
    "check_graph",
    "given_the_other",
    "graph_argmax",
    "graph_hinge_loss",
    "graph_negative_log_likelihood",
    "graph_parts",
    "graph_scores",
    "joint_negative_log_likelihood",
    "joint_scores",
    "joint_semantic_graphs",
    "pair_table",
    "project_sdp",
    "project_sdp_sequential",
    "semantic_graph",
    "uses_a_label_twice",
]
