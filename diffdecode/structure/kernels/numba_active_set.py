"""The active-set projection onto tree polytopes on the CPU: ``active_set.project_onto_hull``, compiled.

A tree is its heads, so the inner product of two trees is the number of arcs they share. The Gram matrix
of the active trees is kept as a Cholesky factor that grows and shrinks with them (a row appended; a row
deleted by rotations), which makes a step O(K^2) for K active trees instead of a solve from scratch.
"""

import numpy as np
from numba import njit

from diffdecode.structure.kernels.numba_edmonds import arborescence
from diffdecode.structure.kernels.numba_eisner import eisner

DEPENDENT = 1e-9  # a squared pivot below this: the tree lies in the affine hull of the active ones


@njit(nogil=True, cache=True)
def project_trees(
    start, stop, points, lengths, projective, multi_root, largest, heads, tolerance, max_steps,
    projections, gaps, steps, status,
):  # fmt: skip
    """Project ``points [B, N+1, N+1]`` (float64) for the sentences ``start <= b < stop``.

    ``heads [B, N]`` is the first active tree of each sentence, ``lengths[b]`` its words, ``tolerance`` the
    gap at which to stop. Fills ``projections``, ``gaps [B]``, ``steps [B]`` and the oracle's ``status [B]``.
    """
    size = points.shape[1]
    most = min(max_steps + 1, (size - 1) ** 2 + 1)
    factor = np.empty((most, most))
    trees = np.empty((most, size - 1), np.int64)
    vectors = np.empty((4, most))
    residual = np.empty((1, size, size))
    tree, length, oracle_status = (
        np.empty((1, size - 1), np.int64),
        np.empty(1, np.int64),
        np.empty(1, np.int8),
    )
    for b in range(start, stop):
        n = lengths[b]
        length[0] = n
        point, mean = points[b], projections[b]
        weights = vectors[0]
        active = _append(factor, trees, vectors, 0, heads[b], point, n)
        weights[0] = 1.0
        steps[b] = 0
        while True:
            _mix(trees, weights, active, n, mean)
            within = _residual(point, mean, n, residual[0])
            if projective:
                eisner(0, 1, residual, length, multi_root, largest, tree, oracle_status)
            else:
                arborescence(0, 1, residual, length, multi_root, largest, tree, oracle_status)
            status[b] = oracle_status[0]
            if status[b] != 0:
                break
            gaps[b] = _score(residual[0], tree[0], n) - within
            if gaps[b] <= tolerance or steps[b] == max_steps or active == most:
                break
            steps[b] += 1
            grown = _append(factor, trees, vectors, active, tree[0], point, n)
            if grown == active:
                break  # as close as float64 can come
            weights[active] = 0.0
            active = _to_the_minimum(factor, trees, vectors, grown, n)
            if not np.array_equal(trees[active - 1, :n], tree[0, :n]):
                break  # dropped again: its gain was rounding


@njit(nogil=True, cache=True)
def _score(scores, heads, n):
    total = 0.0
    for m in range(n):
        total += scores[m + 1, heads[m]]
    return total


@njit(nogil=True, cache=True)
def _mix(trees, weights, active, n, mean):
    """mean <- the active trees' average."""
    mean[:] = 0.0
    for k in range(active):
        for m in range(n):
            mean[m + 1, trees[k, m]] += weights[k]


@njit(nogil=True, cache=True)
def _residual(point, mean, n, residual):
    """residual <- point - mean; returns their inner product <residual, mean>."""
    within = 0.0
    for m in range(1, n + 1):
        for h in range(n + 1):
            residual[m, h] = point[m, h] - mean[m, h]
            if mean[m, h] > 0.0:
                within += residual[m, h] * mean[m, h]
    return within


@njit(nogil=True, cache=True)
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
    row[active] = np.sqrt(pivot)
    by_scores[active], by_ones[active] = score / row[active], one / row[active]
    trees[active, :n] = heads[:n]
    return active + 1


@njit(nogil=True, cache=True)
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
        weights[blocking] = 0.0
        for k in range(active - 1, -1, -1):
            if weights[k] <= 0.0:
                _remove(factor, trees, vectors, active, k, n)
                active -= 1


@njit(nogil=True, cache=True)
def _affine_minimum(factor, vectors, active):
    """target <- weights of the point nearest to ``point`` in the affine hull of the active trees.

    They solve G w = scores - t 1 with 1'w = 1, where G = L L'.
    """
    _, by_scores, by_ones, target = vectors
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


@njit(nogil=True, cache=True)
def _remove(factor, trees, vectors, active, gone, n):
    """Take tree ``gone`` out: delete its row, then rotate pairs of columns back to a triangle."""
    weights, by_scores, by_ones, _ = vectors
    for k in range(gone, active - 1):
        factor[k, : k + 2] = factor[k + 1, : k + 2]
        trees[k, :n] = trees[k + 1, :n]
        weights[k] = weights[k + 1]
    for k in range(gone, active - 1):
        length = np.hypot(factor[k, k], factor[k, k + 1])
        cos, sin = factor[k, k] / length, factor[k, k + 1] / length
        for i in range(k, active - 1):
            a, b = factor[i, k], factor[i, k + 1]
            factor[i, k], factor[i, k + 1] = cos * a + sin * b, cos * b - sin * a
        for vector in (by_scores, by_ones):
            a, b = vector[k], vector[k + 1]
            vector[k], vector[k + 1] = cos * a + sin * b, cos * b - sin * a
