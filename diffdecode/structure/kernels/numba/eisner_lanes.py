"""Eisner's algorithm on 16 sentences at once, one in each lane of a vector, as ``reference.inside_charts``.

Three charts lie one after the other in a flat buffer, each indexed ``[i, j, lane]`` and kept symmetric, so
that every maximum runs over two contiguous rows: ``right`` and ``left`` hold complete spans, ``arcs`` holds
``arc_right(i, j)`` at ``[i, j]`` and ``arc_left(i, j)`` at ``[j, i]``. The additions and the leftmost
choices are those of the reference.
"""

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.agenda import push
from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.compiled import kernel, part
from diffdecode.structure.kernels.numba.vectors import FLOAT32_LANES as LANES
from diffdecode.structure.kernels.numba.vectors import empty_cells, max_plus
from diffdecode.structure.kernels.status import NO_TREE, PADDING

RIGHT, LEFT, ARC_RIGHT, ARC_LEFT = 0, 1, 2, 3


@kernel()
def eisner_lanes(start, stop, scores, lengths, order, multi_root, largest, heads, status):
    """Fill ``heads [B, N]`` and ``status [B]`` of the sentences in groups ``start <= g < stop``.

    Group ``g`` is ``order[LANES * g : LANES * (g + 1)]``, sentences of like lengths, the longest first.
    """
    longest = scores.shape[1]
    charts = empty_cells((3 * longest * longest + 1) * LANES, scores)
    agenda = np.empty((2 * longest + 4, 3), np.int64)
    group = np.empty(LANES, np.int64)
    first = 0 if multi_root else 1
    for g in range(start, stop):
        for lane in range(LANES):  # the last group's idle lanes repeat a sentence
            group[lane] = order[min(LANES * g + lane, len(order) - 1)]
        size = lengths[group[0]] + 1 - first
        fill_charts(scores, group, uintp(first), uintp(size), charts)
        for lane in range(min(LANES, len(order) - LANES * g)):
            b = group[lane]
            heads[b] = PADDING
            status[b] = status_of_scores(scores, b, lengths[b], largest)
            if status[b] == 0:
                found = _best_tree(scores[b], lengths[b], first, size, charts[lane:], agenda, heads[b])
                status[b] = 0 if found else NO_TREE


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


@part()
def _best_tree(scores, n, first, size, charts, agenda, heads):
    """Heads of one sentence, from its lane of the charts; whether it has a tree."""
    row = size * LANES
    left = size * row
    if first == 0:
        if not charts[n * LANES] > -np.inf:
            return False
        top = push(agenda, 0, 0, n, RIGHT)
    else:
        best, root = scores.dtype.type(-np.inf), 0
        for r in range(n):
            value = charts[left + r * LANES] + scores[r + 1, 0] + charts[r * row + (n - 1) * LANES]
            if value > best:
                best, root = value, r
        if not best > -np.inf:
            return False
        heads[root] = 0
        top = push(agenda, push(agenda, 0, 0, root, LEFT), root, n - 1, RIGHT)
    _follow_best_splits(first, size, charts, agenda, top, heads)
    return True


@part()
def _follow_best_splits(first, size, charts, agenda, top, heads):
    """Walk down from the agenda's items (left end, right end, kind), setting the head of each arc."""
    row = size * LANES
    left, arcs = size * row, 2 * size * row
    while top > 0:
        top -= 1
        i, j, kind = agenda[top, 0], agenda[top, 1], agenda[top, 2]
        if i == j:
            continue
        if kind == RIGHT:
            value, r = charts[i * row + j * LANES], i + 1
            while r < j and charts[arcs + i * row + r * LANES] + charts[j * row + r * LANES] != value:
                r += 1
            first_kind, second_kind, start = ARC_RIGHT, RIGHT, r
        elif kind == LEFT:
            value, r = charts[left + i * row + j * LANES], i
            while (
                r < j - 1 and charts[left + i * row + r * LANES] + charts[arcs + j * row + r * LANES] != value
            ):
                r += 1
            first_kind, second_kind, start = LEFT, ARC_LEFT, r
        else:
            dependent, head = (j, i) if kind == ARC_RIGHT else (i, j)
            heads[dependent + first - 1] = head + first
            best, r = charts[i * row + i * LANES] + charts[left + j * row + (i + 1) * LANES], i
            for split in range(i + 1, j):
                value = charts[i * row + split * LANES] + charts[left + j * row + (split + 1) * LANES]
                if value > best:
                    best, r = value, split
            first_kind, second_kind, start = RIGHT, LEFT, r + 1
        top = push(agenda, push(agenda, top, i, r, first_kind), start, j, second_kind)
