"""From the charts of Eisner's algorithm down to the best tree, in either layout of the charts.

No back-pointers are kept: each split is found again as the leftmost whose sum is exactly the span's value.
"""

import numpy as np

from diffdecode.structure.kernels.numba.agenda import ARC_LEFT, ARC_RIGHT, LEFT, RIGHT, push
from diffdecode.structure.kernels.numba.compiled import ONE, ZERO, part


@part()
def best_tree(scores, n, first, charts, row, step, by_first, by_last, bases, agenda, heads):
    """Fill ``heads`` with one sentence's best tree, of the leftmost best root word; whether it has one.

    Complete spans ``right(i, j)`` lie at ``j * row + i * step`` and at ``i * by_first + j * by_last``,
    ``left(i, j)`` likewise from ``bases[0]`` on. The other bases are those of ``arc_right(i, j)``, which lies
    at ``i * by_first + j * by_last``, of ``arc_left(i, j)``, at ``i * by_last + j * by_first``, and of
    ``arc(i, j)``, at ``j * row + i * step``; the last may be missing (-1).
    """
    left, arc_right, arc_left, arc = bases
    if first == 0:
        top = push(agenda, ZERO, ZERO, n, RIGHT)
        best = charts[n * row]
    else:
        best, root = charts.dtype.type(-np.inf), ZERO
        for r in range(n):
            value = charts[left + r * by_last] + scores[r + 1, 0] + charts[(n - 1) * row + r * step]
            if value > best:
                best, root = value, r
        heads[root] = 0
        top = push(agenda, push(agenda, ZERO, ZERO, root, LEFT), root, n - 1, RIGHT)
    if not best > -np.inf:
        return False
    while top > 0:
        top -= 1
        i, j, kind = agenda[top, 0], agenda[top, 1], agenda[top, 2]
        if i == j:
            continue
        # The two parts of a split at r are at a + r * a_step and b + r * b_step.
        value, r, stop, beyond = charts[j * row + i * step], i, j - 1, ZERO
        if kind == RIGHT:
            a, a_step, first_kind = arc_right + i * by_first, by_last, ARC_RIGHT
            b, b_step, second_kind = j * row, step, RIGHT
            r, stop = i + 1, j
        elif kind == LEFT:
            a, a_step, first_kind = left + i * by_first, by_last, LEFT
            b, b_step, second_kind = arc_left + j * by_first, by_last, ARC_LEFT
            value = charts[left + j * row + i * step]
        else:
            a, a_step, first_kind = i * by_first, by_last, RIGHT
            b, b_step, second_kind = left + j * row + step, step, LEFT
            beyond = ONE
            dependent, head = (j, i) if kind == ARC_RIGHT else (i, j)
            heads[dependent + first - 1] = head + first
            if arc >= 0:
                value = charts[arc + j * row + i * step]
            else:
                value = charts[a + r * a_step] + charts[b + r * b_step]
                for split in range(i + 1, j):
                    value = max(value, charts[a + split * a_step] + charts[b + split * b_step])
        while r < stop and charts[a + r * a_step] + charts[b + r * b_step] != value:
            r += 1
        top = push(agenda, push(agenda, top, i, r, first_kind), r + beyond, j, second_kind)
    return True
