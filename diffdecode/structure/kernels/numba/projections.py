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


@part()
def _project(row, support, out):
    """Fill the start of ``out`` with the projection of ``row``, and the rest with 0."""
    zero = row.dtype.type(0)
    top = _maximum(row)
    threshold = _threshold(row, top, support)
    for k in range(row.shape[0]):
        excess = (row[k] - top) - threshold
        out[k] = zero if excess <= zero else excess  # NaN stays NaN
    for k in range(row.shape[0], out.shape[0]):
        out[k] = zero


@kernel("T[:,::1], int64[::1], T[:,::1], T[:,::1]")
def project_rows(memory, rows, lengths, scratch, out):
    """Projection of every row of ``rows [R, M]`` on the simplex; entries of -inf take no part.

    With ``lengths [B]``, rows are the words of ``[B, M, M]`` (Algorithm 2): self arcs, the root's own row and
    everything beyond the lengths are left out, so exactly 0. ``scratch [2, M]``, ``out [R, M]``.
    """
    size = rows.shape[1]
    if len(lengths) == 0:
        for r in range(rows.shape[0]):
            _project(rows[r], scratch[0], out[r])
    for b in range(len(lengths)):
        heads = scratch[1, : lengths[b] + 1]
        for dependent in range(size):
            r = b * size + dependent
            if 0 < dependent < heads.shape[0]:
                for head in range(heads.shape[0]):
                    heads[head] = rows[r, head]
                heads[dependent] = -np.inf
                _project(heads, scratch[0], out[r])
            else:
                for head in range(size):
                    out[r, head] = 0
