"""Simplex projections of whole batches on the CPU, compiled by numba.

The threshold is found by Michelot's iteration (1986, "A finite algorithm for finding the projection of a
point onto the canonical simplex of R^n"): no sort, at most a handful of passes over a row that stays in
the first-level cache. Rows are the last axis, so a word's candidate heads lie side by side.
"""

import numpy as np

from diffdecode.structure.kernels.numba.compiled import kernel, part


@part(fastmath={"nnan", "nsz", "reassoc"})
def _maximum(row):
    best = row[0]
    for k in range(1, row.shape[0]):
        best = max(best, row[k])
    return best


@part()
def _threshold(row, top, support):
    """tau - top, where sum(max(row - tau, 0)) = 1. ``support`` is scratch of the row's length.

    tau >= top - 1, and Michelot's threshold only rises: what falls below it once never returns. Working
    with distances from the maximum keeps entries of any size exact.
    """
    one = row.dtype.type(1)
    threshold = -one
    size = 0
    for k in range(row.shape[0]):
        support[size] = row[k] - top
        size += row[k] - top > threshold
    before = -1
    while 0 < size != before:
        mass = row.dtype.type(0)
        for k in range(size):
            mass += support[k]
        threshold = (mass - one) / row.dtype.type(size)
        before, size = size, 0
        for k in range(before):
            distance = support[k]
            support[size] = distance
            size += distance > threshold
    return threshold


@kernel()
def simplex(rows):
    """Projection of every row of ``rows [R, M]`` on the simplex. Entries of -inf take no part."""
    zero = rows.dtype.type(0)
    out = np.empty_like(rows)
    support = np.empty(rows.shape[1], rows.dtype)
    for r in range(rows.shape[0]):
        top = _maximum(rows[r])
        threshold = _threshold(rows[r], top, support)
        for k in range(rows.shape[1]):
            excess = (rows[r, k] - top) - threshold
            out[r, k] = zero if excess <= zero else excess  # NaN stays NaN
    return out


@kernel()
def p_dep(point, lengths):
    """Algorithm 2: project the candidate heads of every word of ``point [B, N+1, N+1]`` on the simplex.

    Self arcs, the root's own row and everything beyond ``lengths [B]`` are exactly 0.
    """
    zero = point.dtype.type(0)
    out = np.zeros_like(point)
    row = np.empty(point.shape[2], point.dtype)
    support = np.empty_like(row)
    for b in range(point.shape[0]):
        heads = row[: lengths[b] + 1]
        for dependent in range(1, heads.shape[0]):
            for head in range(heads.shape[0]):
                heads[head] = point[b, dependent, head]
            heads[dependent] = -np.inf
            top = _maximum(heads)
            threshold = _threshold(heads, top, support)
            for head in range(heads.shape[0]):
                excess = (heads[head] - top) - threshold
                out[b, dependent, head] = zero if excess <= zero else excess
    return out
