"""Eisner's algorithm on the GPU: one program a sentence, one launch a batch whatever the lengths.

The items and the tie-breaking are those of ``reference.inside_charts``. A program walks over the widths of
spans, and over the spans of a width in blocks; for each block it goes over the split points, a tile of them
at a time. The spans of one width are independent; a barrier separates it from the next one. The best splits
are kept, counted from the left end of a span. So the best tree is found from the top down, in as many steps
as it is deep: see :func:`follow_best_splits`.

An item of the span from ``i`` to ``j`` lies in row ``j - i`` and column ``i`` of its chart. So spans of one
width are neighbours, and for the same split so are the parts of neighbours: threads that take a span each
read and write along rows. (Inside-outside keeps its charts as :mod:`.spans` says.)
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels import status as statuses
from diffdecode.structure.kernels.triton.launch import on_device_of
from diffdecode.structure.kernels.triton.scores import fault_and_length, look
from diffdecode.structure.kernels.triton.spans import first_best

NO_TREE, PADDING = tl.constexpr(statuses.NO_TREE), tl.constexpr(statuses.PADDING)

# Charts of complete spans by the side their words hang to, and of arcs; the last chart of splits is that of
# the two spans under an arc, whichever its direction.
RIGHT, LEFT, RIGHT_ARC, LEFT_ARC = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
UNDER_ARC = tl.constexpr(2)


@triton.jit
def first_greatest(x, x_split, y, y_split):
    """The greater of two numbers with its split, of equal ones the one whose split comes first."""
    second = (y > x) | ((y == x) & (y_split < x_split))
    return tl.where(second, y, x), tl.where(second, y_split, x_split)


@triton.jit
def first_greatest_of_each(
    arc, arc_split, right, right_split, left, left_split,
    other_arc, other_arc_split, other_right, other_right_split, other_left, other_left_split,
):  # fmt: skip
    """Of three pairs at once: where several warps share the splits, they meet once for all."""
    arc, arc_split = first_greatest(arc, arc_split, other_arc, other_arc_split)
    right, right_split = first_greatest(right, right_split, other_right, other_right_split)
    left, left_split = first_greatest(left, left_split, other_left, other_left_split)
    return arc, arc_split, right, right_split, left, left_split


@triton.jit
def best_of_splits(charts, i, width, n, size, SPANS: tl.constexpr, SPLITS: tl.constexpr):
    """Of the spans from ``i`` on: the best of what lies under an arc, goes to the right and to the left.

    Each with its split. The widest arcs, which complete a span at its far end, are left out: they are not
    in the charts yet.
    """
    square = size * size
    row = tl.arange(0, SPLITS)[:, None]
    arc = tl.full((SPLITS, SPANS), float("-inf"), charts.dtype.element_ty)
    right, left = arc, arc
    arc_split = tl.zeros((SPLITS, SPANS), tl.int32) + row
    right_split, left_split = arc_split, arc_split
    span = (i + width <= n)[None, :]
    of_right, of_left = charts + RIGHT * square, charts + LEFT * square
    of_right_arc, of_left_arc = charts + RIGHT_ARC * square, charts + LEFT_ARC * square
    first = row * size + i[None, :]
    second = (width - row) * size + i[None, :] + row
    for start in range(0, width, SPLITS):
        split = start + row
        use = span & (split < width)
        narrower = use & (split > 0)
        arc, arc_split = first_best(
            arc, arc_split, of_right + first, of_left + (1 - size) + second, use, split
        )
        right, right_split = first_best(
            right, right_split, of_right_arc + first, of_right + second, narrower, split
        )
        left, left_split = first_best(
            left, left_split, of_left + first, of_left_arc + second, narrower, split
        )
        first += SPLITS * size
        second -= SPLITS * (size - 1)
    best = arc, arc_split, right, right_split, left, left_split
    return tl.reduce(best, 0, first_greatest_of_each)


@triton.jit
def fill_charts(
    scores, charts, splits, n, size, SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr
):  # fmt: skip
    """``charts [4, size, size]`` and best ``splits [3, size, size]`` of all spans of a sentence."""
    square = size * size
    for begin in range(FIRST, n + 1, SPANS):
        i = begin + tl.arange(0, SPANS)
        tl.store(charts + RIGHT * square + i, 0.0, mask=i <= n)
        tl.store(charts + LEFT * square + i, 0.0, mask=i <= n)
    tl.debug_barrier()
    for width in range(1, n + 1 - FIRST):
        for begin in range(FIRST, n + 1 - width, SPANS):
            i = begin + tl.arange(0, SPANS)
            j = i + width
            span = j <= n
            # Fetched before the splits are gone over, because they come from further away.
            to_right = tl.load(scores + j * size + i, mask=span, other=float("-inf"))
            to_left = tl.load(scores + i * size + j, mask=span & (i > 0), other=float("-inf"))
            arc, arc_split, right, right_split, left, left_split = best_of_splits(
                charts, i, width, n, size, SPANS, SPLITS
            )
            to_right += arc
            to_left += arc
            right_split = tl.where(to_right > right, width, tl.maximum(right_split, 1))
            left_split = tl.where(to_left >= left, 0, left_split)
            item = charts + width * size + i
            tl.store(item + RIGHT * square, tl.maximum(right, to_right), mask=span)
            tl.store(item + LEFT * square, tl.maximum(left, to_left), mask=span)
            tl.store(item + RIGHT_ARC * square, to_right, mask=span)
            tl.store(item + LEFT_ARC * square, to_left, mask=span)
            best = splits + width * size + i
            tl.store(best + RIGHT * square, right_split.to(tl.int16), mask=span)
            tl.store(best + LEFT * square, left_split.to(tl.int16), mask=span)
            tl.store(best + UNDER_ARC * square, arc_split.to(tl.int16), mask=span)
        tl.debug_barrier()


@triton.jit
def best_root(scores, charts, n, size, SLOTS: tl.constexpr):
    """The best score of a tree with one root, -inf if there is none, and the first word that is its root."""
    left = charts + LEFT * size * size
    right = charts + RIGHT * size * size
    best = tl.full((SLOTS,), float("-inf"), scores.dtype.element_ty)
    where = tl.zeros((SLOTS,), tl.int32) + 1
    for begin in range(1, n + 1, SLOTS):
        word = begin + tl.arange(0, SLOTS)
        use = word <= n
        total = tl.load(left + (word - 1) * size + 1, mask=use, other=float("-inf"))
        total += tl.load(scores + word * size, mask=use, other=float("-inf"))
        total += tl.load(right + (n - word) * size + word, mask=use, other=float("-inf"))
        better = total > best
        best = tl.where(better, total, best)
        where = tl.where(better, word, where)
    most = tl.max(best, axis=0)
    return most, tl.min(tl.where(best == most, where, 2147483647), axis=0)


@triton.jit
def underway(item):
    """What lies in a word's place among the heads for an item that ends there; and the item from that."""
    return -item + (PADDING - 1)


@triton.jit
def follow_best_splits(
    scores, charts, splits, heads, n, size, SLOTS: tl.constexpr, FIRST: tl.constexpr
):  # fmt: skip
    """The best score, -inf if there is no tree; and ``heads [size-1]``, ``SLOTS`` of them in one piece.

    An item of the derivation has a head and ends at another position: ``right(i, j)`` has head ``i`` and ends
    at ``j``, ``left(i, j)`` has head ``j`` and ends at ``i``; so have the arcs. At most one item at a time
    ends at a word, the last of them being the arc to it. So until then an item lies where the word's head
    will be: as twice its head, plus 1 if it is an arc, and all that below the number of padding, downwards.
    One step replaces all items there are by their parts.
    """
    square = size * size
    slot = tl.arange(0, SLOTS)
    for begin in range(0, size - 1, SLOTS):
        tl.store(heads + begin + slot, PADDING, mask=begin + slot < size - 1)
    heads -= 1  # those of words are counted from 1
    tl.debug_barrier()
    if FIRST == 1:
        most, root = best_root(scores, charts, n, size, SLOTS)
        tl.store(heads + root, 0, mask=n > 0)
        tl.store(heads + 1, underway(2 * root), mask=(n > 0) & (root > 1))
        tl.store(heads + n, underway(2 * root), mask=root < n)
    else:
        most = tl.load(charts + n * size)
        tl.store(heads + n, underway(0 * n), mask=n > 0)
    tl.debug_barrier()
    at_work = n
    while at_work > 0:
        at_work = 0
        for begin in range(1, n + 1, SLOTS):
            end = begin + slot
            item = underway(tl.load(heads + end, mask=end <= n, other=PADDING).to(tl.int32))
            tl.debug_barrier()  # all are read before any is replaced
            there = item >= 0
            head = item >> 1
            arc = there & (item & 1 == 1)
            span = there & (item & 1 == 0)
            i = tl.minimum(head, end)
            j = tl.maximum(head, end)
            chart = tl.where(arc, UNDER_ARC, tl.where(head < end, RIGHT, LEFT))
            r = i + tl.load(splits + chart * square + (j - i) * size + i, mask=there, other=0)
            # Under an arc lie right(i, r) and left(r + 1, j).
            tl.store(heads + end, head, mask=arc)
            tl.store(heads + r, underway(2 * i), mask=arc & (r > i))
            tl.store(heads + r + 1, underway(2 * j), mask=arc & (r + 1 < j))
            # A span is the arc from its head to r, and the span of that word that goes on to the end.
            tl.store(heads + end, underway(2 * r), mask=span & (r != end))
            tl.store(heads + r, underway(2 * head + 1), mask=span)
            at_work += tl.max(there.to(tl.int32), axis=0)
            tl.debug_barrier()
    return most


@triton.jit(do_not_specialize=["size"])
def best_projective_trees(
    scores, lengths, charts, splits, heads, status, size,
    LARGEST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    SPANS: tl.constexpr, SPLITS: tl.constexpr, SLOTS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """``heads [B, size-1]`` and ``status [B]`` of sentence ``program_id(0)``.

    ``scores [B, size, size]``; ``charts [B, 4, size, size]``, ``splits [B, 3, size, size]``. ``SPANS`` and
    ``SPLITS`` of a tile, and ``SLOTS``, are powers of two; ``FIRST`` is the first position of a span: 0 if
    the root may have several dependents, else 1.
    """
    b = tl.program_id(0).to(tl.int64)
    square = size * size
    scores += b * square
    charts += b * 4 * square
    splits += b * 3 * square
    fault, n = fault_and_length(scores, lengths + b, size, LARGEST, ROWS, COLUMNS)
    fill_charts(scores, charts, splits, n, size, SPANS, SPLITS, FIRST)
    most = follow_best_splits(scores, charts, splits, heads + b * (size - 1), n, size, SLOTS, FIRST)
    tl.store(status + b, tl.where((n > 0) & (most == float("-inf")), NO_TREE, fault).to(tl.int8))


class Tile(NamedTuple):
    """How a program takes its sentence: spans and splits at once, and the warps that do it."""

    spans: int
    splits: int
    warps: int


SHORT, LONG = Tile(64, 16, 4), Tile(64, 32, 8)


def tile_for(size: int) -> Tile:
    """The tile for sentences of ``size - 1`` words; which one it is changes no result.

    A warp takes 32 spans. In long sentences there is more to fetch between two widths than few warps can wait
    for at once: there, more of them share the splits of the same spans. They were chosen among ten by their
    times on an H100 (``benchmarks/results/triton-resources.md``).
    """
    return SHORT if size <= 128 else LONG


def tile_options(size: int, multi_root: bool) -> dict[str, int]:
    """Compile-time arguments of :func:`best_projective_trees`, and its warps."""
    spans, splits, warps = tile_for(size)
    first = 0 if multi_root else 1
    return {"SPANS": spans, "SPLITS": splits, "SLOTS": 32 * warps, "FIRST": first, "num_warps": warps}


def best_trees(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Heads ``[B, N]`` of the best projective trees (-1 beyond the length), and status ``[B]``.

    ``scores [B, N+1, N+1]`` contiguous, float32 or float64. Heads of a bad sentence mean nothing. Nothing
    waits for the device.
    """
    batch, size, _ = scores.shape
    charts = scores.new_empty(batch, 4, size, size)
    splits = torch.empty(batch, 3, size, size, dtype=torch.int16, device=scores.device)
    heads = torch.empty(batch, size - 1, dtype=torch.int64, device=scores.device)
    status = torch.empty(batch, dtype=torch.int8, device=scores.device)
    with on_device_of(scores):
        best_projective_trees[(batch,)](
            scores, lengths, charts, splits, heads, status, size,
            **look(scores), **tile_options(size, multi_root),
        )  # fmt: skip
    return heads, status
