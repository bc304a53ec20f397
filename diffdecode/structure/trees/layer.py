"""A dependency tree as a layer: the best tree forward, a surrogate gradient backward."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffdecode.checks import looks_once
from diffdecode.structure.kernels import backend
from diffdecode.structure.surrogates import Structure, Surrogate, make_surrogate, structured_argmax
from diffdecode.structure.trees.best_tree import heads_of_best
from diffdecode.structure.trees.kind import TreeKind
from diffdecode.structure.trees.marginals import covariance_product
from diffdecode.structure.trees.tensors import Lengths, check_inputs, heads_to_arcs


@looks_once
def tree_argmax(
    scores: Tensor,
    lengths: Lengths = None,
    *,
    surrogate: str | Surrogate = "spigot",
    projective: bool = True,
    multi_root: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Tensor:
    """Dependency trees that gradients pass through: ``z`` of equation 1 with a chosen ``dL/ds``.

    Args:
        scores: ``[B, N+1, N+1]``, ``scores[b, dependent, head]`` with position 0 the root; -inf forbids an
            arc. Any device and floating dtype.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).
        surrogate: a name in :data:`~diffdecode.structure.surrogates.SURROGATES`, or a surrogate.
        projective, multi_root: which trees.
        generator: on either device; of the surrogates that draw samples or noise.
        options: of the surrogate, such as ``eta`` of ``"spigot"``.

    Returns:
        arcs ``[B, N+1, N+1]`` in the dtype of ``scores``: 1 where ``head`` is the head of ``dependent``, 0
        elsewhere and beyond the lengths. ``"marginals"`` (and a surrogate's ``soft`` option) return an
        average of trees instead. Gradients of padding and of forbidden arcs are exactly 0.

    Raises:
        ValueError: naming the batch row, for NaN, +inf, a sentence without a tree, or an impossible length;
            for an unknown surrogate or an impossible option.
        TypeError: an option that the surrogate does not have.
    """
    chosen = make_surrogate(surrogate, **options)
    computed, lengths = check_inputs(scores, lengths)
    trees = Trees(lengths, TreeKind(projective, multi_root))
    return structured_argmax(computed, trees, chosen, generator).to(scores.dtype)


@dataclass(frozen=True)
class Trees(Structure):
    """The dependency trees of a ``kind`` over ``lengths [B]`` words; parts are arcs ``[B, N+1, N+1]``."""

    lengths: Tensor
    kind: TreeKind

    def possible(self, scores: Tensor) -> Tensor:
        return backend(scores.device).possible(scores, self.lengths)

    def argmax(self, scores: Tensor) -> Tensor:
        return heads_to_arcs(heads_of_best(self.kind, scores, self.lengths), dtype=scores.dtype)

    def sample(self, scores: Tensor, generator: torch.Generator | None) -> Tensor:
        heads = self.kind.sample(scores, self.lengths, generator=generator)[0]
        return heads_to_arcs(heads, dtype=scores.dtype)

    def marginals(self, scores: Tensor) -> Tensor:
        return self.kind.marginals(scores, self.lengths)[0]

    def covariance_product(self, scores: Tensor, vector: Tensor) -> Tensor:
        return covariance_product(self.kind, scores, self.lengths, vector)

    def project(self, point: Tensor, polytope: str, near: Tensor) -> Tensor:
        if polytope == "relaxed":
            return backend(point.device).p_dep(point, self.lengths)
        if polytope == "exact":
            return self.kind.project(point, self.lengths, start=near[:, 1:].argmax(-1)).point
        raise ValueError(f"no polytope {polytope!r} for trees; there are 'relaxed' (P_DEP) and 'exact'")
