"""Eisner's algorithm on 16 sentences at once, one in each lane of a vector, as ``reference.inside_charts``.

Three charts lie one after the other in a flat buffer, each indexed ``[i, j, lane]`` and kept symmetric, so
that every maximum runs over two contiguous rows: ``right`` and ``left`` hold complete spans, ``arcs`` holds
``arc_right(i, j)`` at ``[i, j]`` and ``arc_left(i, j)`` at ``[j, i]``. The additions and the leftmost
choices are those of the reference.
"""

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.compiled import ONE, kernel, part
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.numba.vectors import FLOAT32_LANES as LANES
from diffdecode.structure.kernels.numba.vectors import max_plus
from diffdecode.structure.kernels.numba.walk import best_tree
from diffdecode.structure.kernels.status import NO_TREE, OK, PADDING

STEP = np.int64(LANES)  # no literal, as ONE


@kernel("int64, int64, float32[:,:,::1], int64[::1], int64[::1], boolean, float32, int64[:,::1], int8[::1]")
def eisner_lanes(memory, start, stop, scores, lengths, order, multi_root, largest, heads, status):
    """Fill ``heads [B, N]`` and ``status [B]`` of the sentences in groups ``start <= g < stop``.

    Group ``g`` is ``order[LANES * g : LANES * (g + 1)]``, sentences of like lengths, the longest first.
    """
    longest = scores.shape[1]
    charts = empty(memory, (3 * longest * longest + 1) * LANES, np.float32)
    agenda = empty(memory, (2 * longest + 4, 3), np.int64)
    group = empty(memory, LANES, np.int64)
    first = 0 if multi_root else 1
    for g in range(start, stop):
        for lane in range(LANES):  # the last group's idle lanes repeat a sentence
            group[lane] = order[min(LANES * g + lane, len(order) - 1)]
        size = lengths[group[0]] + 1 - first
        row = size * LANES
        bases = size * row, 2 * size * row, 2 * size * row, -ONE
        fill_charts(scores, group, uintp(first), uintp(size), charts)
        for lane in range(min(LANES, len(order) - LANES * g)):
            b = group[lane]
            for m in range(longest - 1):
                heads[b, m] = PADDING
            status[b] = status_of_scores(scores, b, lengths[b], largest)
            if status[b] == OK:
                found = best_tree(
                    scores[b], lengths[b], first, charts[lane:], row, STEP, row, STEP, bases, agenda, heads[b]
                )
                status[b] = OK if found else NO_TREE


@part()
def fill_charts(scores, group, first, size, charts):
    """Values of all spans over positions ``first .. first + size - 1`` of the group's sentences."""
    one, lanes = uintp(1), uintp(LANES)
    row = size * lanes
    right, left = uintp(0), size * row
    arcs, best = left + left, left + left + left
    for k in range(size):
        for lane in range(lanes):
            charts[right + k * row + k * lanes + lane] = 0
            charts[left + k * row + k * lanes + lane] = 0
    for j in range(one, size):
        for distance in range(j):
            i = j - one - distance
            width = j - i
            ii, ij, ji = i * row + i * lanes, i * row + j * lanes, j * row + i * lanes
            max_plus(charts, right + ii, left + ji + lanes, width, best)
            for lane in range(lanes):
                b, value = group[lane], charts[best + lane]
                charts[arcs + ji + lane] = value + scores[b, i + first, j + first]
                charts[arcs + ij + lane] = value + scores[b, j + first, i + first]
            max_plus(charts, left + ii, arcs + ji, width, left + ij)
            max_plus(charts, arcs + ii + lanes, right + ji + lanes, width, right + ij)
            for lane in range(lanes):
                charts[left + ji + lane] = charts[left + ij + lane]
                charts[right + ji + lane] = charts[right + ij + lane]
