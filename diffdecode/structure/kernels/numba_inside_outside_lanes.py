"""Inside-outside on 8 sentences at once, one in each lane of a vector of float64, in the real domain.

Charts as in ``numba_eisner_lanes``, then the weights ``[dependent, head, lane]``, then the charts'
adjoints. Sentences whose sums leave float64's range are done again by ``numba_inside_outside``.
"""

import numpy as np
from numba import njit, uintp

from diffdecode.structure.kernels.numba_checks import status_of_scores
from diffdecode.structure.kernels.numba_inside_outside import (
    LARGEST_SUM,
    SMALLEST,
    exponentiate,
    log_domain_marginals,
    rows_sum_to_one,
)
from diffdecode.structure.kernels.numba_vectors import FLOAT64_LANES as LANES
from diffdecode.structure.kernels.numba_vectors import add_two_products, pull_back, sum_products
from diffdecode.structure.trees import NO_TREE


@njit(nogil=True, cache=True)
def inside_outside_lanes(
    start, stop, scores, lengths, order, multi_root, largest, marginals, log_partition, status
):
    """Fill the results of groups ``start <= g < stop``; group g is ``order[LANES * g : LANES * (g + 1)]``.

    The sentences of a group have like lengths, the longest first.
    """
    longest = scores.shape[1]
    charts = np.empty((7 * longest * longest + 2) * LANES)
    weights = np.empty((longest, longest))
    roots = np.empty((longest, LANES))
    shifts, partitions = np.empty(LANES), np.empty(LANES)
    first = 0 if multi_root else 1
    for g in range(start, stop):
        group = order[LANES * g : LANES * (g + 1)]
        size = lengths[group[0]] + 1 - first
        row = size * LANES
        charts[3 * size * row : 4 * size * row] = 0
        roots[:] = 0
        for lane in range(len(group)):
            b = group[lane]
            n = lengths[b]
            status[b] = status_of_scores(scores, b, n, largest)
            if status[b] == 0:
                shifts[lane] = exponentiate(scores[b], n, weights)
                _put_into_lane(weights, n, first, size, charts[3 * size * row + lane :])
                roots[1 : n + 1, lane] = weights[1 : n + 1, 0]
        fill_charts(uintp(size), charts)
        _start_adjoints(group, lengths, status, first, size, charts, roots, partitions)
        hand_down(uintp(size), charts)
        for lane in range(len(group)):
            b = group[lane]
            marginals[b] = 0
            if status[b] == 0:
                _take_from_lane(charts[3 * size * row + lane :], lengths[b], first, size, weights)
                if not multi_root:
                    weights[: lengths[b] + 1, 0] = roots[: lengths[b] + 1, lane]
                log_partition[b], status[b] = _finish(
                    scores[b], lengths[b], multi_root, partitions[lane], shifts[lane], weights, marginals[b]
                )


@njit(nogil=True, cache=True)
def _put_into_lane(weights, n, first, size, cells):
    for m in range(1, n + 1):
        for h in range(first, n + 1):
            cells[((m - first) * size + (h - first)) * LANES] = weights[m, h]


@njit(nogil=True, cache=True)
def _take_from_lane(cells, n, first, size, marginals):
    for m in range(1, n + 1):
        for h in range(first, n + 1):
            marginals[m, h] = cells[((m - first) * size + (h - first)) * LANES]
        marginals[m, m] = 0


@njit(nogil=True, cache=True)
def fill_charts(size, charts):
    """Inside sums of all spans of the group's sentences."""
    one, lanes = uintp(1), uintp(LANES)
    row = size * lanes
    right, left = uintp(0), size * row
    arcs, weights = left + left, left + left + left
    arc = size * row * uintp(7)
    for k in range(size):
        for lane in range(lanes):
            charts[right + k * row + k * lanes + lane] = 1
            charts[left + k * row + k * lanes + lane] = 1
    for j in range(one, size):
        for distance in range(j):
            i = j - one - distance
            width = j - i
            ii, ij, ji = i * row + i * lanes, i * row + j * lanes, j * row + i * lanes
            sum_products(charts, right + ii, left + ji + lanes, width, arc)
            sum_products(charts, arc, weights + ij, one, arcs + ji)
            sum_products(charts, arc, weights + ji, one, arcs + ij)
            sum_products(charts, left + ii, arcs + ji, width, left + ij)
            sum_products(charts, arcs + ii + lanes, right + ji + lanes, width, right + ij)
            for lane in range(lanes):
                charts[left + ji + lane] = charts[left + ij + lane]
                charts[right + ji + lane] = charts[right + ij + lane]


@njit(nogil=True, cache=True, error_model="numpy")
def _start_adjoints(group, lengths, status, first, size, charts, roots, partitions):
    """Partition functions; the adjoints of ``log(partition)`` at the top spans; marginals of root arcs.

    A lane out of float64's range gets adjoints of 0.
    """
    row = size * LANES
    block = size * row
    down = 4 * block
    charts[down : down + 3 * block] = 0
    for lane in range(len(group)):
        n = lengths[group[lane]]
        partitions[lane] = 0
        if status[group[lane]] != 0:
            continue
        if first == 0:
            top = n * LANES + lane
            partitions[lane] = charts[top]
            charts[down + top] = 1 / charts[top] if SMALLEST < charts[top] < LARGEST_SUM else 0.0
            continue
        for r in range(n):
            at_left, at_right = block + r * LANES + lane, r * row + (n - 1) * LANES + lane
            partitions[lane] += charts[at_left] * roots[r + 1, lane] * charts[at_right]
        usual = SMALLEST < partitions[lane] < LARGEST_SUM
        for r in range(n):
            at_left, at_right = block + r * LANES + lane, r * row + (n - 1) * LANES + lane
            weight = roots[r + 1, lane] / partitions[lane] if usual else 0.0
            charts[down + at_left] += weight * charts[at_right]
            charts[down + at_right] += weight * charts[at_left]
            roots[r + 1, lane] = charts[at_left] * weight * charts[at_right]


@njit(nogil=True, cache=True)
def hand_down(size, charts):
    """``fill_charts`` backwards; marginals take the place of the weights."""
    one, lanes = uintp(1), uintp(LANES)
    row = size * lanes
    block = size * row
    right, left = uintp(0), block
    arcs, weights = block + block, block + block + block
    down = weights + block
    by_span = down + weights
    for back in range(size - one):
        j = size - one - back
        for i in range(j):
            width = j - i
            ii, ij, ji = i * row + i * lanes, i * row + j * lanes, j * row + i * lanes
            for lane in range(lanes):
                charts[by_span + lane] = charts[down + right + ij + lane] + charts[down + right + ji + lane]
                charts[by_span + lanes + lane] = (
                    charts[down + left + ij + lane] + charts[down + left + ji + lane]
                )
            pull_back(charts, by_span, arcs + ii + lanes, right + ji + lanes, width, down)
            pull_back(charts, by_span + lanes, left + ii, arcs + ji, width, down)
            by_left, by_right = down + arcs + ji, down + arcs + ij
            add_two_products(charts, by_left, weights + ij, by_right, weights + ji, by_span)
            pull_back(charts, by_span, right + ii, left + ji + lanes, width, down)
            sum_products(charts, by_left, arcs + ji, one, weights + ij)
            sum_products(charts, by_right, arcs + ij, one, weights + ji)


@njit(nogil=True, cache=True)
def _finish(scores, n, multi_root, partition, shift, result, marginals):
    """Log-partition and status; writes the marginals, from the log domain where the real one did not do."""
    if SMALLEST < partition < LARGEST_SUM and rows_sum_to_one(result, n):
        log_partition = np.log(partition)
    else:
        log_partition = log_domain_marginals(result, scores, n, multi_root, result)
        if log_partition == -np.inf:
            return log_partition, NO_TREE
    for m in range(1, n + 1):
        for h in range(n + 1):
            marginals[m, h] = result[m, h]
    return log_partition + shift, 0
