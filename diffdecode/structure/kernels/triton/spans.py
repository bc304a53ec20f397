"""The recursion over spans that the kernels of inside-outside share, in any semiring.

One program a sentence walks over the widths of ``reference.inside_charts``, and over the spans of a width in
blocks; for each block it goes over the split points, a tile of them at a time. The spans of one width are
independent; a barrier separates it from the next one. The charts of a sentence lie one after the other in
global memory (they stay in the caches). Each is stored on both sides of its diagonal, so that every read runs
along a row::

    right[i, j] = right[j, i]    left[i, j] = left[j, i]    arcs[i, j]: head i, dependent j

The constexpr arguments of all kernels: ``SPANS`` and ``SPLITS`` of a tile, powers of two; ``FIRST``, the
first position of a span: 0 if the root may have several dependents, else 1. None depends on the size: one
kernel does for all.
"""

import triton
import triton.language as tl

RIGHT, LEFT, ARCS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


def tile_shape(multi_root: bool) -> dict[str, int]:
    """Compile-time arguments: spans and split points of a tile, where spans begin, warps."""
    return {"SPANS": 32, "SPLITS": 16, "FIRST": 0 if multi_root else 1, "num_warps": 8}


@triton.jit
def over_splits(
    ADD: tl.constexpr, charts, i, width, n, size, nothing, nothing_more, of_arc, of_right, of_left,
    SPLITS: tl.constexpr,
):  # fmt: skip
    """What ``ADD`` makes of the splits of the spans from ``i`` on: of the sums arc, right and left.

    A sum is a pair of tiles, which begins as ``nothing, nothing_more``; ``of_*`` is handed on to ``ADD``. The
    widest arcs, which complete a span at its far end, are left out: they are not in the charts yet.
    """
    arc, right, left = nothing, nothing, nothing
    arc_more, right_more, left_more = nothing_more, nothing_more, nothing_more
    square = size * size
    column = tl.arange(0, SPLITS)[None, :]
    span = (i + width <= n)[:, None]
    row_i = charts + i[:, None] * (size + 1) + column
    row_j = row_i + width * size
    for start in range(0, width, SPLITS):
        inside = span & (start + column < width)
        narrower = inside & (start + column > 0)
        first = row_i + start
        second = row_j + start
        arc, arc_more = ADD(
            arc, arc_more, first + RIGHT * square, second + LEFT * square + 1, inside, start, size, of_arc
        )
        right, right_more = ADD(
            right, right_more, first + ARCS * square, second + RIGHT * square, narrower, start, size, of_right
        )
        left, left_more = ADD(
            left, left_more, first + LEFT * square, second + ARCS * square, narrower, start, size, of_left
        )
    return arc, arc_more, right, right_more, left, left_more


@triton.jit
def first_best(best, where, x, y, use, here):
    """Element by element the greatest sum of two items, of equal ones the first, and where it is."""
    value = tl.load(x, mask=use, other=float("-inf")) + tl.load(y, mask=use, other=float("-inf"))
    better = value > best
    return tl.where(better, value, best), tl.where(better, here, where)


@triton.jit
def keep_better(best, where, x, y, use, start, size, of_whole):
    """An ``ADD``: the greatest sums, and the tile of each."""
    return first_best(best, where, x, y, use, start)
