"""Inside-outside of projective trees on the GPU, in the shape of ``eisner``: two launches a batch.

The inside pass is Eisner's recursion with log-sum-exp for max, in float64. The outside pass walks the
widths from wide to narrow and shares the posterior of every span out among the splits that make it up.

A posterior chart holds two sums for each item, on either side of its diagonal: an item is the left part of
spans that begin where it begins (row ``i``) and the right part of spans that end where it ends (row ``j``).
So no two spans of a width ever add to the same cell, and no atomics are needed.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels.triton.eisner import tile_shape


@triton.jit
def log_add(peak, total, terms):
    """The running log-sum-exp ``peak + log total`` of each row, with the row's ``terms`` added."""
    higher = tl.maximum(peak, tl.max(terms, axis=1))
    shift = tl.where(higher == float("-inf"), 0.0, higher)
    return higher, total * tl.exp(peak - shift) + tl.sum(tl.exp(terms - shift[:, None]), axis=1)


@triton.jit
def log_of(peak, total):
    """The logarithm that ``log_add`` has summed; -inf if there was no term."""
    return tl.where(total > 0, peak + tl.log(tl.where(total > 0, total, 1.0)), float("-inf"))


@triton.jit
def share(part, rest, whole, posterior):
    """The posterior of a split: its probability given the whole, times the posterior of the whole."""
    used = posterior[:, None] > 0
    return tl.where(used, tl.exp(part + rest - tl.where(used, whole[:, None], 0.0)), 0.0) * posterior[:, None]


@triton.jit
def inside(
    scores, right, left, arcs, bases, lengths, size,
    SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """Log-sums of all spans; ``bases[i, j]`` is that of two facing spans before an arc joins them."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    scores += b * size * size
    right += b * size * size
    left += b * size * size
    arcs += b * size * size
    bases += b * size * size
    i = tl.arange(0, SPANS)
    position = (i >= FIRST) & (i <= n)
    tl.store(right + i * size + i, 0.0, mask=position)
    tl.store(left + i * size + i, 0.0, mask=position)
    tl.debug_barrier()
    for width in range(1, n + 1 - FIRST):
        j = i + width
        span = (i >= FIRST) & (j <= n)
        peak = tl.full((SPANS,), float("-inf"), tl.float64)
        total = tl.zeros((SPANS,), tl.float64)
        for start in range(0, width, SPLITS):
            r = start + tl.arange(0, SPLITS)
            use = span[:, None] & (r < width)[None, :]
            k = i[:, None] + r[None, :]
            x = tl.load(right + i[:, None] * size + k, mask=use, other=float("-inf"))
            y = tl.load(left + j[:, None] * size + k + 1, mask=use, other=float("-inf"))
            peak, total = log_add(peak, total, x + y)
        base = log_of(peak, total)
        to_right = base + tl.load(scores + j * size + i, mask=span, other=float("-inf"))
        to_left = base + tl.load(scores + i * size + j, mask=span & (i > 0), other=float("-inf"))
        tl.store(bases + i * size + j, base, mask=span)
        tl.store(arcs + i * size + j, to_right, mask=span)
        tl.store(arcs + j * size + i, to_left, mask=span)
        tl.debug_barrier()
        peak_right = tl.full((SPANS,), float("-inf"), tl.float64)
        peak_left = tl.full((SPANS,), float("-inf"), tl.float64)
        total_right = tl.zeros((SPANS,), tl.float64)
        total_left = tl.zeros((SPANS,), tl.float64)
        for start in range(0, width, SPLITS):
            r = start + tl.arange(0, SPLITS)
            use = span[:, None] & (r < width)[None, :]
            k = i[:, None] + r[None, :]
            x = tl.load(arcs + i[:, None] * size + k + 1, mask=use, other=float("-inf"))
            y = tl.load(right + j[:, None] * size + k + 1, mask=use, other=float("-inf"))
            peak_right, total_right = log_add(peak_right, total_right, x + y)
            x = tl.load(left + i[:, None] * size + k, mask=use, other=float("-inf"))
            y = tl.load(arcs + j[:, None] * size + k, mask=use, other=float("-inf"))
            peak_left, total_left = log_add(peak_left, total_left, x + y)
        sum_right = log_of(peak_right, total_right)
        sum_left = log_of(peak_left, total_left)
        tl.store(right + i * size + j, sum_right, mask=span)
        tl.store(right + j * size + i, sum_right, mask=span)
        tl.store(left + i * size + j, sum_left, mask=span)
        tl.store(left + j * size + i, sum_left, mask=span)
        tl.debug_barrier()


@triton.jit
def outside(
    scores, right, left, arcs, bases, p_right, p_left, p_arcs, lengths, marginals, log_partitions, size,
    SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """``marginals [B, size, size]`` (dependent, head) and ``log_partitions [B]``; ``p_*`` start at 0."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    scores += b * size * size
    right += b * size * size
    left += b * size * size
    arcs += b * size * size
    bases += b * size * size
    p_right += b * size * size
    p_left += b * size * size
    p_arcs += b * size * size
    marginals += b * size * size
    i = tl.arange(0, SPANS)
    if FIRST == 1:
        word = (i >= 1) & (i <= n)
        by_root = tl.load(left + size + i, mask=word, other=float("-inf"))
        by_root += tl.load(scores + i * size, mask=word, other=float("-inf"))
        by_root += tl.load(right + i * size + n, mask=word, other=float("-inf"))
        peak = tl.max(by_root, axis=0)
        shift = tl.where(peak == float("-inf"), 0.0, peak)
        log_partition = shift + tl.log(tl.sum(tl.exp(by_root - shift), axis=0))
        possible = log_partition > float("-inf")
        of_root = tl.where(possible, tl.exp(by_root - tl.where(possible, log_partition, 0.0)), 0.0)
        tl.store(log_partitions + b, log_partition)
        tl.store(marginals + i * size, of_root, mask=word)
        tl.store(p_left + size + i, of_root, mask=word & (i > 1))
        tl.store(p_right + n * size + i, of_root, mask=word & (i < n))
    else:
        log_partition = tl.load(right + n)
        tl.store(log_partitions + b, log_partition)
        tl.store(p_right + n, tl.where(log_partition > float("-inf"), 1.0, 0.0).to(tl.float64))
    tl.debug_barrier()
    for narrower in range(0, n - FIRST):
        width = n - FIRST - narrower
        j = i + width
        span = (i >= FIRST) & (j <= n)
        whole_right = tl.load(right + i * size + j, mask=span, other=0.0)
        whole_left = tl.load(left + i * size + j, mask=span, other=0.0)
        of_right = tl.load(p_right + i * size + j, mask=span, other=0.0)
        of_right += tl.load(p_right + j * size + i, mask=span, other=0.0)
        of_left = tl.load(p_left + i * size + j, mask=span, other=0.0)
        of_left += tl.load(p_left + j * size + i, mask=span, other=0.0)
        for start in range(0, width, SPLITS):
            r = start + tl.arange(0, SPLITS)
            use = span[:, None] & (r < width)[None, :]
            k = i[:, None] + r[None, :]
            at_i = i[:, None] * size + k
            at_j = j[:, None] * size + k
            x = tl.load(arcs + at_i + 1, mask=use, other=float("-inf"))
            y = tl.load(right + at_j + 1, mask=use, other=float("-inf"))
            p = share(x, y, whole_right, of_right)
            tl.store(p_arcs + at_i + 1, p + tl.load(p_arcs + at_i + 1, mask=use, other=0.0), mask=use)
            tl.store(p_right + at_j + 1, p + tl.load(p_right + at_j + 1, mask=use, other=0.0), mask=use)
            x = tl.load(left + at_i, mask=use, other=float("-inf"))
            y = tl.load(arcs + at_j, mask=use, other=float("-inf"))
            p = share(x, y, whole_left, of_left)
            tl.store(p_left + at_i, p + tl.load(p_left + at_i, mask=use, other=0.0), mask=use)
            tl.store(p_arcs + at_j, p + tl.load(p_arcs + at_j, mask=use, other=0.0), mask=use)
        tl.debug_barrier()
        to_right = tl.load(p_arcs + i * size + j, mask=span, other=0.0)
        to_left = tl.load(p_arcs + j * size + i, mask=span, other=0.0)
        tl.store(marginals + j * size + i, to_right, mask=span)
        tl.store(marginals + i * size + j, to_left, mask=span & (i > 0))
        base = tl.load(bases + i * size + j, mask=span, other=0.0)
        for start in range(0, width, SPLITS):
            r = start + tl.arange(0, SPLITS)
            use = span[:, None] & (r < width)[None, :]
            k = i[:, None] + r[None, :]
            at_i = i[:, None] * size + k
            at_j = j[:, None] * size + k
            x = tl.load(right + at_i, mask=use, other=float("-inf"))
            y = tl.load(left + at_j + 1, mask=use, other=float("-inf"))
            p = share(x, y, base, to_right + to_left)
            tl.store(p_right + at_i, p + tl.load(p_right + at_i, mask=use, other=0.0), mask=use)
            tl.store(p_left + at_j + 1, p + tl.load(p_left + at_j + 1, mask=use, other=0.0), mask=use)
        tl.debug_barrier()


def marginals_and_log_partition(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Arc marginals ``[B, N+1, N+1]`` and log-partition ``[B]``, both float64.

    ``scores [B, N+1, N+1]`` contiguous float64, without NaN or +inf; a log-partition of -inf means that there
    is no tree. Nothing waits for the device.
    """
    batch, size, _ = scores.shape
    right, left, arcs, bases = scores.new_full((4, batch, size, size), -torch.inf)
    p_right, p_left, p_arcs, marginals = scores.new_zeros(4, batch, size, size)
    log_partitions = scores.new_empty(batch)
    tile = tile_shape(size, multi_root)
    inside[(batch,)](scores, right, left, arcs, bases, lengths, size, **tile)
    outside[(batch,)](
        scores, right, left, arcs, bases, p_right, p_left, p_arcs, lengths, marginals, log_partitions, size,
        **tile,
    )  # fmt: skip
    return marginals, log_partitions
