"""Eisner's algorithm on the GPU: one program a sentence, two launches a batch whatever the lengths.

The items and the tie-breaking are those of ``reference.inside_charts``. All spans of one width are
independent, so a program walks over the widths and handles the spans of a width as a tile, spans by split
points; a barrier separates reading a width from writing it. Charts lie in global memory (they stay in the
caches). A chart is stored on both sides of its diagonal, so that every read runs along a row::

    right[i, j] = right[j, i]    left[i, j] = left[j, i]    arcs[i, j]: head i, dependent j

The walk down goes over the widths in the same shape, from wide to narrow: a used span marks the two
narrower spans of its best split, so there is no stack.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# The constexpr arguments: SPANS, a power of two that holds N + 1; SPLITS, split points a tile; FIRST, the
# first position of a span: 0 if the root may have several dependents, else 1.


@triton.jit
def fill_charts(
    scores, right, left, arcs, lengths, size,
    SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """Values of all spans of sentence ``program_id(0)``; ``scores`` is ``[B, size, size]``."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    scores += b * size * size
    right += b * size * size
    left += b * size * size
    arcs += b * size * size
    i = tl.arange(0, SPANS)
    position = (i >= FIRST) & (i <= n)
    tl.store(right + i * size + i, 0.0, mask=position)
    tl.store(left + i * size + i, 0.0, mask=position)
    tl.debug_barrier()
    for width in range(1, n + 1 - FIRST):
        j = i + width
        span = (i >= FIRST) & (j <= n)
        best = tl.full((SPANS,), float("-inf"), scores.dtype.element_ty)
        for start in range(0, width, SPLITS):
            r = start + tl.arange(0, SPLITS)
            inside = span[:, None] & (r < width)[None, :]
            r_right = tl.load(
                right + i[:, None] * size + i[:, None] + r[None, :], mask=inside, other=float("-inf")
            )
            r_left = tl.load(
                left + j[:, None] * size + i[:, None] + r[None, :] + 1, mask=inside, other=float("-inf")
            )
            best = tl.maximum(best, tl.max(r_right + r_left, axis=1))
        to_right = best + tl.load(scores + j * size + i, mask=span, other=float("-inf"))
        to_left = best + tl.load(scores + i * size + j, mask=span & (i > 0), other=float("-inf"))
        tl.store(arcs + i * size + j, to_right, mask=span)
        tl.store(arcs + j * size + i, to_left, mask=span)
        tl.debug_barrier()
        best_right = tl.full((SPANS,), float("-inf"), scores.dtype.element_ty)
        best_left = tl.full((SPANS,), float("-inf"), scores.dtype.element_ty)
        for start in range(0, width, SPLITS):
            r = start + tl.arange(0, SPLITS)
            inside = span[:, None] & (r < width)[None, :]
            k = i[:, None] + r[None, :]
            head_i = tl.load(arcs + i[:, None] * size + k + 1, mask=inside, other=float("-inf"))
            rest_j = tl.load(right + j[:, None] * size + k + 1, mask=inside, other=float("-inf"))
            head_j = tl.load(arcs + j[:, None] * size + k, mask=inside, other=float("-inf"))
            rest_i = tl.load(left + i[:, None] * size + k, mask=inside, other=float("-inf"))
            best_right = tl.maximum(best_right, tl.max(head_i + rest_j, axis=1))
            best_left = tl.maximum(best_left, tl.max(rest_i + head_j, axis=1))
        tl.store(right + i * size + j, best_right, mask=span)
        tl.store(right + j * size + i, best_right, mask=span)
        tl.store(left + i * size + j, best_left, mask=span)
        tl.store(left + j * size + i, best_left, mask=span)
        tl.debug_barrier()


@triton.jit
def follow_best_splits(
    scores, right, left, arcs, used_right, used_left, used_arcs, lengths, heads, totals, size,
    SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """``heads [B, size-1]`` and the best tree's value ``totals [B]``; ``used_*`` are int8 and start at 0."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    scores += b * size * size
    right += b * size * size
    left += b * size * size
    arcs += b * size * size
    used_right += b * size * size
    used_left += b * size * size
    used_arcs += b * size * size
    heads += b * (size - 1)
    i = tl.arange(0, SPANS)
    if FIRST == 1:
        word = (i >= 1) & (i <= n)
        total = tl.load(left + size + i, mask=word, other=float("-inf"))
        total += tl.load(scores + i * size, mask=word, other=float("-inf"))
        total += tl.load(right + i * size + n, mask=word, other=float("-inf"))
        root = tl.maximum(tl.argmax(total, axis=0), 1)  # 0 if there is no tree
        tl.store(totals + b, tl.max(total, axis=0))
        tl.store(heads + root - 1, 0)
        tl.store(used_left + size + root, 1)
        tl.store(used_right + root * size + n, 1)
    else:
        tl.store(totals + b, tl.load(right + n))
        tl.store(used_right + n, 1)
    tl.debug_barrier()
    for narrower in range(0, n - FIRST):
        width = n - FIRST - narrower
        j = i + width
        span = (i >= FIRST) & (j <= n)
        best_right = tl.full((SPANS,), float("-inf"), scores.dtype.element_ty)
        best_left = tl.full((SPANS,), float("-inf"), scores.dtype.element_ty)
        best_arc = tl.full((SPANS,), float("-inf"), scores.dtype.element_ty)
        split_right = tl.zeros((SPANS,), tl.int32)
        split_left = tl.zeros((SPANS,), tl.int32)
        split_arc = tl.zeros((SPANS,), tl.int32)
        for start in range(0, width, SPLITS):
            r = start + tl.arange(0, SPLITS)
            inside = span[:, None] & (r < width)[None, :]
            k = i[:, None] + r[None, :]
            value_right = tl.load(arcs + i[:, None] * size + k + 1, mask=inside, other=float("-inf"))
            value_right += tl.load(right + j[:, None] * size + k + 1, mask=inside, other=float("-inf"))
            value_left = tl.load(left + i[:, None] * size + k, mask=inside, other=float("-inf"))
            value_left += tl.load(arcs + j[:, None] * size + k, mask=inside, other=float("-inf"))
            value_arc = tl.load(right + i[:, None] * size + k, mask=inside, other=float("-inf"))
            value_arc += tl.load(left + j[:, None] * size + k + 1, mask=inside, other=float("-inf"))
            most_right = tl.max(value_right, axis=1)
            most_left = tl.max(value_left, axis=1)
            most_arc = tl.max(value_arc, axis=1)
            # Only a larger value moves a split to the right: equal ones stay with the leftmost.
            split_right = tl.where(
                most_right > best_right, start + tl.argmax(value_right, axis=1), split_right
            )
            split_left = tl.where(most_left > best_left, start + tl.argmax(value_left, axis=1), split_left)
            split_arc = tl.where(most_arc > best_arc, start + tl.argmax(value_arc, axis=1), split_arc)
            best_right = tl.maximum(best_right, most_right)
            best_left = tl.maximum(best_left, most_left)
            best_arc = tl.maximum(best_arc, most_arc)
        uses_right = span & (tl.load(used_right + i * size + j, mask=span, other=0) > 0)
        uses_left = span & (tl.load(used_left + i * size + j, mask=span, other=0) > 0)
        k_right = i + 1 + split_right
        k_left = i + split_left
        tl.store(used_arcs + i * size + k_right, 1, mask=uses_right)
        tl.store(used_right + k_right * size + j, 1, mask=uses_right)
        tl.store(used_arcs + j * size + k_left, 1, mask=uses_left)
        tl.store(used_left + i * size + k_left, 1, mask=uses_left)
        tl.debug_barrier()
        arc_right = span & (tl.load(used_arcs + i * size + j, mask=span, other=0) > 0)
        arc_left = span & (tl.load(used_arcs + j * size + i, mask=span, other=0) > 0)
        tl.store(heads + j - 1, i, mask=arc_right)
        tl.store(heads + i - 1, j, mask=arc_left)
        either = arc_right | arc_left
        k_arc = i + split_arc
        tl.store(used_right + i * size + k_arc, 1, mask=either)
        tl.store(used_left + (k_arc + 1) * size + j, 1, mask=either)
        tl.debug_barrier()


def best_trees(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Heads ``[B, N]`` (-1 beyond the length) and value ``[B]`` of the best projective trees.

    ``scores [B, N+1, N+1]`` contiguous, float32 or float64, without NaN or +inf. A value of -inf means that
    there is no tree (the heads then mean nothing). Nothing waits for the device.
    """
    batch, size, _ = scores.shape
    right, left, arcs = scores.new_full((3, batch, size, size), -torch.inf)
    used = torch.zeros(3, batch, size, size, dtype=torch.int8, device=scores.device)
    heads = torch.full((batch, size - 1), -1, dtype=torch.int64, device=scores.device)
    totals = scores.new_empty(batch)
    tile = tile_shape(size, multi_root)
    fill_charts[(batch,)](scores, right, left, arcs, lengths, size, **tile)
    follow_best_splits[(batch,)](
        scores, right, left, arcs, *used, lengths, heads, totals, size, **tile
    )  # fmt: skip
    return heads, totals


def tile_shape(size: int, multi_root: bool) -> dict[str, int]:
    """Compile-time arguments: spans and split points of a tile, warps, and where spans begin."""
    spans = max(16, triton.next_power_of_2(size))
    return {
        "SPANS": spans,
        "SPLITS": min(spans, 32 if spans <= 128 else 16),
        "FIRST": 0 if multi_root else 1,
        "num_warps": 4 if spans <= 32 else 8,
    }
