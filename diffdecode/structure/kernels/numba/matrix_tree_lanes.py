"""Matrix-tree marginals of 8 sentences at once, one in each lane of a vector of float64, in the real domain.

The elimination of ``matrix_tree`` and its way back, on cells ``[dependent, head, lane]`` of a flat
buffer: the weights being eliminated, the given weights, the adjoints, and a few rows of scratch. Sentences
that leave float64's range are left to ``matrix_tree_in_logs``.
"""

import math

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.compiled import kernel, part
from diffdecode.structure.kernels.numba.inside_outside import MARGINALS
from diffdecode.structure.kernels.numba.matrix_tree import (
    LARGEST_PIVOT,
    SMALLEST,
    are_probabilities,
    bring_to_front,
    exponentiate,
    likeliest_root,
    put_back,
    put_in_order,
)
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.numba.vectors import FLOAT64_LANES as LANES
from diffdecode.structure.kernels.numba.vectors import (
    add_products,
    add_scaled,
    sum_cells,
    sum_products,
)
from diffdecode.structure.kernels.status import LOST_DIGITS, OK


@kernel(MARGINALS)
def matrix_tree_lanes(
    memory, start, stop, scores, lengths, order, multi_root, largest, marginals, log_partition, status
):
    """Fill the results of groups ``start <= g < stop``; group g is ``order[LANES * g : LANES * (g + 1)]``.

    The sentences of a group have like lengths, the longest first.
    """
    longest = scores.shape[1]
    work = empty(memory, (longest, longest), np.float64)
    ordered = empty(memory, (longest, longest), np.float64)
    cells = empty(memory, (3 * longest * longest + 3 * longest + 2) * LANES, np.float64)
    words, shifts = empty(memory, (LANES, longest), np.int64), empty(memory, LANES, np.float64)
    for g in range(start, stop):
        count = min(LANES, len(order) - LANES * g)
        size = lengths[order[LANES * g]] + 1
        block = size * size * LANES
        _hang_all_words(size, cells)
        for lane in range(count):
            b = order[LANES * g + lane]
            n = lengths[b]
            status[b] = status_of_scores(scores, b, n, largest)
            if status[b] == OK:
                bring_to_front(words[lane], 1 if multi_root else likeliest_root(scores[b], n))
                shifts[lane] = exponentiate(scores[b], n, work)
                put_in_order(work, n, words[lane], ordered)
                for m in range(1, n + 1):
                    for h in range(n + 1):
                        cells[(m * size + h) * LANES + lane] = ordered[m, h]
        for t in range(block):
            cells[block + t] = cells[t]
        eliminate(uintp(size), multi_root, cells)
        undo(uintp(size), multi_root, cells)
        for lane in range(count):
            b = order[LANES * g + lane]
            n = lengths[b]
            if status[b] == OK:
                log_partition[b] = _take_from_lane(cells, lane, n, size, multi_root, work) + shifts[lane]
                status[b] = OK if log_partition[b] > -np.inf else LOST_DIGITS
            put_back(work, n, words[lane], status[b] == OK, marginals[b])


@part()
def _hang_all_words(size, cells):
    """Where a lane has no sentence or no more words, these hang on word 1, and that one on the root."""
    for k in range(size * size * LANES):
        cells[k] = 0
    for m in range(1, size):
        head = 0 if m == 1 else 1
        for lane in range(LANES):
            cells[(m * size + head) * LANES + lane] = 1


@part()
def _take_from_lane(cells, lane, n, size, multi_root, marginals):
    """Marginals and log-partition of the weights; -inf where the real domain did not do."""
    block = size * size * LANES
    pivots = 3 * block + lane
    log_partition = 0.0
    for k in range(1, n + 1):
        pivot = cells[pivots + k * LANES]
        log_partition += math.log(pivot) if SMALLEST < pivot < LARGEST_PIVOT else -np.inf
        for h in range(n + 1):
            at = (k * size + h) * LANES + lane
            marginals[k, h] = cells[block + at] * cells[2 * block + at]
    return log_partition if are_probabilities(marginals, n, multi_root) else -np.inf


@part()
def eliminate(size, multi_root, cells):
    """Reroute the arcs through words ``size - 1 .. 1`` in place, keeping the pivots and their inverses."""
    one, lanes = uintp(1), uintp(LANES)
    row = size * lanes
    pivots = uintp(3) * size * row
    inverses, factor = pivots + row, pivots + row + row + row + lanes
    for back in range(size - one):
        k = size - one - back
        first = uintp(0 if multi_root or k == 1 else 1)
        sum_cells(cells, k * row + first * lanes, k - first, pivots + k * lanes)
        for lane in range(lanes):
            cells[inverses + k * lanes + lane] = 1 / cells[pivots + k * lanes + lane]
        for i in range(one, k):
            sum_products(cells, i * row + k * lanes, inverses + k * lanes, one, factor)
            add_scaled(cells, factor, k * row, k, i * row)


@part()
def undo(size, multi_root, cells):
    """``eliminate`` backwards: adjoints of ``log(partition)`` at all weights."""
    one, lanes = uintp(1), uintp(LANES)
    row = size * lanes
    block = size * row
    adjoints = block + block
    inverses = adjoints + block + row
    through, own = inverses + row, inverses + row + row
    for k in range(block):
        cells[adjoints + k] = 0
    for k in range(one, size):
        first = 0 if multi_root or k == 1 else 1
        inverse = inverses + k * lanes
        for h in range(row):
            cells[through + h] = 0
        for i in range(one, k):
            add_scaled(cells, i * row + k * lanes, adjoints + i * row, k, through)
            sum_products(cells, adjoints + i * row, k * row, k, own)
            sum_products(cells, own, inverse, one, adjoints + i * row + k * lanes)
        sum_products(cells, through, k * row, k, own)
        for lane in range(lanes):
            cells[own + lane] = 1 - cells[own + lane] * cells[inverse + lane]
        for h in range(k):
            target = adjoints + k * row + h * lanes
            sum_products(cells, through + h * lanes, inverse, one, target)
            if h >= first:
                add_products(cells, own, inverse, one, target)
