"""Eisner's algorithm on the GPU: one program a sentence, three launches a batch whatever the lengths.

The items and the tie-breaking are those of ``reference.inside_charts``, the order is that of :mod:`.spans`.
The best splits are kept, counted from the left end of a span. So the best tree is found from the top down,
in as many steps as it is deep: see :func:`follow_best_splits`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels import status as statuses
from diffdecode.structure.kernels.triton.launch import on_device_of
from diffdecode.structure.kernels.triton.scores import looked_at
from diffdecode.structure.kernels.triton.spans import ARCS, LEFT, RIGHT, keep_better, over_splits, tile_shape

NO_TREE, PADDING = tl.constexpr(statuses.NO_TREE), tl.constexpr(statuses.PADDING)

WORDS_AT_ONCE = 128
"""Slots that a step of the walk down takes in one piece."""


@triton.jit
def first_best(best, where, SPLITS: tl.constexpr):
    """Of each row, the greatest number and the place of the first one as great."""
    most = tl.max(best, axis=1)
    place = tl.where(best == most[:, None], where + tl.arange(0, SPLITS)[None, :], 2147483647)
    return most, tl.min(place, axis=1)


@triton.jit(do_not_specialize=["size"])
def fill_charts(
    scores, charts, splits, arc_splits, lengths, size,
    SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """``charts [B, 3, size, size]`` and best splits of all spans of sentence ``program_id(0)``.

    Where ``i < j``, ``splits[i, j]`` is that of ``right(i, j)``, ``splits[j, i]`` that of ``left(i, j)``, and
    ``arc_splits[i, j]`` that of the two spans under an arc.
    """
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    square = size * size
    scores += b * square
    charts += b * 3 * square
    splits += b * square
    arc_splits += b * square
    right = charts + RIGHT * square
    left = charts + LEFT * square
    arcs = charts + ARCS * square
    nothing = tl.full((SPANS, SPLITS), float("-inf"), scores.dtype.element_ty)
    nowhere = tl.zeros((SPANS, SPLITS), tl.int32)
    for begin in range(FIRST, n + 1, SPANS):
        i = begin + tl.arange(0, SPANS)
        tl.store(right + i * size + i, 0.0, mask=i <= n)
        tl.store(left + i * size + i, 0.0, mask=i <= n)
    tl.debug_barrier()
    for width in range(1, n + 1 - FIRST):
        for begin in range(FIRST, n + 1 - width, SPANS):
            i = begin + tl.arange(0, SPANS)
            j = i + width
            span = j <= n
            arc, where_arc, best_right, where_right, best_left, where_left = over_splits(
                keep_better, charts, i, width, n, size, nothing, nowhere, None, None, None, SPLITS
            )
            best_arc, arc_split = first_best(arc, where_arc, SPLITS)
            all_right, right_split = first_best(best_right, where_right, SPLITS)
            all_left, left_split = first_best(best_left, where_left, SPLITS)
            to_right = best_arc + tl.load(scores + j * size + i, mask=span, other=float("-inf"))
            to_left = best_arc + tl.load(scores + i * size + j, mask=span & (i > 0), other=float("-inf"))
            right_split = tl.where(to_right > all_right, width, tl.maximum(right_split, 1))
            left_split = tl.where(to_left >= all_left, 0, left_split)
            all_right = tl.maximum(all_right, to_right)
            all_left = tl.maximum(all_left, to_left)
            tl.store(arcs + i * size + j, to_right, mask=span)
            tl.store(arcs + j * size + i, to_left, mask=span)
            tl.store(right + i * size + j, all_right, mask=span)
            tl.store(right + j * size + i, all_right, mask=span)
            tl.store(left + i * size + j, all_left, mask=span)
            tl.store(left + j * size + i, all_left, mask=span)
            tl.store(splits + i * size + j, right_split.to(tl.int16), mask=span)
            tl.store(splits + j * size + i, left_split.to(tl.int16), mask=span)
            tl.store(arc_splits + i * size + j, arc_split.to(tl.int16), mask=span)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["size"])
def follow_best_splits(
    scores, charts, splits, arc_splits, items, lengths, heads, status, size,
    SLOTS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """``heads [B, size-1]``; in ``status [B]``, where no tree is. ``items [B, size]`` is for its own use.

    An item of the derivation has a head and ends at another position: ``right(i, j)`` has head ``i`` and ends
    at ``j``, ``left(i, j)`` has head ``j`` and ends at ``i``; so have the arcs. At most one item at a time
    ends at a position, the last of them being the arc to that word. So an item lies in the slot of its end,
    as twice its head, plus 1 if it is an arc; and one step replaces all items there are by their parts.
    """
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    square = size * size
    scores += b * square
    left = charts + b * 3 * square + LEFT * square
    right = charts + b * 3 * square + RIGHT * square
    splits += b * square
    arc_splits += b * square
    items += b * size
    heads += b * (size - 1)
    slot = tl.arange(0, SLOTS)
    for begin in range(0, size, SLOTS):
        tl.store(items + begin + slot, -1, mask=begin + slot < size)
        tl.store(heads + begin + slot, PADDING, mask=begin + slot < size - 1)
    if n == 0:
        return
    tl.debug_barrier()
    if FIRST == 1:
        best = tl.full((SLOTS,), float("-inf"), scores.dtype.element_ty)
        where = tl.zeros((SLOTS,), tl.int32)
        for begin in range(1, n + 1, SLOTS):
            i = begin + slot
            total = tl.load(left + size + i, mask=i <= n, other=float("-inf"))
            total += tl.load(scores + i * size, mask=i <= n, other=float("-inf"))
            total += tl.load(right + i * size + n, mask=i <= n, other=float("-inf"))
            better = total > best
            best = tl.where(better, total, best)
            where = tl.where(better, i, where)
        most = tl.max(best, axis=0)
        root = tl.min(tl.where(best == most, where, 2147483647), axis=0)
        root = tl.where(most > float("-inf"), root, 1)
        tl.store(heads + root - 1, 0)
        tl.store(items + 1, 2 * root, mask=root > 1)
        tl.store(items + n, 2 * root, mask=root < n)
    else:
        most = tl.load(right + n)
        tl.store(items + n, 0)
    tl.store(status + b, NO_TREE, mask=most == float("-inf"))
    tl.debug_barrier()
    at_work = 1
    while at_work > 0:
        at_work = 0
        for begin in range(0, n + 1, SLOTS):
            end = begin + slot
            item = tl.load(items + end, mask=end <= n, other=-1)
            tl.debug_barrier()  # all are read before any is replaced
            there = item >= 0
            head = item >> 1
            arc = there & (item & 1 == 1)
            span = there & (item & 1 == 0)
            i = tl.minimum(head, end)
            j = tl.maximum(head, end)
            r = i + tl.load(splits + head * size + end, mask=span, other=0)
            r += tl.load(arc_splits + i * size + j, mask=arc, other=0)
            # Under an arc lie right(i, r) and left(r + 1, j).
            tl.store(heads + end - 1, head, mask=arc)
            tl.store(items + end, -1, mask=arc)
            tl.store(items + r, 2 * i, mask=arc & (r > i))
            tl.store(items + r + 1, 2 * j, mask=arc & (r + 1 < j))
            # A span is the arc from its head to r, and the span of that word that goes on to the end.
            tl.store(items + end, 2 * r, mask=span & (r != end))
            tl.store(items + r, 2 * head + 1, mask=span)
            at_work += tl.max(there.to(tl.int32), axis=0)
            tl.debug_barrier()


def best_trees(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Heads ``[B, N]`` of the best projective trees (-1 beyond the length), and status ``[B]``.

    ``scores [B, N+1, N+1]`` contiguous, float32 or float64. Heads of a bad sentence mean nothing. Nothing
    waits for the device.
    """
    status, lengths = looked_at(scores, lengths)
    batch, size, _ = scores.shape
    charts = scores.new_empty(batch, 3, size, size)
    splits, arc_splits = torch.empty(2, batch, size, size, dtype=torch.int16, device=scores.device)
    items = torch.empty(batch, size, dtype=torch.int32, device=scores.device)
    heads = torch.empty(batch, size - 1, dtype=torch.int64, device=scores.device)
    tile = tile_shape(multi_root)
    with on_device_of(scores):
        fill_charts[(batch,)](scores, charts, splits, arc_splits, lengths, size, **tile)
        follow_best_splits[(batch,)](
            scores, charts, splits, arc_splits, items, lengths, heads, status, size,
            SLOTS=WORDS_AT_ONCE, FIRST=tile["FIRST"], num_warps=1,
        )  # fmt: skip
    return heads, status
