"""Inside-outside of projective trees on the GPU, in the shape of ``eisner``: two launches a batch.

The inside pass is Eisner's recursion with log-sum-exp for max, in float64. The outside pass walks the
widths from wide to narrow and shares the posterior of every span out among the splits that make it up.

A posterior chart holds two sums for each item, on either side of its diagonal: an item is the left part of
spans that begin where it begins (row ``i``) and the right part of spans that end where it ends (row ``j``).
So no two spans of a width ever add to the same cell, and no atomics are needed.

The covariance product is the derivative of the marginals along a vector: with ``ALONG``, both passes carry
the derivatives of all values, which lie ``shift`` elements behind these.
"""

import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels.triton.eisner import tile_shape
from diffdecode.structure.kernels.triton.launch import on_device_of
from diffdecode.structure.kernels.triton.logs import add, along_of, load, log_add, log_of, log_plus, store


@triton.jit
def share(x, x_along, y, y_along, whole, whole_along, posterior, posterior_along):
    """The posterior of splits: their probability given the whole, times the posterior of the whole."""
    used = posterior[:, None] > 0
    given_whole = tl.where(used, tl.exp(x + y - tl.where(used, whole[:, None], 0.0)), 0.0)
    part = given_whole * posterior[:, None]
    along = part * (x_along + y_along - whole_along[:, None]) + given_whole * posterior_along[:, None]
    return part, along


@triton.jit(do_not_specialize=["size", "shift"])
def inside(
    scores, right, left, arcs, bases, lengths, size, shift,
    SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr, ALONG: tl.constexpr,
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
    lowest = float("-inf")
    for begin in range(FIRST, n + 1, SPANS):
        i = begin + tl.arange(0, SPANS)
        zero = tl.zeros((SPANS,), tl.float64)
        store(right + i * size + i, zero, zero, i <= n, shift, ALONG)
        store(left + i * size + i, zero, zero, i <= n, shift, ALONG)
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
            slope = tl.zeros((SPANS,), tl.float64)
            slope_right = tl.zeros((SPANS,), tl.float64)
            slope_left = tl.zeros((SPANS,), tl.float64)
            for start in range(0, width, SPLITS):
                r = start + column
                use = span[:, None] & (r < width)[None, :]
                # The widest arcs, which complete the span at its far end, are not in the charts yet.
                narrow_right = span[:, None] & (r < width - 1)[None, :]
                narrow_left = use & (r > 0)[None, :]
                x, x_along = load(right + at_i + start, use, lowest, shift, ALONG)
                y, y_along = load(left + at_j + start + 1, use, lowest, shift, ALONG)
                peak, total, slope = log_add(peak, total, slope, x + y, x_along + y_along)
                x, x_along = load(arcs + at_i + start + 1, narrow_right, lowest, shift, ALONG)
                y, y_along = load(right + at_j + start + 1, narrow_right, lowest, shift, ALONG)
                peak_right, total_right, slope_right = log_add(
                    peak_right, total_right, slope_right, x + y, x_along + y_along
                )
                x, x_along = load(left + at_i + start, narrow_left, lowest, shift, ALONG)
                y, y_along = load(arcs + at_j + start, narrow_left, lowest, shift, ALONG)
                peak_left, total_left, slope_left = log_add(
                    peak_left, total_left, slope_left, x + y, x_along + y_along
                )
            base, base_along = log_of(peak, total), along_of(total, slope)
            x, x_along = load(scores + j * size + i, span, lowest, shift, ALONG)
            to_right, to_right_along = base + x, base_along + x_along
            x, x_along = load(scores + i * size + j, span & (i > 0), lowest, shift, ALONG)
            to_left, to_left_along = base + x, base_along + x_along
            sum_right, sum_right_along = log_plus(
                log_of(peak_right, total_right), along_of(total_right, slope_right), to_right, to_right_along
            )
            sum_left, sum_left_along = log_plus(
                log_of(peak_left, total_left), along_of(total_left, slope_left), to_left, to_left_along
            )
            store(bases + i * size + j, base, base_along, span, shift, ALONG)
            store(arcs + i * size + j, to_right, to_right_along, span, shift, ALONG)
            store(arcs + j * size + i, to_left, to_left_along, span, shift, ALONG)
            store(right + i * size + j, sum_right, sum_right_along, span, shift, ALONG)
            store(right + j * size + i, sum_right, sum_right_along, span, shift, ALONG)
            store(left + i * size + j, sum_left, sum_left_along, span, shift, ALONG)
            store(left + j * size + i, sum_left, sum_left_along, span, shift, ALONG)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["size", "shift"])
def outside(
    scores, right, left, arcs, bases, p_right, p_left, p_arcs, lengths, marginals, log_partitions, size,
    shift, SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr, ALONG: tl.constexpr,
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
    lowest = float("-inf")
    if FIRST == 1:
        peak = tl.full((1,), float("-inf"), tl.float64)
        total = tl.zeros((1,), tl.float64)
        slope = tl.zeros((1,), tl.float64)
        for begin in range(1, n + 1, SPANS):
            i = begin + tl.arange(0, SPANS)
            x, x_along = by_root(scores, left, right, i, n, size, shift, ALONG)
            peak, total, slope = log_add(peak, total, slope, x[None, :], x_along[None, :])
        log_partition = tl.sum(log_of(peak, total), axis=0)
        growth = tl.sum(along_of(total, slope), axis=0)
        possible = log_partition > float("-inf")
        tl.store(log_partitions + b, log_partition)
        for begin in range(1, n + 1, SPANS):
            i = begin + tl.arange(0, SPANS)
            x, x_along = by_root(scores, left, right, i, n, size, shift, ALONG)
            of_root = tl.where(possible, tl.exp(x - tl.where(possible, log_partition, 0.0)), 0.0)
            along = of_root * (x_along - growth)
            store(marginals + i * size, of_root, along, i <= n, shift, ALONG)
            store(p_left + size + i, of_root, along, (i <= n) & (i > 1), shift, ALONG)
            store(p_right + n * size + i, of_root, along, i < n, shift, ALONG)
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
            all_right, all_right_along = load(right + i * size + j, span, 0.0, shift, ALONG)
            all_left, all_left_along = load(left + i * size + j, span, 0.0, shift, ALONG)
            p, p_along = load(p_right + i * size + j, span, 0.0, shift, ALONG)
            q, q_along = load(p_right + j * size + i, span, 0.0, shift, ALONG)
            of_right, of_right_along = p + q, p_along + q_along
            p, p_along = load(p_left + i * size + j, span, 0.0, shift, ALONG)
            q, q_along = load(p_left + j * size + i, span, 0.0, shift, ALONG)
            of_left, of_left_along = p + q, p_along + q_along
            for start in range(0, width, SPLITS):
                r = start + column
                use = span[:, None] & (r < width)[None, :]
                k = i[:, None] + r[None, :]
                at_i = i[:, None] * size + k
                at_j = j[:, None] * size + k
                x, x_along = load(arcs + at_i + 1, use, lowest, shift, ALONG)
                y, y_along = load(right + at_j + 1, use, lowest, shift, ALONG)
                part, along = share(
                    x, x_along, y, y_along, all_right, all_right_along, of_right, of_right_along
                )
                add(p_arcs + at_i + 1, part, along, use, shift, ALONG)
                add(p_right + at_j + 1, part, along, use, shift, ALONG)
                x, x_along = load(left + at_i, use, lowest, shift, ALONG)
                y, y_along = load(arcs + at_j, use, lowest, shift, ALONG)
                part, along = share(x, x_along, y, y_along, all_left, all_left_along, of_left, of_left_along)
                add(p_left + at_i, part, along, use, shift, ALONG)
                add(p_arcs + at_j, part, along, use, shift, ALONG)
        tl.debug_barrier()
        for begin in range(FIRST, n + 1 - width, SPANS):
            i = begin + tl.arange(0, SPANS)
            j = i + width
            span = j <= n
            to_right, to_right_along = load(p_arcs + i * size + j, span, 0.0, shift, ALONG)
            to_left, to_left_along = load(p_arcs + j * size + i, span, 0.0, shift, ALONG)
            store(marginals + j * size + i, to_right, to_right_along, span, shift, ALONG)
            store(marginals + i * size + j, to_left, to_left_along, span & (i > 0), shift, ALONG)
            of_arc, of_arc_along = to_right + to_left, to_right_along + to_left_along
            base, base_along = load(bases + i * size + j, span, 0.0, shift, ALONG)
            for start in range(0, width, SPLITS):
                r = start + column
                use = span[:, None] & (r < width)[None, :]
                k = i[:, None] + r[None, :]
                at_i = i[:, None] * size + k
                at_j = j[:, None] * size + k
                x, x_along = load(right + at_i, use, lowest, shift, ALONG)
                y, y_along = load(left + at_j + 1, use, lowest, shift, ALONG)
                part, along = share(x, x_along, y, y_along, base, base_along, of_arc, of_arc_along)
                add(p_right + at_i, part, along, use, shift, ALONG)
                add(p_left + at_j + 1, part, along, use, shift, ALONG)
        tl.debug_barrier()


@triton.jit
def by_root(scores, left, right, i, n, size, shift, ALONG: tl.constexpr):
    """Logarithms of all trees whose root word is ``i``, summed; -inf beyond the sentence."""
    x, x_along = load(left + size + i, i <= n, float("-inf"), shift, ALONG)
    y, y_along = load(scores + i * size, i <= n, float("-inf"), shift, ALONG)
    z, z_along = load(right + i * size + n, i <= n, float("-inf"), shift, ALONG)
    return x + y + z, x_along + y_along + z_along


def inside_charts(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, ...]:
    """Charts ``right, left, arcs, bases`` of what ``inside`` sums up, shaped as ``scores``.

    ``scores [1, B, N+1, N+1]`` contiguous float64, without NaN or +inf; or ``[2, B, N+1, N+1]``, of which the
    second part is the direction of a derivative, finite and 0 where no arc can be.
    """
    parts, batch, size, _ = scores.shape
    charts = scores.new_empty(4, *scores.shape).unbind()
    with on_device_of(scores):
        inside[(batch,)](
            scores, *charts, lengths, size, scores[0].numel(), **tile_shape(multi_root), ALONG=parts == 2
        )
    return charts


def marginals_and_log_partition(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Arc marginals, shaped as ``scores``, and log-partition ``[B]``, both float64.

    ``scores`` as for :func:`inside_charts`. With a direction, the second part of the marginals is their
    derivative along it, the covariance product. A log-partition of -inf means that there is no tree. Nothing
    waits for the device.
    """
    parts, batch, size, _ = scores.shape
    charts = inside_charts(scores, lengths, multi_root)
    p_right, p_left, p_arcs, marginals = scores.new_zeros(4, *scores.shape)
    log_partitions = scores.new_empty(batch)
    with on_device_of(scores):
        outside[(batch,)](
            scores, *charts, p_right, p_left, p_arcs, lengths, marginals, log_partitions, size,
            scores[0].numel(), **tile_shape(multi_root), ALONG=parts == 2,
        )  # fmt: skip
    return marginals, log_partitions
