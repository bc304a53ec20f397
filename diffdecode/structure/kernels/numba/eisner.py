"""Eisner's algorithm on the CPU: the recursion of ``reference.inside_charts``, in an order that vectorises.

Four charts lie one after the other in a flat buffer; row ``j`` (the right end of a span), column ``i`` (the
left end). Right ends go up and left ends down; each finished cell is pushed into every cell to its left
that it is part of, so that all inner loops run over contiguous memory without a reduction::

    arc[j, :i]   max=  right[i-1, :i] + left(i, j)
    left[j, :i]  max=  left[i, :i]    + arc_left(i, j)
    right[j, :i] max=  arc_right[i, :i] + right(i, j)

Rows are padded to whole vectors with -inf, so there is no remainder loop. No back-pointers are kept: the
walk down finds each split again as the leftmost whose sum is exactly the cell's value. Each sum is the
single addition that the reference makes, so values, ties and trees are the same.
"""

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.agenda import push
from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.compiled import inlined, kernel, part
from diffdecode.structure.kernels.status import NO_TREE, PADDING

LANES = 16
RIGHT, LEFT, ARC_RIGHT, ARC_LEFT = 0, 1, 2, 3
# Unsigned offsets (signed ones may wrap, which blocks vectorisation), and no NaN (checked before).
FAST = {"nnan", "nsz"}


@kernel()
def eisner(start, stop, scores, lengths, order, multi_root, largest, heads, status):
    """Fill ``heads [B, N]`` and ``status [B]`` of the sentences ``order[start:stop]``."""
    size = scores.shape[1]
    row = (size + LANES - 1) // LANES * LANES
    charts = np.empty(4 * size * row, scores.dtype)
    agenda = np.empty((2 * size + 4, 3), np.int64)
    for b in order[start:stop]:
        n = lengths[b]
        heads[b] = PADDING
        status[b] = status_of_scores(scores, b, n, largest)
        if status[b] == 0:
            status[b] = best_projective_tree(scores, b, n, multi_root, charts, agenda, heads[b])


@part()
def best_projective_tree(scores, b, n, multi_root, charts, agenda, heads):
    """Heads of sentence ``b``; with one root word, spans hold words only and the root word is chosen last."""
    first = 0 if multi_root else 1
    size = n + 1 - first
    row = (size + LANES - 1) // LANES * LANES
    fill_charts(scores[b], uintp(first), uintp(size), charts, uintp(row))
    if multi_root:
        if not charts[n * row] > -np.inf:
            return NO_TREE
        top = push(agenda, 0, 0, n, RIGHT)
    else:
        root, best = best_root(scores[b], n, charts, row, size * row)
        if not best > -np.inf:
            return NO_TREE
        heads[root] = 0
        top = push(agenda, push(agenda, 0, 0, root, LEFT), root, n - 1, RIGHT)
    _follow_best_splits(scores[b], first, size, charts, row, agenda, top, heads)
    return 0


@inlined()
def best_root(scores, n, charts, row, left):
    """Leftmost best root word (counted from 0) and the value of its tree."""
    best, root = scores.dtype.type(-np.inf), 0
    for r in range(n):
        value = charts[left + r * row] + scores[r + 1, 0] + charts[(n - 1) * row + r]
        if value > best:
            best, root = value, r
    return root, best


@part(fastmath=FAST)
def fill_charts(scores, first, size, charts, row):
    """Values of all spans over positions ``first .. first + size - 1``."""
    one, impossible = uintp(1), scores.dtype.type(-np.inf)
    right, left = uintp(0), size * row
    arc_right, arc = left + left, left + left + left
    for k in range(arc + left):
        charts[k] = -np.inf
    for k in range(size):
        charts[right + k * row + k] = 0
        charts[left + k * row + k] = 0
    for j in range(one, size):
        right_j, left_j = right + j * row, left + j * row
        arc_right_j, arc_j = arc_right + j * row, arc + j * row
        for t in range(j):
            charts[arc_j + t] = charts[right_j - row + t]  # right(t, j-1) + left(j, j)
        for distance in range(j):
            i = j - one - distance
            # The root is no dependent: its row of the scores is not read.
            score_left = scores[i + first, j + first] if i + first > 0 else impossible
            to_left = charts[arc_j + i] + score_left
            to_right = charts[arc_j + i] + scores[j + first, i + first]
            best_left = max(charts[left_j + i], to_left)
            best_right = max(charts[right_j + i], to_right)
            charts[left_j + i], charts[right_j + i] = best_left, best_right
            charts[arc_right_j + i] = to_right
            if i > 0:
                count = (i + uintp(LANES - 1)) & ~uintp(LANES - 1)
                _push(charts, arc_j, right + (i - one) * row, best_left, count)
                _push(charts, left_j, left + i * row, to_left, count)
                _push(charts, right_j, arc_right + i * row, best_right, count)


@part(fastmath=FAST)
def _push(charts, target, source, value, count):
    for t in range(count):
        charts[target + t] = max(charts[target + t], charts[source + t] + value)


@part()
def _follow_best_splits(scores, first, size, charts, row, agenda, top, heads):
    """Walk down from the agenda's items (left end, right end, kind), setting the head of each arc."""
    right, left, arc_right, arc = 0, size * row, 2 * size * row, 3 * size * row
    while top > 0:
        top -= 1
        i, j, kind = agenda[top, 0], agenda[top, 1], agenda[top, 2]
        if i == j:
            continue
        if kind == RIGHT:
            value, r = charts[right + j * row + i], i + 1
            while r < j and charts[arc_right + r * row + i] + charts[right + j * row + r] != value:
                r += 1
            first_kind, second_kind, start = ARC_RIGHT, RIGHT, r
        elif kind == LEFT:
            value, r = charts[left + j * row + i], i
            while r < j - 1 and value != charts[left + r * row + i] + (
                charts[arc + j * row + r] + scores[r + first, j + first]
            ):
                r += 1
            first_kind, second_kind, start = LEFT, ARC_LEFT, r
        else:
            dependent, head = (j, i) if kind == ARC_RIGHT else (i, j)
            heads[dependent + first - 1] = head + first
            value, r = charts[arc + j * row + i], i
            while r < j - 1 and charts[right + r * row + i] + charts[left + j * row + r + 1] != value:
                r += 1
            first_kind, second_kind, start = RIGHT, LEFT, r + 1
        top = push(agenda, push(agenda, top, i, r, first_kind), start, j, second_kind)
