"""Elimination of the words on the GPU, and its way back, on logarithms: a slower way that always does.

That of ``reference.matrix_tree_log_partition`` in float64, word by word: the rows and columns of the words
that are left are updated a tile at a time, and a barrier separates one word from the next. Nothing is
subtracted on the way there. On the way back only probabilities are, where the head of an eliminated word is
shared out, so that marginals are exact to the rounding of the scores.

With ``ALONG``, both ways carry the derivatives of all values, which lie ``shift`` elements behind these.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels.triton.launch import on_device_of
from diffdecode.structure.kernels.triton.logs import along_of, load, log_add, log_of, log_plus, store

# The constexpr arguments: WORDS and HEADS of a tile, powers of two; FIRST, 0 if the root may have several
# dependents, else 1; ALONG. None depends on the size: one kernel does for all.


@triton.jit
def eliminate(
    weights, n, size, shift,
    WORDS: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, ALONG: tl.constexpr,
):  # fmt: skip
    """Reroute the arcs through words ``n .. 1`` in place: ``weights [size, size]`` are logarithms.

    Afterwards ``weights[k]`` is the row, and ``weights[:, k]`` the column, that word ``k`` had when it was
    eliminated, and ``weights[k, k]`` what its arcs added up to.

    Returns the word that has changed places with word 1, 1 if none has. With one root word, one from which
    no other word can be reached through words is to be eliminated last: it is the root word of every tree.
    """
    lowest = float("-inf")
    front = 1
    for back in range(0, n):
        k = n - back
        first = tl.where(k > 1, FIRST, 0)
        all_k, all_k_along = sum_of_row(weights, k, first, size, shift, HEADS, ALONG)
        if (all_k == lowest) & (first == 1) & (front == 1):
            bring_to_front(weights, k, n, size, shift, HEADS, ALONG)
            all_k, all_k_along = sum_of_row(weights, k, first, size, shift, HEADS, ALONG)
            front = k
        store(weights + k * size + k, all_k, all_k_along, n > 0, shift, ALONG)
        all_k = tl.where(all_k > lowest, all_k, 0.0)
        for begin in range(1, k, WORDS):
            i = begin + tl.arange(0, WORDS)
            to_k, to_k_along = load(weights + i * size + k, i < k, lowest, shift, ALONG)
            to_k -= all_k
            to_k_along -= all_k_along
            for start in range(0, k, HEADS):
                h = start + tl.arange(0, HEADS)
                x, x_along = load(weights + k * size + h, h < k, lowest, shift, ALONG)
                at = weights + i[:, None] * size + h[None, :]
                use = (i < k)[:, None] & (h < k)[None, :] & (i[:, None] != h[None, :])
                direct, direct_along = load(at, use, lowest, shift, ALONG)
                both, both_along = log_plus(
                    direct, direct_along, to_k[:, None] + x[None, :], to_k_along[:, None] + x_along[None, :]
                )
                store(at, both, both_along, use, shift, ALONG)
        tl.debug_barrier()
    return front


@triton.jit
def sum_of_row(weights, k, first, size, shift, HEADS: tl.constexpr, ALONG: tl.constexpr):
    """What the arcs from word ``k`` to heads ``first .. k - 1`` add up to."""
    peak = tl.full((1,), float("-inf"), tl.float64)
    total = tl.zeros((1,), tl.float64)
    slope = tl.zeros((1,), tl.float64)
    for start in range(0, k, HEADS):
        h = start + tl.arange(0, HEADS)
        x, x_along = load(weights + k * size + h, (h >= first) & (h < k), float("-inf"), shift, ALONG)
        peak, total, slope = log_add(peak, total, slope, x[None, :], x_along[None, :])
    return tl.sum(log_of(peak, total), axis=0), tl.sum(along_of(total, slope), axis=0)


@triton.jit
def bring_to_front(weights, k, n, size, shift, HEADS: tl.constexpr, ALONG: tl.constexpr):
    """Words 1 and ``k`` change places: rows and columns, those of eliminated words included."""
    for start in range(0, n + 1, HEADS):
        other = start + tl.arange(0, HEADS)
        use = (other <= n) & (other != 1) & (other != k)
        swap(weights + size + other, weights + k * size + other, use, shift, ALONG)
        use = use & (other > 0)
        swap(weights + other * size + 1, weights + other * size + k, use, shift, ALONG)
    pair = tl.arange(0, 1)
    swap(weights + size + k + pair, weights + k * size + 1 + pair, pair == 0, shift, ALONG)
    tl.debug_barrier()


@triton.jit
def swap(ones, others, use, shift, ALONG: tl.constexpr):
    """Values of two places."""
    one, one_along = load(ones, use, 0.0, shift, ALONG)
    other, other_along = load(others, use, 0.0, shift, ALONG)
    tl.debug_barrier()  # one element may be read by several threads
    store(ones, other, other_along, use, shift, ALONG)
    store(others, one, one_along, use, shift, ALONG)


@triton.jit
def undo(
    weights, adjoints, n, size, shift,
    WORDS: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, ALONG: tl.constexpr,
):  # fmt: skip
    """``eliminate`` backwards: ``adjoints`` are logarithms of ``d partition / d weight / partition``.

    A word ``k`` comes back among the words before it. Of the arcs among these, a part was rerouted
    through ``k``: that part is handed to the arc into ``k`` and to the one out of it. What is left of the
    arcs out of ``k``, ``own``, goes to them in proportion to their weights; where more than one word is to
    be expected below ``k``, it is negative.
    """
    lowest = float("-inf")
    for k in range(1, n + 1):
        first = tl.where(k > 1, FIRST, 0)
        all_k, all_k_along = load(weights + k * size + k, n > 0, lowest, shift, ALONG)
        all_k = tl.where(all_k > float("-inf"), all_k, 0.0)
        for begin in range(1, k, WORDS):
            i = begin + tl.arange(0, WORDS)
            peak = tl.full((WORDS,), float("-inf"), tl.float64)
            total = tl.zeros((WORDS,), tl.float64)
            slope = tl.zeros((WORDS,), tl.float64)
            for start in range(0, k, HEADS):
                h = start + tl.arange(0, HEADS)
                use = (i < k)[:, None] & (h < k)[None, :] & (i[:, None] != h[None, :])
                x, x_along = load(weights + k * size + h, h < k, lowest, shift, ALONG)
                y, y_along = load(adjoints + i[:, None] * size + h[None, :], use, lowest, shift, ALONG)
                peak, total, slope = log_add(peak, total, slope, x[None, :] + y, x_along[None, :] + y_along)
            by_i, by_i_along = log_of(peak, total) - all_k, along_of(total, slope) - all_k_along
            store(adjoints + i * size + k, by_i, by_i_along, i < k, shift, ALONG)
        below = tl.zeros((1,), tl.float64)
        below_along = tl.zeros((1,), tl.float64)
        for start in range(0, k, HEADS):
            h = start + tl.arange(0, HEADS)
            peak = tl.full((HEADS,), float("-inf"), tl.float64)
            total = tl.zeros((HEADS,), tl.float64)
            slope = tl.zeros((HEADS,), tl.float64)
            for begin in range(1, k, WORDS):
                i = begin + tl.arange(0, WORDS)
                use = (i < k)[None, :] & (h < k)[:, None] & (i[None, :] != h[:, None])
                x, x_along = load(weights + i * size + k, i < k, lowest, shift, ALONG)
                y, y_along = load(adjoints + i[None, :] * size + h[:, None], use, lowest, shift, ALONG)
                peak, total, slope = log_add(peak, total, slope, x[None, :] + y, x_along[None, :] + y_along)
            through, through_along = log_of(peak, total), along_of(total, slope)
            x, x_along = load(weights + k * size + h, h < k, lowest, shift, ALONG)
            rerouted = tl.exp(through + x - all_k)
            below += tl.sum(rerouted, axis=0)
            below_along += tl.sum(rerouted * (through_along + x_along - all_k_along), axis=0)
            store(adjoints + k * size + h, through, through_along, h < k, shift, ALONG)
        tl.debug_barrier()
        for start in range(0, k, HEADS):
            h = start + tl.arange(0, HEADS)
            through, through_along = load(adjoints + k * size + h, h < k, lowest, shift, ALONG)
            scale = tl.maximum(through, 0.0)
            part, own = tl.exp(through - scale), tl.exp(-scale)
            whole = part + own * (1 - below)
            kept = whole > 1e-30  # less is a rounding error of the difference
            whole = tl.where(kept, whole, 1.0)
            by_k = tl.where(kept, tl.log(whole) + scale - all_k, float("-inf"))
            by_k_along = tl.where(kept, (part * through_along - own * below_along) / whole - all_k_along, 0.0)
            # A root arc that is no part of the sum gets what was rerouted alone, however little that is.
            by_k = tl.where(h >= first, by_k, through - all_k)
            by_k_along = tl.where(h >= first, by_k_along, through_along - all_k_along)
            store(adjoints + k * size + h, by_k, by_k_along, h < k, shift, ALONG)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["size"])
def eliminate_words(weights, lengths, size, WORDS: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr):
    """``eliminate`` sentence ``program_id(0)`` of ``weights [B, size, size]``."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    eliminate(weights + b * size * size, n, size, 0, WORDS, HEADS, FIRST, False)


def eliminated(given: Tensor, lengths: Tensor, multi_root: bool) -> Tensor:
    """What ``eliminate`` makes of logarithms ``given [B, N+1, N+1]`` float64."""
    weights = given.clone(memory_format=torch.contiguous_format)
    batch, size, _ = given.shape
    with on_device_of(given):
        eliminate_words[(batch,)](weights, lengths, size, FIRST=0 if multi_root else 1, **TILE)
    return weights


def log_partition(weights: Tensor, lengths: Tensor) -> Tensor:
    """``[B]``: the sum of the words' totals in eliminated ``weights [B, N+1, N+1]``."""
    totals = weights.diagonal(0, 1, 2)[:, 1:]
    word = torch.arange(1, weights.shape[1], device=weights.device)
    return totals.masked_fill(word > lengths[:, None], 0).sum(1)


TILE = {"WORDS": 32, "HEADS": 32, "num_warps": 8}
