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
    PRODUCT,
    SMALLEST,
    differentiate,
    exponentiate,
    rows_sum_to_one,
)
from diffdecode.structure.kernels.numba.inside_outside_lanes import CHARTS, fill_charts, hand_down
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.numba.vectors import DUAL_LANES as LANES
from diffdecode.structure.kernels.numba.vectors import as_duals
from diffdecode.structure.kernels.status import LOST_DIGITS, OK

CELL = 2 * LANES  # values, then derivatives


@kernel(PRODUCT)
def covariance_product_lanes(
    memory, start, stop, scores, lengths, order, multi_root, vector, product, status
):
    """Fill ``product [B, N+1, N+1]`` of groups ``start <= g < stop``, as in ``inside_outside_lanes``.

    ``status [B]`` as in ``inside_outside.covariance_product``.
    """
    longest = scores.shape[1]
    values = empty(memory, (longest, longest), np.float64)
    along = empty(memory, (longest, longest), np.float64)
    cells = empty(memory, (CHARTS * longest * longest + 2) * CELL, np.float64)
    duals = as_duals(cells)
    roots, scales = empty(memory, longest * CELL, np.float64), empty(memory, LANES, np.float64)
    first = 0 if multi_root else 1
    for g in range(start, stop):
        count = min(LANES, len(order) - LANES * g)
        size = lengths[order[LANES * g]] + 1 - first
        block = size * size * CELL
        weights = 3 * block
        for k in range(weights, weights + block):
            cells[k] = 0
        for lane in range(count):
            b = order[LANES * g + lane]
            n = lengths[b]
            exponentiate(scores[b], n, values)
            scales[lane] = differentiate(values, vector[b], n, along)
            for m in range(1, n + 1):
                for h in range(first, n + 1):
                    at = weights + ((m - first) * size + (h - first)) * CELL + lane
                    cells[at], cells[at + LANES] = values[m, h], along[m, h]
                roots[m * CELL + lane], roots[m * CELL + LANES + lane] = values[m, 0], along[m, 0]
        fill_charts(uintp(size), uintp(LANES), duals)
        for k in range(5 * block, 7 * block):
            cells[k] = 0
        for lane in range(count):
            _start_adjoints(lengths[order[LANES * g + lane]], first, size, cells, lane, roots)
        hand_down(uintp(size), uintp(LANES), duals)
        for lane in range(count):
            b = order[LANES * g + lane]
            n = lengths[b]
            for m in range(1, n + 1):
                values[m, 0], along[m, 0] = roots[m * CELL + lane], roots[m * CELL + LANES + lane]
                for h in range(first, n + 1):
                    at = weights + ((m - first) * size + (h - first)) * CELL + lane
                    values[m, h], along[m, h] = cells[at], cells[at + LANES]
                values[m, m] = along[m, m] = 0
            status[b] = OK if rows_sum_to_one(values, n) else LOST_DIGITS
            for m in range(longest):
                for h in range(longest):
                    inside = 0 < m <= n and h <= n
                    product[b, m, h] = along[m, h] * scales[lane] if inside else 0.0


@part()
def _start_adjoints(n, first, size, cells, lane, roots):
    """``_start_adjoints`` of ``inside_outside_lanes`` for one lane, with derivatives.

    A lane out of float64's range keeps adjoints of 0.
    """
    row = size * CELL
    block = size * row
    right, left, by_right, by_left = lane, block + lane, 5 * block + lane, 6 * block + lane
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
        w, w_along = roots[(r + 1) * CELL + lane], roots[(r + 1) * CELL + LANES + lane]
        total += a * w * b
        total_along += a_along * w * b + a * w_along * b + a * w * b_along
    usual = SMALLEST < total < LARGEST_SUM
    growth = total_along / total if usual else 0.0
    for r in range(n):
        at_left, at_right, at_root = r * CELL, r * row + (n - 1) * CELL, (r + 1) * CELL + lane
        a, a_along, b, b_along = _beside_root(cells, left + at_left, right + at_right)
        w = roots[at_root] / total if usual else 0.0
        w_along = roots[at_root + LANES] / total - w * growth if usual else 0.0
        cells[by_left + at_left] += w * b
        cells[by_left + at_left + LANES] += w_along * b + w * b_along
        cells[by_right + at_right] += w * a
        cells[by_right + at_right + LANES] += w_along * a + w * a_along
        roots[at_root] = a * w * b
        roots[at_root + LANES] = a_along * w * b + a * w_along * b + a * w * b_along


@part()
def _beside_root(cells, at_left, at_right):
    """Sums left and right of a root word, each with its derivative."""
    return cells[at_left], cells[at_left + LANES], cells[at_right], cells[at_right + LANES]
