"""Projections of trees: onto the hull of the trees themselves, and onto the relaxation P_DEP.

Both are for SPIGOT (Peng, Thomson and Smith, ACL 2018): equation 5 projects onto P_DEP, where every word has
one head in all; footnote 3 leaves the true polytope to future work. That one is reached by active sets, see
:mod:`diffdecode.structure.kernels.active_set`.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from diffdecode.checks import looks_once
from diffdecode.moves import moved
from diffdecode.structure.kernels import backend
from diffdecode.structure.kernels.status import PADDING, possible_arcs, status_of_scores
from diffdecode.structure.simplex import apply_projection, refuse_unprojectable
from diffdecode.structure.trees.tensors import Lengths, check_inputs, raise_for_status, tree_scores

if TYPE_CHECKING:
    from diffdecode.structure.trees.kind import TreeKind


class TreeProjection(NamedTuple):
    """Projections of a batch, and how far they can be from exact."""

    point: Tensor
    """``[B, N+1, N+1]``, an average of trees."""
    gap: Tensor
    """``[B]`` float64: the duality gap. The squared distance to the exact projection is at most this."""
    steps: Tensor
    """``[B]`` int64: how often the argmax was asked for another tree."""


@looks_once
def project_dep(point: Tensor, lengths: Lengths = None) -> Tensor:
    """Projection onto P_DEP, equation 5 by Algorithm 2: every word has one head in all. Differentiable.

    Args:
        point: ``[B, N+1, N+1]``, ``point[b, dependent, head]``; -inf forbids an arc.
        lengths: ``[B]`` words per sentence; ``None`` means N for all.

    Returns:
        ``[B, N+1, N+1]``; row 0 (the root), self arcs and padding are exactly 0.

    Raises:
        ValueError: wrong shape or lengths; NaN, or a word all of whose arcs are forbidden.
    """
    computed, lengths = check_inputs(point, lengths)
    p_dep = backend(computed.device).p_dep
    projected = apply_projection(computed, lambda array: p_dep(array, lengths))
    refuse_unprojectable(projected, "P_DEP")
    return projected.to(point.dtype)


@torch.no_grad()
def project(
    trees: "TreeKind",
    point: Tensor,
    lengths: Lengths,
    start: Tensor | None,
    tolerance: float,
    max_steps: int | None,
) -> TreeProjection:
    """The nearest point of the hull of ``trees``; see :func:`diffdecode.structure.project_trees`."""
    scores, lengths = check_inputs(point, lengths)
    scores = scores.to("cpu", torch.float64).contiguous()
    words = lengths.cpu()
    raise_for_status(status_of_scores(scores, words), str(trees))
    heads = trees.best(scores, words) if start is None else start.cpu()
    padding = torch.arange(heads.shape[1]) >= words[:, None]
    heads = heads.masked_fill(padding, PADDING)
    if not (tree_scores(scores, heads) > -torch.inf).all():
        raise ValueError("start holds a tree with an arc that point forbids (-inf)")
    if max_steps is None:
        max_steps = 20 * heads.shape[1] + 50
    compute = trees.algorithms(scores.device).project
    centred = _centred(scores, words)
    projection, gap, steps, status = compute(
        centred, words, trees.multi_root, heads.contiguous(), tolerance**2, max_steps
    )
    raise_for_status(status, str(trees))
    results = (projection.to(point.dtype), gap, steps)
    return TreeProjection(*(moved(result, point.device) for result in results))


def _centred(scores: Tensor, lengths: Tensor) -> Tensor:
    """Scores with each word's best arc at 0: every tree loses the same, and sums stay small."""
    possible = possible_arcs(lengths, scores.shape[1])
    best = scores.masked_fill(~possible, -torch.inf).amax(-1, keepdim=True)
    return scores - best.masked_fill(best.abs() == torch.inf, 0)
