"""Inside-outside on 8 sentences at once, one in each lane of a vector of float64, in the real domain.

Charts as in ``eisner_lanes``, one after the other in a flat buffer (see :func:`offsets`). The outside
pass gathers: an item's adjoint is a sum over the larger items that it is part of, along rows as in the
inside pass. ``fill_charts`` and ``hand_down`` work on numbers and on dual numbers alike. Sentences whose
sums leave float64's range are left to ``inside_outside_in_logs``.
"""

import math

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.compiled import kernel, part
from diffdecode.structure.kernels.numba.inside_outside import (
    LARGEST_SUM,
    MARGINALS,
    SMALLEST,
    exponentiate,
    rows_sum_to_one,
)
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.numba.vectors import FLOAT64_LANES as LANES
from diffdecode.structure.kernels.numba.vectors import (
    add_products,
    copy_cell,
    set_cell,
    sum_products,
)
from diffdecode.structure.kernels.status import LOST_DIGITS, OK

CHARTS = 8


@part()
def offsets(size, lanes):
    """Where the charts begin, and two cells for passing results; ``arcs[i, j]`` has head i, dependent j.

    ``right``, ``left``, ``arcs``, ``weights [dependent, head]``, ``turned`` (the arcs with the head second),
    then the adjoints of ``right``, ``left`` and of the sums that an arc completes.
    """
    block = size * size * lanes
    two, four = block + block, block + block + block + block
    return uintp(0), block, two, two + block, four, four + block, four + two, four + two + block, four + four


@kernel(MARGINALS)
def inside_outside_lanes(
    memory, start, stop, scores, lengths, order, multi_root, largest, marginals, log_partition, status
):
    """Fill the results of groups ``start <= g < stop``; group g is ``order[LANES * g : LANES * (g + 1)]``.

    The sentences of a group have like lengths, the longest first.
    """
    longest = scores.shape[1]
    weights = empty(memory, (longest, longest), np.float64)
    cells = empty(memory, (CHARTS * longest * longest + 2) * LANES, np.float64)
    roots, shifts = empty(memory, longest * LANES, np.float64), empty(memory, LANES, np.float64)
    partitions = empty(memory, LANES, np.float64)
    first = 0 if multi_root else 1
    for g in range(start, stop):
        count = min(LANES, len(order) - LANES * g)
        size = lengths[order[LANES * g]] + 1 - first
        at_weights = 3 * size * size * LANES
        for k in range(at_weights, at_weights + size * size * LANES):
            cells[k] = 0
        for lane in range(count):
            b = order[LANES * g + lane]
            n = lengths[b]
            status[b] = status_of_scores(scores, b, n, largest)
            if status[b] == OK:
                shifts[lane] = exponentiate(scores[b], n, weights)
                for m in range(1, n + 1):
                    roots[m * LANES + lane] = weights[m, 0]
                    for h in range(first, n + 1):
                        at = ((m - first) * size + (h - first)) * LANES + lane
                        cells[at_weights + at] = weights[m, h]
        fill_charts(uintp(size), uintp(LANES), cells)
        for k in range(5 * size * size * LANES, 7 * size * size * LANES):
            cells[k] = 0
        for lane in range(count):
            b = order[LANES * g + lane]
            partitions[lane] = 0
            if status[b] == OK:
                partitions[lane] = _start_adjoints(lengths[b], first, size, cells, lane, roots)
        hand_down(uintp(size), uintp(LANES), cells)
        for lane in range(count):
            b = order[LANES * g + lane]
            n = lengths[b]
            if status[b] == OK:
                for m in range(1, n + 1):
                    weights[m, 0] = roots[m * LANES + lane]
                    for h in range(first, n + 1):
                        at = ((m - first) * size + (h - first)) * LANES + lane
                        weights[m, h] = cells[at_weights + at]
                    weights[m, m] = 0
                log_partition[b] = shifts[lane]
                if SMALLEST < partitions[lane] < LARGEST_SUM and rows_sum_to_one(weights, n):
                    log_partition[b] += math.log(partitions[lane])
                else:
                    status[b] = LOST_DIGITS
            for m in range(longest):
                for h in range(longest):
                    inside = 0 < m <= n and h <= n and status[b] == OK
                    marginals[b, m, h] = weights[m, h] if inside else 0.0


@part()
def _start_adjoints(n, first, size, cells, lane, roots):
    """Adjoints of ``log(partition)`` at the top spans, marginals of root arcs; the partition function.

    A lane out of float64's range keeps adjoints of 0.
    """
    row = size * LANES
    block = size * row
    right, left, by_right, by_left = lane, block + lane, 5 * block + lane, 6 * block + lane
    if first == 0:
        partition = cells[right + n * LANES]
        if SMALLEST < partition < LARGEST_SUM:
            cells[by_right + n * LANES] = 1 / partition
    else:
        partition = 0.0
        for r in range(n):
            at_left, at_right = r * LANES, r * row + (n - 1) * LANES
            partition += cells[left + at_left] * roots[(r + 1) * LANES + lane] * cells[right + at_right]
        usual = SMALLEST < partition < LARGEST_SUM
        for r in range(n):
            at_left, at_right, at_root = r * LANES, r * row + (n - 1) * LANES, (r + 1) * LANES + lane
            weight = roots[at_root] / partition if usual else 0.0
            cells[by_left + at_left] += weight * cells[right + at_right]
            cells[by_right + at_right] += weight * cells[left + at_left]
            roots[at_root] = cells[left + at_left] * weight * cells[right + at_right]
    return partition


@part()
def fill_charts(size, lanes, charts):
    """Inside sums of all spans of the group's sentences."""
    one, row = uintp(1), size * lanes
    right, left, arcs, weights, turned, _, _, _, cell = offsets(size, lanes)
    for k in range(size):
        set_cell(charts, 1.0, right + k * row + k * lanes)
        set_cell(charts, 1.0, left + k * row + k * lanes)
    for j in range(one, size):
        for distance in range(j):
            i = j - one - distance
            width = j - i
            ii, ij, ji = i * row + i * lanes, i * row + j * lanes, j * row + i * lanes
            sum_products(charts, right + ii, left + ji + lanes, width, cell)
            sum_products(charts, cell, weights + ij, one, arcs + ji)
            sum_products(charts, cell, weights + ji, one, arcs + ij)
            copy_cell(charts, arcs + ij, turned + ji)
            copy_cell(charts, arcs + ji, turned + ij)
            sum_products(charts, left + ii, arcs + ji, width, left + ij)
            sum_products(charts, arcs + ii + lanes, right + ji + lanes, width, right + ij)
            copy_cell(charts, left + ij, left + ji)
            copy_cell(charts, right + ij, right + ji)


@part()
def hand_down(size, lanes, charts):
    """``fill_charts`` backwards, from the adjoints of the top spans; marginals replace the weights."""
    one, row = uintp(1), size * lanes
    right, left, arcs, weights, turned, by_right, by_left, by_sum, cell = offsets(size, lanes)
    for back in range(size - one):
        j = size - one - back
        beyond = back
        next_i, next_j = (j + one) * row + (j + one) * lanes, j * row + (j + one) * lanes
        for i in range(j):
            ij, ji = i * row + j * lanes, j * row + i * lanes
            # right(i, j) in the sums over (i, r) with r > j, and in right(h, j) with h < i; left alike.
            add_products(charts, by_sum + ij + lanes, left + next_i, beyond, by_right + ij)
            add_products(charts, by_right + j * row, turned + i * row, i, by_right + ij)
            add_products(charts, by_sum + j * row, right + i * row - row, i, by_left + ij)
            add_products(charts, by_left + ij + lanes, turned + next_j, beyond, by_left + ij)
            copy_cell(charts, by_right + ij, by_right + ji)
            copy_cell(charts, by_left + ij, by_left + ji)
            # arc_right(i, j) in right(i, r) with r >= j, arc_left(i, j) in left(h, j) with h <= i.
            sum_products(charts, by_right + ij, right + j * row + j * lanes, size - j, cell)
            sum_products(charts, by_left + j * row, left + i * row, i + one, cell + lanes)
            sum_products(charts, cell, weights + ji, one, by_sum + ij)
            add_products(charts, cell + lanes, weights + ij, one, by_sum + ij)
            copy_cell(charts, by_sum + ij, by_sum + ji)
            sum_products(charts, cell, arcs + ij, one, weights + ji)
            sum_products(charts, cell + lanes, arcs + ji, one, weights + ij)
