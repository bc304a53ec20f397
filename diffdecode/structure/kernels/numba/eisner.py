"""Eisner's algorithm on the CPU: the recursion of ``reference.inside_charts``, in an order that vectorises.

Four charts lie one after the other in a flat buffer; row ``j`` (the right end of a span), column ``i`` (the
left end). Right ends go up and left ends down; each finished cell is pushed into every cell to its left
that it is part of, so that all inner loops run over contiguous memory without a reduction::

    arc[j, :i]   max=  right[i-1, :i] + left(i, j)
    left[j, :i]  max=  left[i, :i]    + arc_left(i, j)
    right[j, :i] max=  arc_right[i, :i] + right(i, j)

Rows are padded to whole vectors with -inf, so there is no remainder loop. ``arc_left(i, j)``, which nothing
is pushed from, is kept for the walk down, above the diagonal of ``arc``. Each sum is the single addition that
the reference makes, so values, ties and trees are the same.
"""

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.compiled import ONE, kernel, part
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.numba.walk import best_tree
from diffdecode.structure.kernels.status import NO_TREE, OK, PADDING

LANES = 16
# Unsigned offsets (signed ones may wrap, which blocks vectorisation), and no NaN (checked before).
FAST = {"nnan", "nsz"}


@kernel("int64, int64, T[:,:,::1], int64[::1], int64[::1], boolean, T, int64[:,::1], int8[::1]")
def eisner(memory, start, stop, scores, lengths, order, multi_root, largest, heads, status):
    """Fill ``heads [B, N]`` and ``status [B]`` of the sentences ``order[start:stop]``."""
    size = scores.shape[1]
    row = (size + LANES - 1) // LANES * LANES
    charts = empty(memory, 4 * size * row, scores.dtype)
    agenda = empty(memory, (2 * size + 4, 3), np.int64)
    for g in range(start, stop):
        b = order[g]
        n = lengths[b]
        for m in range(size - 1):
            heads[b, m] = PADDING
        status[b] = status_of_scores(scores, b, n, largest)
        if status[b] == OK:
            status[b] = best_projective_tree(scores, b, n, multi_root, charts, agenda, heads[b])


@part()
def best_projective_tree(scores, b, n, multi_root, charts, agenda, heads):
    """Heads of sentence ``b``; with one root word, spans hold words only and the root word is chosen last."""
    first = 0 if multi_root else 1
    size = n + 1 - first
    row = (size + LANES - 1) // LANES * LANES
    fill_charts(scores[b], uintp(first), uintp(size), charts, uintp(row))
    bases = size * row, 2 * size * row, 3 * size * row, 3 * size * row
    found = best_tree(scores[b], n, first, charts, row, ONE, ONE, row, bases, agenda, heads)
    return OK if found else NO_TREE


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
            charts[arc + i * row + j] = to_left
            if i > 0:
                count = (i + uintp(LANES - 1)) & ~uintp(LANES - 1)
                _push(charts, arc_j, right + (i - one) * row, best_left, count)
                _push(charts, left_j, left + i * row, to_left, count)
                _push(charts, right_j, arc_right + i * row, best_right, count)


@part(fastmath=FAST)
def _push(charts, target, source, value, count):
    for t in range(count):
        charts[target + t] = max(charts[target + t], charts[source + t] + value)
