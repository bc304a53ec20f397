"""Eisner's algorithm on the GPU: one program a sentence, two launches a batch whatever the lengths.

The items and the tie-breaking are those of ``reference.inside_charts``. All spans of one width are
independent, so a program walks over the widths, and over the spans of a width in blocks; for each block it
goes over the split points, a tile of them at a time. A barrier separates one width from the next. Charts lie
in global memory (they stay in the caches). A chart is stored on both sides of its diagonal, so that every
read runs along a row::

    right[i, j] = right[j, i]    left[i, j] = left[j, i]    arcs[i, j]: head i, dependent j

The best splits are kept: ``splits[i, j]`` of ``right(i, j)``, ``splits[j, i]`` of ``left(i, j)`` and
``arc_splits[i, j]``, counted from ``i``. The walk down goes over the widths in the same shape, from wide to
narrow: a used span marks the two narrower spans of its best split, so there is no stack.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels.triton.launch import on_device_of

# The constexpr arguments: SPANS and SPLITS of a tile, powers of two; FIRST, the first position of a span: 0
# if the root may have several dependents, else 1. None depends on the size: one kernel does for all.


@triton.jit
def keep_better(best, where, value, start):
    """Element by element, the greater of ``best`` and ``value``, of equal ones the first, and its place."""
    better = value > best
    return tl.where(better, value, best), tl.where(better, start, where)


@triton.jit
def first_best(best, where, column, SPLITS: tl.constexpr):
    """Of each row, the greatest number and how far to the right the first one as great is."""
    most = tl.max(best, axis=1)
    place = tl.where(best == most[:, None], where + column[None, :], 2147483647)
    return most, tl.min(place, axis=1)


@triton.jit(do_not_specialize=["size"])
def fill_charts(
    scores, right, left, arcs, splits, arc_splits, lengths, size,
    SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """Values and best splits of all spans of sentence ``program_id(0)``; ``scores [B, size, size]``."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    scores += b * size * size
    right += b * size * size
    left += b * size * size
    arcs += b * size * size
    splits += b * size * size
    arc_splits += b * size * size
    column = tl.arange(0, SPLITS)
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
            best_arc = tl.full((SPANS, SPLITS), float("-inf"), scores.dtype.element_ty)
            best_right = tl.full((SPANS, SPLITS), float("-inf"), scores.dtype.element_ty)
            best_left = tl.full((SPANS, SPLITS), float("-inf"), scores.dtype.element_ty)
            where_arc = tl.zeros((SPANS, SPLITS), tl.int32)
            where_right = tl.zeros((SPANS, SPLITS), tl.int32)
            where_left = tl.zeros((SPANS, SPLITS), tl.int32)
            at_i = i[:, None] * size + i[:, None] + column[None, :]
            at_j = j[:, None] * size + i[:, None] + column[None, :]
            for start in range(0, width, SPLITS):
                r = start + column
                inside = span[:, None] & (r < width)[None, :]
                # The widest arcs, which complete the span at its far end, are not in the charts yet.
                narrow_right = span[:, None] & (r < width - 1)[None, :]
                narrow_left = inside & (r > 0)[None, :]
                x = tl.load(right + at_i + start, mask=inside, other=float("-inf"))
                y = tl.load(left + at_j + start + 1, mask=inside, other=float("-inf"))
                best_arc, where_arc = keep_better(best_arc, where_arc, x + y, start)
                x = tl.load(arcs + at_i + start + 1, mask=narrow_right, other=float("-inf"))
                y = tl.load(right + at_j + start + 1, mask=narrow_right, other=float("-inf"))
                best_right, where_right = keep_better(best_right, where_right, x + y, start)
                x = tl.load(left + at_i + start, mask=narrow_left, other=float("-inf"))
                y = tl.load(arcs + at_j + start, mask=narrow_left, other=float("-inf"))
                best_left, where_left = keep_better(best_left, where_left, x + y, start)
            arc, arc_split = first_best(best_arc, where_arc, column, SPLITS)
            to_right = arc + tl.load(scores + j * size + i, mask=span, other=float("-inf"))
            to_left = arc + tl.load(scores + i * size + j, mask=span & (i > 0), other=float("-inf"))
            all_right, right_split = first_best(best_right, where_right, column, SPLITS)
            all_left, left_split = first_best(best_left, where_left, column, SPLITS)
            right_split = tl.where(to_right > all_right, width - 1, right_split)
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
    scores, right, left, splits, arc_splits, used_right, used_left, used_arcs, lengths, heads, totals, size,
    SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """``heads [B, size-1]`` and the best tree's value ``totals [B]``; ``used_*`` are int8 and start at 0."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    scores += b * size * size
    right += b * size * size
    left += b * size * size
    splits += b * size * size
    arc_splits += b * size * size
    used_right += b * size * size
    used_left += b * size * size
    used_arcs += b * size * size
    heads += b * (size - 1)
    if FIRST == 1:
        best = tl.full((SPANS,), float("-inf"), scores.dtype.element_ty)
        where = tl.zeros((SPANS,), tl.int32)
        for begin in range(1, n + 1, SPANS):
            i = begin + tl.arange(0, SPANS)
            total = tl.load(left + size + i, mask=i <= n, other=float("-inf"))
            total += tl.load(scores + i * size, mask=i <= n, other=float("-inf"))
            total += tl.load(right + i * size + n, mask=i <= n, other=float("-inf"))
            best, where = keep_better(best, where, total, i)
        most = tl.max(best, axis=0)
        root = tl.min(tl.where(best == most, where, 2147483647), axis=0)
        root = tl.where(most > float("-inf"), root, 1)
        tl.store(totals + b, most)
        tl.store(heads + root - 1, 0)
        tl.store(used_left + size + root, 1)
        tl.store(used_right + root * size + n, 1)
    else:
        tl.store(totals + b, tl.load(right + n))
        tl.store(used_right + n, 1)
    tl.debug_barrier()
    for narrower in range(0, n - FIRST):
        width = n - FIRST - narrower
        for begin in range(FIRST, n + 1 - width, SPANS):
            i = begin + tl.arange(0, SPANS)
            j = i + width
            span = j <= n
            uses_right = span & (tl.load(used_right + i * size + j, mask=span, other=0) > 0)
            uses_left = span & (tl.load(used_left + i * size + j, mask=span, other=0) > 0)
            k_right = i + 1 + tl.load(splits + i * size + j, mask=uses_right, other=0)
            k_left = i + tl.load(splits + j * size + i, mask=uses_left, other=0)
            tl.store(used_arcs + i * size + k_right, 1, mask=uses_right)
            tl.store(used_right + k_right * size + j, 1, mask=uses_right)
            tl.store(used_arcs + j * size + k_left, 1, mask=uses_left)
            tl.store(used_left + i * size + k_left, 1, mask=uses_left)
        tl.debug_barrier()
        for begin in range(FIRST, n + 1 - width, SPANS):
            i = begin + tl.arange(0, SPANS)
            j = i + width
            span = j <= n
            arc_right = span & (tl.load(used_arcs + i * size + j, mask=span, other=0) > 0)
            arc_left = span & (tl.load(used_arcs + j * size + i, mask=span, other=0) > 0)
            either = arc_right | arc_left
            tl.store(heads + j - 1, i, mask=arc_right)
            tl.store(heads + i - 1, j, mask=arc_left)
            k_arc = i + tl.load(arc_splits + i * size + j, mask=either, other=0)
            tl.store(used_right + i * size + k_arc, 1, mask=either)
            tl.store(used_left + (k_arc + 1) * size + j, 1, mask=either)
        tl.debug_barrier()


def best_trees(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Heads ``[B, N]`` (-1 beyond the length) and value ``[B]`` of the best projective trees.

    ``scores [B, N+1, N+1]`` contiguous, float32 or float64, without NaN or +inf. A value of -inf means that
    there is no tree (the heads then mean nothing). Nothing waits for the device.
    """
    batch, size, _ = scores.shape
    right, left, arcs = scores.new_empty(3, batch, size, size)
    splits, arc_splits = torch.empty(2, batch, size, size, dtype=torch.int16, device=scores.device)
    used = torch.zeros(3, batch, size, size, dtype=torch.int8, device=scores.device)
    heads = torch.full((batch, size - 1), -1, dtype=torch.int64, device=scores.device)
    totals = scores.new_empty(batch)
    tile = tile_shape(multi_root)
    with on_device_of(scores):
        fill_charts[(batch,)](scores, right, left, arcs, splits, arc_splits, lengths, size, **tile)
        follow_best_splits[(batch,)](
            scores, right, left, splits, arc_splits, *used, lengths, heads, totals, size, **tile
        )  # fmt: skip
    return heads, totals


def tile_shape(multi_root: bool) -> dict[str, int]:
    """Compile-time arguments: spans and split points of a tile, where spans begin, warps."""
    return {"SPANS": 32, "SPLITS": 16, "FIRST": 0 if multi_root else 1, "num_warps": 8}
