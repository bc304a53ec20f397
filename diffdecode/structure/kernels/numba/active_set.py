"""The active-set projection onto tree polytopes on the CPU: ``active_set.project_onto_hull``, compiled.

A tree is its heads, so the inner product of two trees is the number of arcs they share. The Gram matrix
of the active trees is kept as a Cholesky factor that grows and shrinks with them (a row appended; a row
deleted by rotations), which makes a step O(K^2) for K active trees instead of a solve from scratch.
"""

import math

import numpy as np

from diffdecode.structure.kernels.numba.compiled import ZERO, kernel, part
from diffdecode.structure.kernels.numba.edmonds import edmonds
from diffdecode.structure.kernels.numba.eisner import best_projective_tree
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.numba.vectors import FLOAT64_LANES as LANES

DEPENDENT = 1e-9  # a squared pivot below this: the tree lies in the affine hull of the active ones
PADDED = 64  # more than the rows of Eisner's charts are padded by


@kernel(
    "int64, int64, float64[:,:,::1], int64[::1], boolean, boolean, float64, int64[:,::1], float64, int64, "
    "float64[:,:,::1], float64[::1], int64[::1], int8[::1]"
)
def project_trees(
    memory, start, stop, points, lengths, projective, multi_root, largest, heads, tolerance, max_steps,
    projections, gaps, steps, status,
):  # fmt: skip
    """Project ``points [B, N+1, N+1]`` (float64, no NaN or +inf) for the sentences ``start <= b < stop``.

    ``heads [B, N]`` is the first active tree of each sentence, ``lengths[b]`` its words, ``tolerance`` the
    gap at which to stop. Fills ``projections``, ``gaps [B]``, ``steps [B]`` and the oracle's ``status [B]``.
    """
    size = points.shape[1]
    most = min(max_steps + 1, (size - 1) ** 2 + 1)
    active_set = (
        empty(memory, (most, most), np.float64),
        empty(memory, (most, size - 1), np.int64),
        empty(memory, (4, most), np.float64),
    )
    residual, tree = empty(memory, (1, size, size), np.float64), empty(memory, (1, size - 1), np.int64)
    charts = empty(memory, 4 * size * (size + PADDED), np.float64)
    agenda = empty(memory, (2 * size + 4, 3), np.int64)
    row = (size + LANES - 1) // LANES * LANES
    weights, values = empty(memory, (2 * size, row), np.float64), empty(memory, (3, 2 * size), np.float64)
    enters, nodes = empty(memory, (2 * size, row), np.int32), empty(memory, (11, 2 * size), np.int32)
    none = empty(memory, (ZERO, ZERO, ZERO), np.float32)
    for b in range(start, stop):
        gaps[b], steps[b] = np.inf, 0
        active = _start(active_set, heads[b], points[b], lengths[b])
        while True:
            within = _residual(active_set, active, points[b], lengths[b], projections[b], residual[0])
            if projective:
                status[b] = best_projective_tree(
                    residual, ZERO, lengths[b], multi_root, charts, agenda, tree[0]
                )
            else:
                status[b] = edmonds(
                    none, residual, ZERO, lengths[b] + 1, multi_root, largest, weights, enters, nodes, values,
                    tree,
                )  # fmt: skip
            if status[b] != 0:
                break
            gaps[b] = _score(residual[0], tree[0], lengths[b]) - within
            if gaps[b] <= tolerance or steps[b] == max_steps or active == most:
                break
            steps[b] += 1
            active, progress = _activate(active_set, active, tree[0], points[b], lengths[b])
            if not progress:
                break


@part()
def _start(active_set, heads, point, n):
    """The active set is this tree alone; 1."""
    factor, trees, vectors = active_set
    vectors[0, 0] = 1.0
    return _append(factor, trees, vectors, ZERO, heads, point, n)


@part()
def _activate(active_set, active, heads, point, n):
    """Add a tree and move to the minimum: the new size, and whether the tree stayed.

    In exact arithmetic it stays; if not, its gain was rounding, and float64 cannot come closer.
    """
    factor, trees, vectors = active_set
    grown = _append(factor, trees, vectors, active, heads, point, n)
    if grown == active:
        return active, False
    vectors[0, active] = 0.0
    active = _to_the_minimum(factor, trees, vectors, grown, n)
    for m in range(n):
        if trees[active - 1, m] != heads[m]:
            return active, False
    return active, True


@part()
def _score(scores, heads, n):
    total = 0.0
    for m in range(n):
        total += scores[m + 1, heads[m]]
    return total


@part()
def _residual(active_set, active, point, n, mean, residual):
    """mean <- the average of the active trees, residual <- point - mean; returns <residual, mean>."""
    _, trees, vectors = active_set
    for m in range(len(mean)):
        for h in range(len(mean)):
            mean[m, h] = 0.0
    for k in range(active):
        for m in range(n):
            mean[m + 1, trees[k, m]] += vectors[0, k]
    within = 0.0
    for m in range(1, n + 1):
        for h in range(n + 1):
            residual[m, h] = point[m, h] - mean[m, h]
            if mean[m, h] > 0.0:
                within += residual[m, h] * mean[m, h]
    return within


@part()
def _append(factor, trees, vectors, active, heads, point, n):
    """Add a tree to the factor and to L^-1 scores, L^-1 1; the new number of active trees."""
    by_scores, by_ones = vectors[1], vectors[2]
    row = factor[active]
    pivot, score, one = float(n), _score(point, heads, n), 1.0
    for k in range(active):
        shared = 0.0
        for m in range(n):
            shared += trees[k, m] == heads[m]
        for i in range(k):
            shared -= row[i] * factor[k, i]
        row[k] = shared / factor[k, k]
        pivot -= row[k] * row[k]
        score -= row[k] * by_scores[k]
        one -= row[k] * by_ones[k]
    if pivot <= DEPENDENT:
        return active
    row[active] = math.sqrt(pivot)
    by_scores[active], by_ones[active] = score / row[active], one / row[active]
    for m in range(n):
        trees[active, m] = heads[m]
    return active + 1


@part()
def _to_the_minimum(factor, trees, vectors, active, n):
    """Move the weights to the nearest point of the active trees' hull, dropping trees that get weight 0."""
    weights, target = vectors[0], vectors[3]
    while True:
        _affine_minimum(factor, vectors, active)
        step, blocking = 1.0, -1
        for k in range(active):
            if target[k] < 0.0 and weights[k] < step * (weights[k] - target[k]):
                step, blocking = weights[k] / (weights[k] - target[k]), k
        for k in range(active):
            weights[k] += step * (target[k] - weights[k])
        if blocking < 0:
            return active
        # This one alone: another tree of weight 0 may be the new one, about to gain weight.
        _remove(factor, trees, vectors, active, blocking, n)
        active -= 1


@part()
def _affine_minimum(factor, vectors, active):
    """target <- weights of the point nearest to ``point`` in the affine hull of the active trees.

    They solve G w = scores - t 1 with 1'w = 1, where G = L L'.
    """
    by_scores, by_ones, target = vectors[1], vectors[2], vectors[3]
    both, ones = -1.0, 0.0
    for k in range(active):
        both += by_scores[k] * by_ones[k]
        ones += by_ones[k] * by_ones[k]
    for k in range(active):
        target[k] = by_scores[k] - both / ones * by_ones[k]
    for k in range(active - 1, -1, -1):
        target[k] /= factor[k, k]
        for i in range(k):
            target[i] -= factor[k, i] * target[k]


@part()
def _remove(factor, trees, vectors, active, gone, n):
    """Take tree ``gone`` out: delete its row, then rotate pairs of columns back to a triangle."""
    weights = vectors[0]
    for k in range(gone, active - 1):
        for i in range(k + 2):
            factor[k, i] = factor[k + 1, i]
        for m in range(n):
            trees[k, m] = trees[k + 1, m]
        weights[k] = weights[k + 1]
    for k in range(gone, active - 1):
        length = math.hypot(factor[k, k], factor[k, k + 1])
        cos, sin = factor[k, k] / length, factor[k, k + 1] / length
        for i in range(k, active - 1):
            a, b = factor[i, k], factor[i, k + 1]
            factor[i, k], factor[i, k + 1] = cos * a + sin * b, cos * b - sin * a
        for row in (1, 2):
            a, b = vectors[row, k], vectors[row, k + 1]
            vectors[row, k], vectors[row, k + 1] = cos * a + sin * b, cos * b - sin * a
