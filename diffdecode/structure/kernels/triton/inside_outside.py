"""Inside-outside of projective trees on the GPU, in the order of :mod:`.spans`, and its derivatives.

Real domain. Every word has one head, so subtracting the best score from each word's scores only shifts the
log-partition; then the weights are at most 1, and a sum over splits needs no logarithm. Where sums leave the
range of float64 all the same, a sentence is left to the same kernels ``WITH_PEAKS``, which are launched
always and return at once from all others. Then a number is a pair, ``exp(peak) * total``, and the peaks are
those of Eisner's recursion: sums of scores, to which logarithms are never added but where totals would leave
the range, too. So equally good trees stay equally probable at any scale.

The outside pass gathers: the adjoint of an item, ``d log(partition) / d item``, is a sum over the larger
items that it is part of, along the rows of the charts; they are wider, so one barrier a width does. An
adjoint is a number like the others, and its peak is that of its item with the sign changed.

Given a ``vector``, all numbers are dual: a change along the vector goes with each of them, and that of the
marginals is the product of the arcs' covariance and the vector.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels.status import possible_arcs
from diffdecode.structure.kernels.triton.launch import on_device_of
from diffdecode.structure.kernels.triton.spans import ARCS, LEFT, RIGHT, keep_better, over_splits, tile_shape

# Charts beside those of ``spans``: arcs with the dependent first, adjoints of right, left and of the sums
# that an arc completes. Each may be there three times: totals, peaks, changes.
TURNED, BY_RIGHT, BY_LEFT, BY_SUM = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)
CHARTS = tl.constexpr(7)
PEAKS, CHANGES = tl.constexpr(7), tl.constexpr(14)  # from a total to its peak, to its change, in charts

SMALLEST, LARGEST_SUM = tl.constexpr(1e-200), tl.constexpr(1e200)  # of the partition function, without peaks
LARGEST_TOTAL = tl.constexpr(1e60)  # beside a peak


@triton.jit
def add_products(total, change, x, y, use, start, size, peak):
    """An ``ADD``: the products of two numbers, in units of ``exp(peak)`` where there are peaks."""
    a = tl.load(x, mask=use, other=0.0)
    b = tl.load(y, mask=use, other=0.0)
    if peak is not None:
        a *= in_units_of(peak, x, y, use, size)
    return total + a * b, change


@triton.jit
def add_dual_products(total, change, x, y, use, start, size, peak):
    """The same, and their changes."""
    a = tl.load(x, mask=use, other=0.0)
    b = tl.load(y, mask=use, other=0.0)
    change_of_a = tl.load(x + CHANGES * size * size, mask=use, other=0.0)
    change_of_b = tl.load(y + CHANGES * size * size, mask=use, other=0.0)
    if peak is not None:
        scale = in_units_of(peak, x, y, use, size)
        a *= scale
        change_of_a *= scale
    return total + a * b, change + change_of_a * b + a * change_of_b


@triton.jit
def in_units_of(peak, x, y, use, size):
    """The unit of a product, in units of ``exp(peak)``."""
    of_x = tl.load(x + PEAKS * size * size, mask=use, other=float("-inf"))
    of_y = tl.load(y + PEAKS * size * size, mask=use, other=float("-inf"))
    return tl.exp(of_x + of_y - peak)


@triton.jit
def finite(peak):
    """The peak as a unit: that of a number which is 0 may be anything."""
    return tl.where(peak > float("-inf"), peak, 0.0)


@triton.jit
def weight(scores, vector, at, use, WITH_PEAKS: tl.constexpr):
    """An arc's own number: peak, total and change."""
    peak = tl.load(scores + at, mask=use, other=float("-inf"))
    total = tl.where(peak > float("-inf"), 1.0, 0.0).to(tl.float64) if WITH_PEAKS else tl.exp(peak)
    change = total
    if vector is not None:
        change = total * tl.load(vector + at, mask=use, other=0.0)
    return peak, total, change


@triton.jit
def get(charts, at, use, size, WITH_PEAKS: tl.constexpr, DUAL: tl.constexpr):
    """A number of a chart: peak, total and change (anything for what is not there)."""
    total = tl.load(charts + at, mask=use, other=0.0)
    peak = total
    change = total
    if WITH_PEAKS:
        peak = tl.load(charts + PEAKS * size * size + at, mask=use, other=float("-inf"))
    if DUAL:
        change = tl.load(charts + CHANGES * size * size + at, mask=use, other=0.0)
    return peak, total, change


@triton.jit
def put(charts, at, at_2, peak, total, change, use, size, WITH_PEAKS: tl.constexpr, DUAL: tl.constexpr):
    """A number into both of its places."""
    tl.store(charts + at, total, mask=use)
    tl.store(charts + at_2, total, mask=use)
    if WITH_PEAKS:
        tl.store(charts + PEAKS * size * size + at, peak, mask=use)
        tl.store(charts + PEAKS * size * size + at_2, peak, mask=use)
    if DUAL:
        tl.store(charts + CHANGES * size * size + at, change, mask=use)
        tl.store(charts + CHANGES * size * size + at_2, change, mask=use)


@triton.jit
def rescaled(peak, total, change, WITH_PEAKS: tl.constexpr):
    """The same number; beside a peak, with a total that can be multiplied."""
    if WITH_PEAKS:
        scale = tl.where(total > LARGEST_TOTAL, total, 1.0)
        return peak + tl.log(scale), total / scale, change / scale
    else:
        return peak, total, change


@triton.jit
def with_widest_arc(sums, changes, peak, arc_peak, arc, arc_change, WITH_PEAKS: tl.constexpr):
    """A span's number, of its other splits' sums in units of ``exp(peak)`` and the arc to its far end."""
    scale = tl.full(arc.shape, 1.0, tl.float64)
    if WITH_PEAKS:
        scale = tl.exp(arc_peak - finite(peak))
    total = tl.sum(sums, axis=1) + scale * arc
    change = tl.sum(changes, axis=1) + scale * arc_change
    return rescaled(peak, total, change, WITH_PEAKS)


@triton.jit
def put_peaks_of_adjoints(charts, chart, ij, ji, peak, use, size):
    """The adjoint of an item has the unit ``exp(-peak)``; it is 0 where the item is."""
    of_adjoint = tl.where(peak > float("-inf"), -peak, float("-inf"))
    tl.store(charts + PEAKS * size * size + chart + ij, of_adjoint, mask=use)
    tl.store(charts + PEAKS * size * size + chart + ji, of_adjoint, mask=use)


@triton.jit(do_not_specialize=["size"])
def inside(
    scores, vector, charts, lengths, lost, size,
    WITH_PEAKS: tl.constexpr, SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """Inside sums of all spans of sentence ``program_id(0)``; with peaks only where ``lost [B]`` is not 0.

    ``scores [B, size, size]`` of at most 0; ``vector`` likewise, or None.
    """
    DUAL: tl.constexpr = vector is not None
    ADD: tl.constexpr = add_dual_products if DUAL else add_products
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    if WITH_PEAKS:  # noqa: SIM102 (to Triton, the outer one is known when it compiles)
        if tl.load(lost + b) == 0:
            return
    square = size * size
    scores += b * square
    charts += b * (3 if DUAL else 2) * CHARTS * square
    if DUAL:
        vector += b * square
    for begin in range(FIRST, n + 1, SPANS):
        i = begin + tl.arange(0, SPANS)
        one = tl.full((SPANS,), 1.0, tl.float64)
        zero = tl.zeros((SPANS,), tl.float64)
        at = i * size + i
        put(charts, RIGHT * square + at, LEFT * square + at, zero, one, zero, i <= n, size, WITH_PEAKS, DUAL)
    tl.debug_barrier()
    zeros = tl.zeros((SPANS, SPLITS), tl.float64)
    for width in range(1, n + 1 - FIRST):
        for begin in range(FIRST, n + 1 - width, SPANS):
            i = begin + tl.arange(0, SPANS)
            j = i + width
            span = j <= n
            ij = i * size + j
            ji = j * size + i
            to_right_peak, to_right, to_right_change = weight(scores, vector, ji, span, WITH_PEAKS)
            to_left_peak, to_left, to_left_change = weight(scores, vector, ij, span & (i > 0), WITH_PEAKS)
            arc_peak = to_right_peak
            right_peak = to_right_peak
            left_peak = to_left_peak
            arc_unit, right_unit, left_unit = None, None, None
            if WITH_PEAKS:
                nothing = tl.full((SPANS, SPLITS), float("-inf"), tl.float64)
                nowhere = tl.zeros((SPANS, SPLITS), tl.int32)
                arcs, _, rights, _, lefts, _ = over_splits(
                    keep_better, charts + PEAKS * square, i, width, n, size, nothing, nowhere,
                    None, None, None, SPLITS,
                )  # fmt: skip
                arc_peak = tl.max(arcs, axis=1)
                right_peak = tl.maximum(tl.max(rights, axis=1), to_right_peak + arc_peak)
                left_peak = tl.maximum(tl.max(lefts, axis=1), to_left_peak + arc_peak)
                arc_unit = finite(arc_peak)[:, None]
                right_unit = finite(right_peak)[:, None]
                left_unit = finite(left_peak)[:, None]
            arcs, arc_changes, rights, right_changes, lefts, left_changes = over_splits(
                ADD, charts, i, width, n, size, zeros, zeros,
                arc_unit, right_unit, left_unit, SPLITS,
            )  # fmt: skip
            arc_peak, arc, arc_change = rescaled(
                arc_peak, tl.sum(arcs, axis=1), tl.sum(arc_changes, axis=1), WITH_PEAKS
            )
            # An arc's own number times that of the two spans under it.
            to_right_peak += arc_peak
            to_left_peak += arc_peak
            to_right_change = arc * to_right_change + arc_change * to_right
            to_left_change = arc * to_left_change + arc_change * to_left
            to_right *= arc
            to_left *= arc
            right_peak, right, right_change = with_widest_arc(
                rights, right_changes, right_peak, to_right_peak, to_right, to_right_change, WITH_PEAKS
            )
            left_peak, left, left_change = with_widest_arc(
                lefts, left_changes, left_peak, to_left_peak, to_left, to_left_change, WITH_PEAKS
            )
            put(
                charts, ARCS * square + ij, TURNED * square + ji, to_right_peak, to_right, to_right_change,
                span, size, WITH_PEAKS, DUAL,
            )  # fmt: skip
            put(
                charts, ARCS * square + ji, TURNED * square + ij, to_left_peak, to_left, to_left_change,
                span, size, WITH_PEAKS, DUAL,
            )  # fmt: skip
            put(
                charts, RIGHT * square + ij, RIGHT * square + ji, right_peak, right, right_change,
                span, size, WITH_PEAKS, DUAL,
            )  # fmt: skip
            put(
                charts, LEFT * square + ij, LEFT * square + ji, left_peak, left, left_change,
                span, size, WITH_PEAKS, DUAL,
            )  # fmt: skip
            if WITH_PEAKS:
                put_peaks_of_adjoints(charts, BY_RIGHT * square, ij, ji, right_peak, span, size)
                put_peaks_of_adjoints(charts, BY_LEFT * square, ij, ji, left_peak, span, size)
                put_peaks_of_adjoints(charts, BY_SUM * square, ij, ji, arc_peak, span, size)
        tl.debug_barrier()


@triton.jit
def by_root(
    scores, vector, charts, i, n, size, unit,
    WITH_PEAKS: tl.constexpr, DUAL: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """All trees with root word ``i``, as a product: its arc, and the spans to its left and right.

    First comes the product's peak. The arc is in units of ``exp(unit)``, if there is one. Where the root may
    have several dependents, the one product is that of position 0.
    """
    if FIRST == 1:
        use = i <= n
        peak, arc, arc_change = weight(scores, vector, i * size, use, WITH_PEAKS)
        at_left = LEFT * size * size + size + i
    else:
        use = i == 0
        arc = tl.where(use, 1.0, 0.0).to(tl.float64)
        arc_change = tl.zeros_like(arc)
        peak = tl.where(use, 0.0, float("-inf")).to(tl.float64)
        at_left = LEFT * size * size + i
    at_right = RIGHT * size * size + i * size + n
    left_peak, left, left_change = get(charts, at_left, use, size, WITH_PEAKS, DUAL)
    right_peak, right, right_change = get(charts, at_right, use, size, WITH_PEAKS, DUAL)
    if WITH_PEAKS:
        peak += left_peak + right_peak
    if unit is not None:
        arc *= tl.exp(peak - unit)
        arc_change *= tl.exp(peak - unit)
    return peak, arc, arc_change, left, left_change, right, right_change


@triton.jit
def begin_at_the_top(
    scores, vector, charts, marginals, product, log_partition, n, size,
    WITH_PEAKS: tl.constexpr, DUAL: tl.constexpr, SPANS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """Log-partition, and where all trees are split at the top: marginals of the root's arcs, adjoints.

    Whether the partition function is a number that can be worked with. If not, only -inf is stored.
    """
    unit = None
    if WITH_PEAKS:
        peak = tl.full((1,), float("-inf"), tl.float64)
        for begin in range(FIRST, n + 1, SPANS):
            i = begin + tl.arange(0, SPANS)
            of_root, _, _, _, _, _, _ = by_root(
                scores, vector, charts, i, n, size, None, WITH_PEAKS, DUAL, FIRST
            )
            peak = tl.maximum(peak, tl.max(of_root, axis=0))
        unit = finite(peak)
    totals = tl.zeros((SPANS,), tl.float64)
    changes = tl.zeros((SPANS,), tl.float64)
    for begin in range(FIRST, n + 1, SPANS):
        i = begin + tl.arange(0, SPANS)
        _, arc, arc_change, left, left_change, right, right_change = by_root(
            scores, vector, charts, i, n, size, unit, WITH_PEAKS, DUAL, FIRST
        )
        totals += left * arc * right
        changes += arc_change * (left * right) + arc * (left_change * right + left * right_change)
    partition = tl.sum(totals, axis=0)
    usual = partition > 0
    if not WITH_PEAKS:
        usual = (partition > SMALLEST) & (partition < LARGEST_SUM)
    partition = tl.where(usual, partition, 1.0)
    relative = tl.sum(changes, axis=0) / partition
    found = tl.log(partition)
    if WITH_PEAKS:
        found += tl.sum(unit, axis=0)
    tl.store(log_partition, tl.where(usual, found, float("-inf")))
    last = tl.where(usual, n, -1)
    for begin in range(FIRST, last + 1, SPANS):
        i = begin + tl.arange(0, SPANS)
        use = i <= n
        _, arc, arc_change, left, left_change, right, right_change = by_root(
            scores, vector, charts, i, n, size, unit, WITH_PEAKS, DUAL, FIRST
        )
        arc /= partition
        arc_change = arc_change / partition - arc * relative
        by_right = arc * left
        by_right_change = arc_change * left + arc * left_change
        by_left = arc * right
        by_left_change = arc_change * right + arc * right_change
        # On the diagonal, which is no one's: where sums are written, none of the same width may be read.
        at = BY_RIGHT * size * size + i * size + i
        put(charts, at, at, by_right, by_right, by_right_change, use, size, False, DUAL)
        if FIRST == 1:
            at = BY_LEFT * size * size + i * size + i
            put(charts, at, at, by_left, by_left, by_left_change, use, size, False, DUAL)
            tl.store(marginals + i * size, left * by_left, mask=use)
            if DUAL:
                tl.store(product + i * size, left_change * by_left + left * by_left_change, mask=use)
    return usual


@triton.jit
def sums_to_one(marginals, n, size, SPANS: tl.constexpr, SPLITS: tl.constexpr):
    """Whether the marginals of every word's heads do, to the rounding of sums (NaN does not)."""
    good = tl.full((SPANS,), 1, tl.int32)
    for begin in range(1, n + 1, SPANS):
        m = begin + tl.arange(0, SPANS)
        total = tl.zeros((SPANS, SPLITS), tl.float64)
        for start in range(0, n + 1, SPLITS):
            h = start + tl.arange(0, SPLITS)
            use = (m <= n)[:, None] & (h <= n)[None, :]
            total += tl.load(marginals + m[:, None] * size + h[None, :], mask=use, other=0.0)
        close = tl.abs(tl.sum(total, axis=1) - 1.0) < 1e-14 * (n + 10)
        good = tl.where((m > n) | close, good, 0)
    return tl.min(good, axis=0)


@triton.jit(do_not_specialize=["size"])
def outside(
    scores, vector, charts, lengths, lost, marginals, product, log_partitions, size,
    WITH_PEAKS: tl.constexpr, SPANS: tl.constexpr, SPLITS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    """``marginals [B, size, size]`` (dependent, head) and ``log_partitions [B]`` from the inside sums.

    ``product`` is the marginals' change along ``vector``, and None if that is. Without peaks, ``lost [B]``
    is set where digits were lost.
    """
    DUAL: tl.constexpr = vector is not None
    ADD: tl.constexpr = add_dual_products if DUAL else add_products
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    if WITH_PEAKS:  # noqa: SIM102 (to Triton, the outer one is known when it compiles)
        if tl.load(lost + b) == 0:
            return
    square = size * size
    scores += b * square
    charts += b * (3 if DUAL else 2) * CHARTS * square
    marginals += b * square
    if DUAL:
        vector += b * square
        product += b * square
    usual = begin_at_the_top(
        scores, vector, charts, marginals, product, log_partitions + b, n, size,
        WITH_PEAKS, DUAL, SPANS, FIRST,
    )  # fmt: skip
    if not WITH_PEAKS:
        tl.store(lost + b, tl.where(usual, 0, 1).to(tl.int8))
    if usual == 0:
        return
    tl.debug_barrier()
    zeros = tl.zeros((SPANS, SPLITS), tl.float64)
    for narrower in range(0, n - FIRST):
        width = n - FIRST - narrower
        for begin in range(FIRST, n + 1 - width, SPANS):
            i = begin + tl.arange(0, SPANS)
            j = i + width
            span = j <= n
            ij = i * size + j
            ji = j * size + i
            to_right_peak, to_right, to_right_change = get(
                charts, ARCS * square + ij, span, size, WITH_PEAKS, DUAL
            )
            to_left_peak, to_left, to_left_change = get(
                charts, ARCS * square + ji, span, size, WITH_PEAKS, DUAL
            )
            right_unit, left_unit = None, None
            if WITH_PEAKS:
                of_right = tl.load(charts + (PEAKS + BY_RIGHT) * square + ij, mask=span, other=float("-inf"))
                of_left = tl.load(charts + (PEAKS + BY_LEFT) * square + ij, mask=span, other=float("-inf"))
                right_unit = finite(of_right)[:, None]
                left_unit = finite(of_left)[:, None]
            by_rights, by_lefts, by_to_rights, by_to_lefts = zeros, zeros, zeros, zeros
            right_changes, left_changes, to_right_changes, to_left_changes = zeros, zeros, zeros, zeros
            # A larger item lies on either side: it begins at k < i and ends at j, or begins at i and ends at
            # k > j. Its adjoint is multiplied by the rest of it.
            row_i = (i * size)[:, None]
            row_j = (j * size)[:, None]
            for start in range(0, narrower, SPLITS):
                place = start + tl.arange(0, SPLITS)[None, :]
                use = span[:, None] & (place < narrower)
                before = FIRST + place < i[:, None]
                k = FIRST + place + tl.where(before, 0, width + 1)
                whole = charts + (tl.where(before, row_j + BY_RIGHT * square, row_i + BY_SUM * square) + k)
                rest = charts + (tl.where(before, row_i + TURNED * square, row_j + LEFT * square + size) + k)
                by_rights, right_changes = ADD(
                    by_rights, right_changes, whole, rest, use, start, size, right_unit
                )
                whole = charts + (tl.where(before, row_j + BY_SUM * square, row_i + BY_LEFT * square) + k)
                rest = charts + (tl.where(before, row_i + RIGHT * square - size, row_j + TURNED * square) + k)
                by_lefts, left_changes = ADD(by_lefts, left_changes, whole, rest, use, start, size, left_unit)
                whole = charts + (tl.where(before, row_j + BY_LEFT * square, row_i + BY_RIGHT * square) + k)
                rest = charts + (tl.where(before, row_i + LEFT * square, row_j + RIGHT * square) + k)
                arcs_unit = None
                if WITH_PEAKS:
                    arcs_unit = -finite(tl.where(before, to_left_peak[:, None], to_right_peak[:, None]))
                by_arc, by_arc_change = ADD(zeros, zeros, whole, rest, use, start, size, arcs_unit)
                by_to_lefts += tl.where(before, by_arc, 0.0)
                by_to_rights += tl.where(before, 0.0, by_arc)
                to_left_changes += tl.where(before, by_arc_change, 0.0)
                to_right_changes += tl.where(before, 0.0, by_arc_change)
            by_right, by_right_change = tl.sum(by_rights, axis=1), tl.sum(right_changes, axis=1)
            by_left, by_left_change = tl.sum(by_lefts, axis=1), tl.sum(left_changes, axis=1)
            by_to_right, by_to_right_change = tl.sum(by_to_rights, axis=1), tl.sum(to_right_changes, axis=1)
            by_to_left, by_to_left_change = tl.sum(by_to_lefts, axis=1), tl.sum(to_left_changes, axis=1)
            # The spans beside the root word, or the whole sentence, are part of no larger item.
            at = BY_RIGHT * square + i * size + i
            _, start, start_change = get(charts, at, span & (j == n), size, False, DUAL)
            by_right += start
            by_right_change += start_change
            if FIRST == 1:
                at = BY_LEFT * square + j * size + j
                _, start, start_change = get(charts, at, span & (i == 1), size, False, DUAL)
                by_left += start
                by_left_change += start_change
            # An arc to the far end completes a span.
            if WITH_PEAKS:
                by_right = tl.where(of_right > float("-inf"), by_right, 0.0)
                by_right_change = tl.where(of_right > float("-inf"), by_right_change, 0.0)
                by_left = tl.where(of_left > float("-inf"), by_left, 0.0)
                by_left_change = tl.where(of_left > float("-inf"), by_left_change, 0.0)
                scale = tl.exp(to_right_peak + finite(of_right))
                by_to_right = tl.where(to_right_peak > float("-inf"), by_to_right + scale * by_right, 0.0)
                by_to_right_change = tl.where(
                    to_right_peak > float("-inf"), by_to_right_change + scale * by_right_change, 0.0
                )
                scale = tl.exp(to_left_peak + finite(of_left))
                by_to_left = tl.where(to_left_peak > float("-inf"), by_to_left + scale * by_left, 0.0)
                by_to_left_change = tl.where(
                    to_left_peak > float("-inf"), by_to_left_change + scale * by_left_change, 0.0
                )
            else:
                by_to_right += by_right
                by_to_right_change += by_right_change
                by_to_left += by_left
                by_to_left_change += by_left_change
            tl.store(marginals + ji, by_to_right * to_right, mask=span)
            tl.store(marginals + ij, by_to_left * to_left, mask=span & (i > 0))
            if DUAL:
                change = by_to_right_change * to_right + by_to_right * to_right_change
                tl.store(product + ji, change, mask=span)
                change = by_to_left_change * to_left + by_to_left * to_left_change
                tl.store(product + ij, change, mask=span & (i > 0))
            _, right, right_change = weight(scores, vector, ji, span, WITH_PEAKS)
            _, left, left_change = weight(scores, vector, ij, span & (i > 0), WITH_PEAKS)
            by_sum = by_to_right * right + by_to_left * left
            by_sum_change = by_to_right_change * right + by_to_right * right_change
            by_sum_change += by_to_left_change * left + by_to_left * left_change
            at = BY_RIGHT * square
            put(charts, at + ij, at + ji, by_right, by_right, by_right_change, span, size, False, DUAL)
            at = BY_LEFT * square
            put(charts, at + ij, at + ji, by_left, by_left, by_left_change, span, size, False, DUAL)
            at = BY_SUM * square
            put(charts, at + ij, at + ji, by_sum, by_sum, by_sum_change, span, size, False, DUAL)
        tl.debug_barrier()
    if not WITH_PEAKS:  # noqa: SIM102
        if sums_to_one(marginals, n, size, SPANS, SPLITS) == 0:
            tl.store(lost + b, 1)


def log_inside_sums(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, ...]:
    """Logarithms of the inside sums ``right, left, arcs [B, N+1, N+1]``, and the scores that they are of.

    These are ``scores`` less the best one of each word, which changes no probability.
    """
    logs, _ = _below_the_best(scores, lengths)
    batch, size, _ = scores.shape
    charts = logs.new_empty(batch, 2 * CHARTS.value, size, size)
    every = torch.ones(batch, dtype=torch.int8, device=logs.device)
    with on_device_of(scores):
        inside[(batch,)](
            logs, None, charts, lengths, every, size, WITH_PEAKS=True, **tile_shape(multi_root)
        )  # fmt: skip
    totals, peaks = (charts[:, start : start + 3] for start in (0, PEAKS.value))
    return (*(totals.log() + peaks).transpose(0, 1).contiguous(), logs)


def _below_the_best(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Scores in float64 less the best one of each word, -inf where no arc can be; the best ones, summed."""
    logs = scores.double().masked_fill(~possible_arcs(lengths, scores.shape[1]), -torch.inf)
    best = logs.amax(2, keepdim=True)
    best = best.masked_fill(best == -torch.inf, 0)
    return logs - best, best.sum((1, 2))


def inside_outside(
    scores: Tensor, lengths: Tensor, multi_root: bool, vector: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Arc marginals ``[B, N+1, N+1]``, log-partition ``[B]``, and the arcs' covariance times ``vector``.

    ``scores`` and ``vector`` (or None) ``[B, N+1, N+1]``, without NaN or +inf where they are read; all
    results are float64. A log-partition of -inf means that there is no tree. Nothing waits for the device.
    """
    batch, size, _ = scores.shape
    logs, best = _below_the_best(scores, lengths)
    scale: Tensor | float = 1.0
    if vector is not None:  # which may hold anything where there is no arc
        vector = vector.double().masked_fill(logs == -torch.inf, 0)
        scale = vector.abs().amax((1, 2), keepdim=True).clamp(min=1e-300)
        vector = vector / scale
    charts = logs.new_empty(batch, (2 if vector is None else 3) * CHARTS.value, size, size)
    marginals = torch.zeros_like(logs)
    product = None if vector is None else torch.zeros_like(logs)
    log_partitions = logs.new_empty(batch)
    lost = torch.empty(batch, dtype=torch.int8, device=logs.device)
    tile = tile_shape(multi_root)
    with on_device_of(scores):
        for with_peaks in (False, True):
            inside[(batch,)](logs, vector, charts, lengths, lost, size, WITH_PEAKS=with_peaks, **tile)
            outside[(batch,)](
                logs, vector, charts, lengths, lost, marginals, product, log_partitions, size,
                WITH_PEAKS=with_peaks, **tile,
            )  # fmt: skip
    return marginals, log_partitions + best, None if product is None else product * scale
