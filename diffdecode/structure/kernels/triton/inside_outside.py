"""Inside-outside of projective trees on the GPU, in the shape of ``eisner``: two launches a batch.

The inside pass is Eisner's recursion with log-sum-exp for max, in float64. The outside pass walks the
widths from wide to narrow and shares the posterior of every span out among the splits that make it up.

A posterior chart holds two sums for each item, on either side of its diagonal: an item is the left part of
spans that begin where it begins (row ``i``) and the right part of spans that end where it ends (row ``j``).
So no two spans of a width ever add to the same cell, and no atomics are needed.
"""

import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels.triton.eisner import tile_shape
from diffdecode.structure.kernels.triton.launch import on_device_of


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
def log_plus(a, b):
    """``log(exp(a) + exp(b))``."""
    higher = tl.maximum(a, b)
    shift = tl.where(higher == float("-inf"), 0.0, higher)
    return log_of(higher, tl.exp(a - shift) + tl.exp(b - shift))


@triton.jit
def share(part, rest, whole, posterior):
    """The posterior of a split: its probability given the whole, times the posterior of the whole."""
    used = posterior[:, None] > 0
    return tl.where(used, tl.exp(part + rest - tl.where(used, whole[:, None], 0.0)), 0.0) * posterior[:, None]


@triton.jit(do_not_specialize=["size"])
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
            at_i = i[:, None] * size + i[:, None] + column[None, :]
            at_j = j[:, None] * size + i[:, None] + column[None, :]
            peak = tl.full((SPANS,), float("-inf"), tl.float64)
            peak_right = tl.full((SPANS,), float("-inf"), tl.float64)
            peak_left = tl.full((SPANS,), float("-inf"), tl.float64)
            total = tl.zeros((SPANS,), tl.float64)
            total_right = tl.zeros((SPANS,), tl.float64)
            total_left = tl.zeros((SPANS,), tl.float64)
            for start in range(0, width, SPLITS):
                r = start + column
                use = span[:, None] & (r < width)[None, :]
                # The widest arcs, which complete the span at its far end, are not in the charts yet.
                narrow_right = span[:, None] & (r < width - 1)[None, :]
                narrow_left = use & (r > 0)[None, :]
                x = tl.load(right + at_i + start, mask=use, other=float("-inf"))
                y = tl.load(left + at_j + start + 1, mask=use, other=float("-inf"))
                peak, total = log_add(peak, total, x + y)
                x = tl.load(arcs + at_i + start + 1, mask=narrow_right, other=float("-inf"))
                y = tl.load(right + at_j + start + 1, mask=narrow_right, other=float("-inf"))
                peak_right, total_right = log_add(peak_right, total_right, x + y)
                x = tl.load(left + at_i + start, mask=narrow_left, other=float("-inf"))
                y = tl.load(arcs + at_j + start, mask=narrow_left, other=float("-inf"))
                peak_left, total_left = log_add(peak_left, total_left, x + y)
            base = log_of(peak, total)
            to_right = base + tl.load(scores + j * size + i, mask=span, other=float("-inf"))
            to_left = base + tl.load(scores + i * size + j, mask=span & (i > 0), other=float("-inf"))
            sum_right = log_plus(log_of(peak_right, total_right), to_right)
            sum_left = log_plus(log_of(peak_left, total_left), to_left)
            tl.store(bases + i * size + j, base, mask=span)
            tl.store(arcs + i * size + j, to_right, mask=span)
            tl.store(arcs + j * size + i, to_left, mask=span)
            tl.store(right + i * size + j, sum_right, mask=span)
            tl.store(right + j * size + i, sum_right, mask=span)
            tl.store(left + i * size + j, sum_left, mask=span)
            tl.store(left + j * size + i, sum_left, mask=span)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["size"])
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
    column = tl.arange(0, SPLITS)
    if FIRST == 1:
        peak = tl.full((1,), float("-inf"), tl.float64)
        total = tl.zeros((1,), tl.float64)
        for begin in range(1, n + 1, SPANS):
            i = begin + tl.arange(0, SPANS)
            peak, total = log_add(peak, total, by_root(scores, left, right, i, n, size)[None, :])
        log_partition = tl.sum(log_of(peak, total), axis=0)
        possible = log_partition > float("-inf")
        tl.store(log_partitions + b, log_partition)
        for begin in range(1, n + 1, SPANS):
            i = begin + tl.arange(0, SPANS)
            below = by_root(scores, left, right, i, n, size) - tl.where(possible, log_partition, 0.0)
            of_root = tl.where(possible, tl.exp(below), 0.0)
            tl.store(marginals + i * size, of_root, mask=i <= n)
            tl.store(p_left + size + i, of_root, mask=(i <= n) & (i > 1))
            tl.store(p_right + n * size + i, of_root, mask=i < n)
    else:
        log_partition = tl.load(right + n)
        tl.store(log_partitions + b, log_partition)
        tl.store(p_right + n, tl.where(log_partition > float("-inf"), 1.0, 0.0).to(tl.float64))
    tl.debug_barrier()
    for narrower in range(0, n - FIRST):
        width = n - FIRST - narrower
        for begin in range(FIRST, n + 1 - width, SPANS):
            i = begin + tl.arange(0, SPANS)
            j = i + width
            span = j <= n
            whole_right = tl.load(right + i * size + j, mask=span, other=0.0)
            whole_left = tl.load(left + i * size + j, mask=span, other=0.0)
            of_right = tl.load(p_right + i * size + j, mask=span, other=0.0)
            of_right += tl.load(p_right + j * size + i, mask=span, other=0.0)
            of_left = tl.load(p_left + i * size + j, mask=span, other=0.0)
            of_left += tl.load(p_left + j * size + i, mask=span, other=0.0)
            for start in range(0, width, SPLITS):
                r = start + column
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
        for begin in range(FIRST, n + 1 - width, SPANS):
            i = begin + tl.arange(0, SPANS)
            j = i + width
            span = j <= n
            to_right = tl.load(p_arcs + i * size + j, mask=span, other=0.0)
            to_left = tl.load(p_arcs + j * size + i, mask=span, other=0.0)
            tl.store(marginals + j * size + i, to_right, mask=span)
            tl.store(marginals + i * size + j, to_left, mask=span & (i > 0))
            base = tl.load(bases + i * size + j, mask=span, other=0.0)
            for start in range(0, width, SPLITS):
                r = start + column
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


@triton.jit
def by_root(scores, left, right, i, n, size):
    """Logarithms of all trees whose root word is ``i``, summed; -inf beyond the sentence."""
    value = tl.load(left + size + i, mask=i <= n, other=float("-inf"))
    value += tl.load(scores + i * size, mask=i <= n, other=float("-inf"))
    return value + tl.load(right + i * size + n, mask=i <= n, other=float("-inf"))


def marginals_and_log_partition(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Arc marginals ``[B, N+1, N+1]`` and log-partition ``[B]``, both float64.

    ``scores [B, N+1, N+1]`` contiguous float64, without NaN or +inf; a log-partition of -inf means that there
    is no tree. Nothing waits for the device.
    """
    batch, size, _ = scores.shape
    right, left, arcs, bases = scores.new_empty(4, batch, size, size)
    p_right, p_left, p_arcs, marginals = scores.new_zeros(4, batch, size, size)
    log_partitions = scores.new_empty(batch)
    tile = tile_shape(multi_root)
    with on_device_of(scores):
        inside[(batch,)](scores, right, left, arcs, bases, lengths, size, **tile)
        outside[(batch,)](
            scores, right, left, arcs, bases, p_right, p_left, p_arcs, lengths, marginals, log_partitions,
            size, **tile,
        )  # fmt: skip
    return marginals, log_partitions
