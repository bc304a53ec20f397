"""A semantic dependency graph as a layer: the best graph forward, a surrogate gradient backward.

Distributions over graphs (``marginals``, ``structured_st``, ...) leave determinism out, as the paper does in
its backward pass: with it, their normaliser is a matrix permanent.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffdecode.checks import looks_once
from diffdecode.moves import moved
from diffdecode.structure.graphs.decode import semantic_graph
from diffdecode.structure.graphs.parts import (
    GraphParts,
    Labels,
    check_graph,
    deterministic_labels,
    graph_parts,
    sum_labels_out,
)
from diffdecode.structure.graphs.projection import project_sdp, project_sdp_sequential
from diffdecode.structure.kernels.active_set import project_onto_hull
from diffdecode.structure.kernels.status import possible_arcs
from diffdecode.structure.surrogates import Structure, Surrogate, make_surrogate, noise, structured_argmax
from diffdecode.structure.trees import Lengths


@looks_once
def graph_argmax(
    arc_scores: Tensor,
    label_scores: Tensor,
    predicate_scores: Tensor | None = None,
    lengths: Lengths = None,
    *,
    surrogate: str | Surrogate = "spigot",
    deterministic: Labels = (),
    generator: torch.Generator | None = None,
    **options: Any,
) -> GraphParts:
    """Semantic graphs that gradients pass through: the parts of the best graph, with a chosen gradient.

    Args:
        arc_scores, label_scores, predicate_scores, lengths, deterministic: as for
            :func:`~diffdecode.structure.semantic_graph`.
        surrogate, generator, options: as for :func:`~diffdecode.structure.tree_argmax`; all but
            ``"block_reinmax"``. ``"spigot"`` projects onto P_SDP, equation 6, or with
            ``polytope="sequential"`` as the authors' released code does.

    Returns:
        indicators ``(predicates [B, N+1], arcs [B, N+1, N+1], labels [B, N+1, N+1, L])`` in the dtype of
        ``arc_scores``. Without ``predicate_scores`` the predicates have no gradient.

    Raises:
        ValueError: as ``semantic_graph`` and ``tree_argmax``; sampling a graph with determinism.
        TypeError: an option that the surrogate does not have.
    """
    chosen = make_surrogate(surrogate, **options)
    if chosen.trees_only:
        raise ValueError(f"{surrogate!r} needs one block of candidate heads a word: trees, not graphs")
    scores, lengths = check_graph(arc_scores, label_scores, predicate_scores, lengths)
    mask = deterministic_labels(deterministic, label_scores)
    _, size, _, labels = scores.labels.shape
    graphs = Graphs(lengths, (size, size, labels), predicate_scores is not None, mask)
    parts = graphs.unpack(structured_argmax(graphs.pack(scores), graphs, chosen, generator))
    return GraphParts(*(part.to(arc_scores.dtype) for part in parts))


@dataclass(frozen=True)
class Graphs(Structure):
    """All semantic graphs over ``lengths [B]`` words; parts are packed into ``[B, D]``.

    ``shape`` is ``(N+1, N+1, L)``. ``has_predicates``: predicates are parts; otherwise they follow from
    the arcs, and every arc is independent.
    """

    lengths: Tensor
    shape: tuple[int, int, int]
    has_predicates: bool
    deterministic: Tensor

    def pack(self, parts: GraphParts) -> Tensor:
        """``[B, D]``: labels, arcs and, if they are parts, predicates, one after the other."""
        used = (parts.labels, parts.arcs, parts.predicates)[: 3 if self.has_predicates else 2]
        return torch.cat([part.flatten(1) for part in used], 1)

    def unpack(self, packed: Tensor) -> GraphParts:
        size, _, labels = self.shape
        cuts = size * size * labels, size * size * (labels + 1)
        arcs = packed[:, cuts[0] : cuts[1]].unflatten(1, (size, size))
        predicates = packed[:, cuts[1] :] if self.has_predicates else arcs.detach().amax(1)
        return GraphParts(predicates, arcs, packed[:, : cuts[0]].unflatten(1, self.shape))

    def possible(self, scores: Tensor) -> Tensor:
        parts = self.unpack(scores)
        arcs = possible_arcs(self.lengths, self.shape[0]) & (parts.arcs > -torch.inf)
        predicates = parts.predicates > -torch.inf
        return self.pack(GraphParts(predicates, arcs, arcs.unsqueeze(-1) & (parts.labels > -torch.inf)))

    def argmax(self, scores: Tensor) -> Tensor:
        parts = self.unpack(scores)
        predicates = parts.predicates if self.has_predicates else None
        graph = semantic_graph(
            parts.arcs, parts.labels, predicates, self.lengths, deterministic=self.deterministic
        )
        return self.pack(graph_parts(graph, self.shape[2], scores.dtype))

    def sample(self, scores: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.deterministic.any():
            raise ValueError("graphs with deterministic labels cannot be sampled exactly; leave them out")
        predicate, arc, label = self._conditionals(scores)
        chosen = noise(torch.rand, predicate.shape, scores, generator) < predicate
        present = chosen.unsqueeze(1) & (noise(torch.rand, arc.shape, scores, generator) < arc)
        waiting = -torch.log1p(-noise(torch.rand, label.shape, scores, generator))
        which = (label / waiting.clamp(min=torch.finfo(label.dtype).tiny)).argmax(-1)  # exponential races
        labels = torch.nn.functional.one_hot(which, self.shape[2]) * present.unsqueeze(-1)
        return self.pack(GraphParts(chosen, present, labels)).to(scores.dtype)

    def marginals(self, scores: Tensor) -> Tensor:
        predicate, arc, label = self._conditionals(scores)
        arcs = predicate.unsqueeze(1) * arc
        return self.pack(GraphParts(predicate, arcs, arcs.unsqueeze(-1) * label))

    def covariance_product(self, scores: Tensor, vector: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = scores.detach().requires_grad_()
            marginals = self.marginals(leaf)
            return torch.autograd.grad(marginals, leaf, vector)[0]

    def _conditionals(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p(predicate), p(arc | predicate), p(label | arc): with them, a graph is built top-down."""
        parts = self.unpack(scores)
        if not self.has_predicates:
            parts = parts._replace(predicates=torch.zeros_like(parts.predicates))
        arc_scores = sum_labels_out(parts, self.lengths)
        exists = (arc_scores > -torch.inf).unsqueeze(-1)
        arc = torch.sigmoid(arc_scores)
        label = torch.where(exists, parts.labels, 0).softmax(-1)
        if not self.has_predicates:
            return torch.ones_like(parts.predicates), arc, label
        return torch.sigmoid(parts.predicates + softplus(arc_scores).sum(1)), arc, label

    def project(self, point: Tensor, polytope: str, near: Tensor) -> Tensor:
        if polytope == "exact":
            return self._project_onto_hull(point, near)
        if polytope not in ("relaxed", "sequential"):
            raise ValueError(
                f"no polytope {polytope!r} for graphs; there are 'relaxed' (P_SDP), 'sequential' and 'exact'"
            )
        parts = self.unpack(point)
        onto_p_sdp = project_sdp if polytope == "relaxed" else project_sdp_sequential
        arcs, labels = onto_p_sdp(parts.arcs, parts.labels, check=False)
        return self.pack(GraphParts(parts.predicates.clamp(0, 1), arcs, labels))

    def _project_onto_hull(self, point: Tensor, near: Tensor) -> Tensor:
        """Sentence by sentence, on the CPU: the hull of all graphs, determinism and predicates included."""
        points, starts, lengths = point.double().cpu(), near.double().cpu(), self.lengths.cpu()
        projected = torch.zeros_like(points)
        for b in range(len(points)):
            one = Graphs(lengths[b : b + 1], self.shape, self.has_predicates, self.deterministic)

            def argmax(scores: np.ndarray, one: Graphs = one) -> np.ndarray:
                return one.argmax(torch.from_numpy(scores)[None])[0].numpy()

            nearest, _, _ = project_onto_hull(points[b].numpy(), argmax, starts[b].numpy())
            projected[b] = torch.from_numpy(nearest)
        return moved(projected.to(point.dtype), point.device)
