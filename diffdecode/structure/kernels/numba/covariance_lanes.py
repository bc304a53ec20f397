"""Covariance products of projective trees, 4 sentences at once: inside-outside on dual numbers.

The covariance of the arcs times a vector is the derivative of the marginals along it. Every weight
``exp(score)`` carries its derivative ``exp(score) * vector`` through the two passes of
``inside_outside_lanes``. Sentences whose sums leave float64's range are left to
``inside_outside.covariance_product``.
"""

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.compiled import kernel, part
from diffdecode.structure.kernels.numba.inside_outside import (
    LARGEST_SUM,
    SMALLEST,
    exponentiate,
    rows_sum_to_one,
)
from diffdecode.structure.kernels.numba.inside_outside_lanes import CHARTS, fill_charts, hand_down
from diffdecode.structure.kernels.numba.vectors import DUAL_LANES as LANES
from diffdecode.structure.kernels.numba.vectors import empty_cells
from diffdecode.structure.kernels.status import LOST_DIGITS

CELL = 2 * LANES  # values, then derivatives


@kernel()
def covariance_product_lanes(start, stop, scores, lengths, order, multi_root, vector, product, status):
    """Fill ``product [B, N+1, N+1]`` of groups ``start <= g < stop``, as in ``inside_outside_lanes``.

    ``status [B]`` as in ``inside_outside.covariance_product``.
    """
    longest = scores.shape[1]
    values, along = np.empty((longest, longest)), np.empty((longest, longest))
    duals = empty_cells((CHARTS * longest * longest + 2) * LANES, np.empty(0, np.complex128))
    cells = duals.view(np.float64)
    roots, scales = np.empty((2, longest, LANES)), np.empty(LANES)
    first = 0 if multi_root else 1
    for g in range(start, stop):
        group = order[LANES * g : LANES * (g + 1)]
        size = lengths[group[0]] + 1 - first
        block = size * size * CELL
        weights = cells[3 * block : 4 * block]
        weights[:] = 0
        for lane in range(len(group)):
            b, n = group[lane], lengths[group[lane]]
            exponentiate(scores[b], n, values)
            scales[lane] = _differentiate(values, vector[b], n, along)
            _put_into_lane(values, along, n, first, size, weights[lane:])
            for m in range(1, n + 1):
                roots[0, m, lane], roots[1, m, lane] = values[m, 0], along[m, 0]
        fill_charts(uintp(size), uintp(LANES), duals)
        cells[5 * block : 7 * block] = 0
        for lane in range(len(group)):
            _start_adjoints(lengths[group[lane]], first, size, cells[lane:], roots[:, :, lane])
        hand_down(uintp(size), uintp(LANES), duals)
        for lane in range(len(group)):
            b, n = group[lane], lengths[group[lane]]
            _take_from_lane(weights[lane:], n, first, size, values, along)
            if not multi_root:
                for m in range(1, n + 1):
                    values[m, 0], along[m, 0] = roots[0, m, lane], roots[1, m, lane]
            product[b] = 0
            status[b] = 0 if rows_sum_to_one(values, n) else LOST_DIGITS
            if status[b] == 0:
                for m in range(1, n + 1):
                    for h in range(n + 1):
                        product[b, m, h] = along[m, h] * scales[lane]


@part()
def _differentiate(values, vector, n, along):
    """``along = values * vector / scale``, so that no derivative is larger than its value; the scale."""
    scale = 0.0
    for m in range(1, n + 1):
        for h in range(n + 1):
            if values[m, h] > 0:  # elsewhere, the vector may hold anything
                scale = max(scale, abs(np.float64(vector[m, h])))
    inverse = 1 / scale if scale > 0 else 0.0
    along[0, : n + 1] = 0
    for m in range(1, n + 1):
        for h in range(n + 1):
            along[m, h] = values[m, h] * (vector[m, h] * inverse) if values[m, h] > 0 else 0.0
    return scale


@part()
def _put_into_lane(values, along, n, first, size, cells):
    for m in range(1, n + 1):
        for h in range(first, n + 1):
            at = ((m - first) * size + (h - first)) * CELL
            cells[at], cells[at + LANES] = values[m, h], along[m, h]


@part()
def _take_from_lane(cells, n, first, size, values, along):
    for m in range(1, n + 1):
        for h in range(first, n + 1):
            at = ((m - first) * size + (h - first)) * CELL
            values[m, h], along[m, h] = cells[at], cells[at + LANES]
        values[m, m] = along[m, m] = 0


@part()
def _start_adjoints(n, first, size, cells, roots):
    """``_start_adjoints`` of ``inside_outside_lanes`` for one lane, with derivatives.

    A lane out of float64's range keeps adjoints of 0.
    """
    row = size * CELL
    block = size * row
    right, left, by_right, by_left = 0, block, 5 * block, 6 * block
    if first == 0:
        top = n * CELL
        if SMALLEST < cells[right + top] < LARGEST_SUM:
            share = 1 / cells[right + top]
            cells[by_right + top] = share
            cells[by_right + top + LANES] = -cells[right + top + LANES] * share * share
        return
    total, total_along = 0.0, 0.0
    for r in range(n):
        a, a_along, b, b_along = _beside_root(cells, left + r * CELL, right + r * row + (n - 1) * CELL)
        w, w_along = roots[0, r + 1], roots[1, r + 1]
        total += a * w * b
        total_along += a_along * w * b + a * w_along * b + a * w * b_along
    usual = SMALLEST < total < LARGEST_SUM
    growth = total_along / total if usual else 0.0
    for r in range(n):
        at_left, at_right = r * CELL, r * row + (n - 1) * CELL
        a, a_along, b, b_along = _beside_root(cells, left + at_left, right + at_right)
        w = roots[0, r + 1] / total if usual else 0.0
        w_along = roots[1, r + 1] / total - w * growth if usual else 0.0
        cells[by_left + at_left] += w * b
        cells[by_left + at_left + LANES] += w_along * b + w * b_along
        cells[by_right + at_right] += w * a
        cells[by_right + at_right + LANES] += w_along * a + w * a_along
        roots[0, r + 1] = a * w * b
        roots[1, r + 1] = a_along * w * b + a * w_along * b + a * w * b_along


@part()
def _beside_root(cells, at_left, at_right):
    """Sums left and right of a root word, each with its derivative."""
    return cells[at_left], cells[at_left + LANES], cells[at_right], cells[at_right + LANES]
