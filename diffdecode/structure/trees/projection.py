"""Exact Euclidean projection onto the convex hull of trees (or of any structures with an argmax).

The active-set method of Wolfe ("Finding the nearest point in a polytope", 1976), which SparseMAP (Niculae,
Martins, Blondel and Cardie, ICML 2018) applies to structures: the only thing it asks of a polytope is its
argmax. With it SPIGOT (Peng, Thomson and Smith, ACL 2018, footnote 3) can project onto the tree polytope
itself instead of the relaxation of equation 5.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffdecode.structure.trees.nonprojective import nonprojective_tree
from diffdecode.structure.trees.projective import projective_tree
from diffdecode.structure.trees.tensors import (
    LARGEST_SUMMABLE,
    PADDING,
    check_inputs,
    possible_arcs,
    raise_for_status,
    status_of_scores,
    tree_scores,
)


class TreeProjection(NamedTuple):
    """Projections of a batch, and how far they can be from exact."""

    point: Tensor
    """``[B, N+1, N+1]``, an average of trees."""
    gap: Tensor
    """``[B]`` float64: the duality gap. The squared distance to the exact projection is at most this."""
    steps: Tensor
    """``[B]`` int64: how often the argmax was asked for another tree."""


@torch.no_grad()
def project_trees(
    point: Tensor,
    lengths=None,
    *,
    projective: bool = True,
    multi_root: bool = False,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    max_steps: int | None = None,
) -> TreeProjection:
    """The nearest point of the tree polytope, without gradient. Computed in float64 on the CPU.

    Args:
        point: ``[B, N+1, N+1]``, ``point[b, dependent, head]``; -inf forbids an arc.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).
        projective, multi_root: which trees.
        start: ``[B, N]`` heads of a tree that is likely to be near, as SPIGOT's decision is; ``None`` starts
            from the tree that scores best under ``point``.
        tolerance: stop when the distance to the exact projection is at most this.
        max_steps: stop after so many steps in any case; ``None`` means 20 N + 50.

    Raises:
        ValueError: naming the batch row, for NaN, +inf, a sentence without a tree, or an impossible length.
    """
    scores, lengths = check_inputs(point, lengths)
    scores = scores.to("cpu", torch.float64).contiguous()
    words = lengths.cpu()
    raise_for_status(status_of_scores(scores, words), "tree")
    decide = projective_tree if projective else nonprojective_tree
    if start is None:
        start = decide(scores, words, multi_root=multi_root)
    padding = torch.arange(start.shape[1]) >= words[:, None]
    start = start.cpu().masked_fill(padding, PADDING)
    if not (tree_scores(scores, start) > -torch.inf).all():
        raise ValueError("start holds a tree with an arc that point forbids (-inf)")
    if max_steps is None:
        max_steps = 20 * start.shape[1] + 50
    kind = f"{'' if multi_root else 'single-root '}{'projective ' if projective else ''}tree"
    projection, gap, steps, status = _project(
        scores, words, projective, multi_root, start, tolerance**2, max_steps
    )
    raise_for_status(status, kind)
    return TreeProjection(projection.to(point), gap.to(point.device), steps.to(point.device))


def _project(scores, lengths, projective, multi_root, start, tolerance, max_steps):
    from diffdecode.structure.kernels.numba.active_set import project_trees as kernel
    from diffdecode.structure.kernels.threads import run_over_batch

    batch = len(scores)
    projection = torch.zeros_like(scores)
    gap, steps = torch.zeros(batch, dtype=torch.float64), torch.zeros(batch, dtype=torch.int64)
    status = torch.zeros(batch, dtype=torch.int8)
    scores = _centred(scores, lengths)
    run_over_batch(
        kernel, 2e-7 * lengths.numpy() ** 3.0, scores.numpy(), lengths.numpy(), projective, multi_root,
        LARGEST_SUMMABLE[torch.float64], start.contiguous().numpy(), tolerance, max_steps,
        projection.numpy(), gap.numpy(), steps.numpy(), status.numpy(),
    )  # fmt: skip
    return projection, gap, steps, status


def _centred(scores: Tensor, lengths: Tensor) -> Tensor:
    """Scores with each word's best arc at 0: every tree loses the same, and sums stay small."""
    possible = possible_arcs(lengths, scores.shape[1])
    best = scores.masked_fill(~possible, -torch.inf).amax(-1, keepdim=True)
    return scores - best.masked_fill(best.abs() == torch.inf, 0)


def project_onto_hull(
    point: np.ndarray, argmax, start: np.ndarray, tolerance: float = 1e-6, max_steps: int = 1000
) -> tuple[np.ndarray, float, int]:
    """Projection of ``point [D]`` onto the convex hull of the vertices that ``argmax`` can return.

    This is the readable definition of what :func:`project_trees` does, for any structure.

    Args:
        argmax: scores ``[D]`` to the vertex ``[D]`` (of 0 and 1) with the highest inner product.
        start: a vertex to start from.
        tolerance: stop when the distance to the exact projection is at most this.

    Returns:
        the projection, the duality gap, and the number of steps.
    """
    vertices, weights = start[None], np.ones(1)
    for step in range(max_steps + 1):
        mean = weights @ vertices
        residual = np.where(point > -np.inf, point - mean, -np.inf)
        vertex = argmax(residual)
        chosen = vertex > 0
        gap = residual[chosen] @ vertex[chosen] - residual[mean > 0] @ mean[mean > 0]
        if gap <= tolerance**2 or step == max_steps or (vertices == vertex).all(1).any():
            return mean, float(gap), step
        vertices, weights = np.vstack([vertices, vertex]), np.append(weights, 0.0)
        vertices, weights = _nearest_in_hull(point, vertices, weights)
    raise AssertionError("the loop returns in its last step")


def _nearest_in_hull(point, vertices, weights):
    """Solve over the affine hull; where that leaves the hull, stop at its edge, drop a vertex, try again."""
    while True:
        target = _nearest_in_affine_hull(np.where(point > -np.inf, point, 0.0), vertices)
        leaving = target < 0
        if not leaving.any():
            return vertices, target
        steps = weights[leaving] / (weights[leaving] - target[leaving])
        weights = weights + steps.min() * (target - weights)
        blocking = np.flatnonzero(leaving)[steps.argmin()]
        vertices, weights = np.delete(vertices, blocking, 0), np.delete(weights, blocking)


def _nearest_in_affine_hull(point, vertices):
    """Weights that sum to 1 and minimise ``|weights @ vertices - point|``: a linear system (KKT)."""
    size = len(vertices)
    system = np.ones((size + 1, size + 1))
    system[:size, :size], system[size, size] = vertices @ vertices.T, 0.0
    return np.linalg.lstsq(system, np.append(vertices @ point, 1.0), rcond=None)[0][:size]
