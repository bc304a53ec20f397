"""A dependency tree as a layer: the best tree forward, a surrogate gradient backward."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.kernels import kernel
from diffdecode.structure.kernels.projections import p_dep
from diffdecode.structure.surrogates import Structure, Surrogate, make_surrogate, structured_argmax
from diffdecode.structure.trees.nonprojective import nonprojective_marginals, nonprojective_tree
from diffdecode.structure.trees.projection import project_trees
from diffdecode.structure.trees.projective import projective_marginals, projective_tree
from diffdecode.structure.trees.sampling import sample_nonprojective_trees, sample_projective_trees
from diffdecode.structure.trees.tensors import check_inputs, heads_to_arcs, possible_arcs


def tree_argmax(
    scores: Tensor,
    lengths=None,
    *,
    surrogate: str | Surrogate = "spigot",
    projective: bool = True,
    multi_root: bool = False,
    generator: torch.Generator | None = None,
    **options,
) -> Tensor:
    """Dependency trees that gradients pass through: ``z`` of equation 1 with a chosen ``dL/ds``.

    Args:
        scores: ``[B, N+1, N+1]``, ``scores[b, dependent, head]`` with position 0 the root; -inf forbids an
            arc. Any device and floating dtype.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).
        surrogate: a name in :data:`~diffdecode.structure.surrogates.SURROGATES`, or a surrogate.
        projective, multi_root: which trees.
        generator: on the CPU; of the surrogates that draw samples or noise.
        **options: of the surrogate, such as ``eta`` of ``"spigot"``.

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
    trees = Trees(lengths, projective, multi_root)
    return structured_argmax(computed, trees, chosen, generator).to(scores.dtype)


@dataclass(frozen=True)
class Trees(Structure):
    """All dependency trees over ``lengths [B]`` words; parts are arcs ``[B, N+1, N+1]``."""

    lengths: Tensor
    projective: bool = True
    multi_root: bool = False

    def possible(self, scores):
        return possible_arcs(self.lengths, scores.shape[-1]) & (scores > -torch.inf)

    def argmax(self, scores):
        decide = projective_tree if self.projective else nonprojective_tree
        heads = decide(scores, self.lengths, multi_root=self.multi_root)
        return heads_to_arcs(heads, dtype=scores.dtype)

    def sample(self, scores, generator):
        draw = sample_projective_trees if self.projective else sample_nonprojective_trees
        heads = draw(scores, self.lengths, multi_root=self.multi_root, generator=generator)[0]
        return heads_to_arcs(heads, dtype=scores.dtype)

    def marginals(self, scores):
        marginals = projective_marginals if self.projective else nonprojective_marginals
        return marginals(scores, self.lengths, multi_root=self.multi_root)[0]

    def covariance_product(self, scores, vector):
        algorithm = "inside_outside" if self.projective else "matrix_tree"
        product = kernel(f"{algorithm}_covariance_product", scores.device)
        return product(scores.contiguous(), self.lengths, self.multi_root, vector.contiguous()).to(scores)

    def project(self, point, polytope, near):
        if polytope == "relaxed":
            return p_dep(point, self.lengths)
        if polytope == "exact":
            heads = near[:, 1:].argmax(-1)
            kind = {"projective": self.projective, "multi_root": self.multi_root}
            return project_trees(point, self.lengths, start=heads, **kind).point
        raise ValueError(f"no polytope {polytope!r} for trees; there are 'relaxed' (P_DEP) and 'exact'")
