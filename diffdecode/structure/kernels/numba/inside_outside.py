"""Inside-outside for projective trees on the CPU.

The recursion is that of ``reference.inside_charts`` in the sum-product semiring, in the order of
``eisner``; the outside pass is its reverse-mode derivative, written by hand.

Real domain. Every word has one head, so subtracting the best score from each word's scores only shifts the
log-partition; then the weights are at most 1 and the recursion needs no logarithms. Where the sums leave
the range of float64 all the same (the best tree far below the words' best heads, or a very long sentence),
the sentence is left to the kernels ``*_in_logs``, which are compiled where one is needed. In the log domain,
the outside pass hands probabilities down from spans to their parts. A number is a pair there,
``exp(peak) * total``: peaks are sums of scores, and a logarithm of some trees' number, which a score of 1e12
would swallow, is never added to them.

Second derivatives. The code is generic in the type of the weights (in the log domain, which hardly any
sentence needs, it is compiled for these alone). With ``exp(scores + 1j * STEP *
vector)`` the imaginary part of the marginals is ``STEP`` times their derivative in the direction
``vector``, which is the covariance product ``Sigma vector``; nothing is subtracted, so it is exact to
rounding (the complex step of Squire and Trapp 1998).
"""

import math

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.agenda import ARC, ARC_LEFT, ARC_RIGHT, LEFT, RIGHT
from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.compiled import ONE, ZERO, kernel, part
from diffdecode.structure.kernels.numba.exp import exp_to_one
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.status import LOST_DIGITS, NO_TREE, OK

STEP = 1e-12
SMALLEST, LARGEST_SUM = 1e-200, 1e200  # of the partition function in the real domain
LARGEST_TOTAL = 1e60  # beside a peak in the log domain
UNDERFLOW = -745.0  # exp() of less is 0
FAST = {"nsz", "reassoc", "contract", "arcp"}

SCORES = "int64, int64, float64[:,:,::1], int64[::1], int64[::1], boolean"
MARGINALS = f"{SCORES}, float64, float64[:,:,::1], float64[::1], int8[::1]"
PRODUCT = f"{SCORES}, float64[:,:,::1], float64[:,:,::1], int8[::1]"
IN_LOGS = f"{SCORES}, float64[:,:,::1], float64[:,:,::1], float64[::1], float64[:,:,::1], int8[::1]"


@kernel(MARGINALS)
def inside_outside(
    memory, start, stop, scores, lengths, order, multi_root, largest, marginals, log_partition, status
):
    """Fill ``marginals [B, N+1, N+1]``, ``log_partition [B]`` and ``status [B]`` of ``order[start:stop]``.

    ``LOST_DIGITS`` where the real domain did not do.
    """
    size = scores.shape[1]
    weights = empty(memory, (2, size, size), np.float64)
    charts = empty(memory, 8 * size * _row(size), np.float64)
    for g in range(start, stop):
        b = order[g]
        n = lengths[b]
        status[b] = status_of_scores(scores, b, n, largest)
        if status[b] == OK:
            shift = exponentiate(scores[b], n, weights[0])
            log_partition[b] = projective_marginals(weights[0], n, multi_root, charts, weights[1]) + shift
            status[b] = OK if log_partition[b] > -np.inf else LOST_DIGITS
        for m in range(size):
            for h in range(size):
                inside = 0 < m <= n and h <= n and status[b] == OK
                marginals[b, m, h] = weights[1, m, h] if inside else 0.0


@kernel(PRODUCT)
def covariance_product(memory, start, stop, scores, lengths, order, multi_root, vector, product, status):
    """Fill ``product [B, N+1, N+1]`` with the arcs' covariance times ``vector`` of ``order[start:stop]``.

    ``status [B]`` is ``LOST_DIGITS`` where the real domain did not do, and else ``OK``.
    """
    size = scores.shape[1]
    values = empty(memory, (2, size, size), np.float64)
    weights = empty(memory, (2, size, size), np.complex128)
    charts = empty(memory, 8 * size * _row(size), np.complex128)
    for g in range(start, stop):
        b = order[g]
        n = lengths[b]
        exponentiate(scores[b], n, values[0])
        scale = differentiate(values[0], vector[b], n, values[1])
        for m in range(n + 1):
            for h in range(n + 1):
                weights[0, m, h] = complex(values[0, m, h], values[1, m, h] * STEP)
        found = projective_marginals(weights[0], n, multi_root, charts, weights[1])
        status[b] = OK if found > -np.inf else LOST_DIGITS
        put_derivatives(weights[1], n, scale, product[b])


@kernel(IN_LOGS)
def inside_outside_in_logs(
    memory, start, stop, scores, lengths, order, multi_root, vector, marginals, log_partition, product, status
):
    """``inside_outside`` and ``covariance_product`` in the log domain, of scores known to be fine."""
    size = scores.shape[1]
    logs = empty(memory, (size, size), np.complex128)
    result = empty(memory, (size, size), np.complex128)
    peaks = empty(memory, (5, size, size), np.float64)
    totals = empty(memory, (5, size, size), np.complex128)
    shares = empty(memory, (5, size, size), np.complex128)
    for g in range(start, stop):
        b = order[g]
        n = lengths[b]
        scale = scores_along(scores[b], vector[b], n, logs)
        log_partition[b] = log_domain_marginals(logs, n, multi_root, peaks, totals, shares, result)
        status[b] = OK if log_partition[b] > -np.inf else NO_TREE
        put_marginals(result, n, marginals[b])
        put_derivatives(result, n, scale, product[b])


@part()
def put_marginals(result, n, marginals):
    """Real parts, and 0 beyond the sentence."""
    for m in range(len(marginals)):
        for h in range(len(marginals)):
            marginals[m, h] = result[m, h].real if 0 < m <= n and h <= n else 0.0


@part()
def put_derivatives(result, n, scale, product):
    """Derivatives along the vector, from imaginary parts; 0 beyond the sentence."""
    for m in range(len(product)):
        for h in range(len(product)):
            product[m, h] = result[m, h].imag / STEP * scale if 0 < m <= n and h <= n else 0.0


@part()
def exponentiate(scores, n, weights):
    """``weights[m, h] = exp(scores[m, h] - best score of m)``, 0 on the diagonal; sums the best scores."""
    shift = 0.0
    for h in range(n + 1):
        weights[0, h] = 0
    for m in range(1, n + 1):
        best = best_score(scores, m, n)
        shift += best
        for h in range(n + 1):
            weights[m, h] = exp_to_one(scores[m, h] - best)
        weights[m, m] = 0
    return shift


@part()
def differentiate(values, vector, n, along):
    """``along = values * vector / scale``, so that no derivative is larger than its value; the scale."""
    scale = 0.0
    for m in range(1, n + 1):
        for h in range(n + 1):
            if values[m, h] > 0:  # elsewhere, the vector may hold anything
                scale = max(scale, abs(vector[m, h]))
    inverse = 1 / scale if scale > 0 else 0.0
    for h in range(n + 1):
        along[0, h] = 0
    for m in range(1, n + 1):
        for h in range(n + 1):
            along[m, h] = values[m, h] * (vector[m, h] * inverse) if values[m, h] > 0 else 0.0
    return scale


@part()
def scores_along(scores, vector, n, logs):
    """Complex scores for the derivative along ``vector``, and the scale of the imaginary parts."""
    largest = 0.0
    for m in range(1, n + 1):
        for h in range(n + 1):
            if h != m and scores[m, h] > -np.inf:  # elsewhere, the vector may hold anything
                largest = max(largest, abs(vector[m, h]))
    for m in range(1, n + 1):
        for h in range(n + 1):
            read = h != m and scores[m, h] > -np.inf and largest > 0
            logs[m, h] = complex(scores[m, h], STEP * (vector[m, h] / largest) if read else 0.0)
    return largest


@part()
def best_score(scores, m, n):
    best = -np.inf
    for h in range(n + 1):
        if h != m:
            best = max(best, scores[m, h])
    return best if best > -np.inf else 0.0


@part()
def projective_marginals(weights, n, multi_root, charts, marginals):
    """Log-partition of one sentence, of these weights, and its marginals; -inf where digits were lost."""
    log_partition = -np.inf
    partition = fill_charts(weights, n, multi_root, charts)
    if SMALLEST < partition.real < LARGEST_SUM:
        hand_down(weights, n, multi_root, charts, partition, marginals)
        if rows_sum_to_one(marginals, n):
            log_partition = math.log(partition.real)
    return log_partition


@part()
def rows_sum_to_one(marginals, n):
    for m in range(1, n + 1):
        total = 0.0
        for h in range(n + 1):
            total += marginals[m, h].real
        if not abs(total - 1) < rounding_of_sums(n):
            return False
    return True


@part()
def rounding_of_sums(n):
    """What may be lost on the way with ``n`` words; where more is, cancellation took digits."""
    return 1e-14 * (n + 10)


# --------------------------------------------------------------------------- real domain


@part()
def _row(size):
    return (size + 7) // 8 * 8


@part(fastmath=FAST)
def fill_charts(weights, n, multi_root, charts):
    """Inside sums of all spans, charts as in ``eisner``; returns the partition function."""
    one = uintp(1)
    first = uintp(0 if multi_root else 1)
    size = uintp(n) + one - first
    row = (size + uintp(7)) & ~uintp(7)
    block = size * row
    right, left, arc_right, arc = uintp(0), block, block + block, block + block + block
    for k in range(block * uintp(8)):
        charts[k] = 0
    for k in range(size):
        charts[right + k * row + k] = 1
        charts[left + k * row + k] = 1
    for j in range(one, size):
        right_j, left_j = right + j * row, left + j * row
        arc_right_j, arc_j = arc_right + j * row, arc + j * row
        for t in range(j):
            charts[arc_j + t] = charts[right_j - row + t]
        for distance in range(j):
            i = j - one - distance
            to_left = charts[arc_j + i] * weights[i + first, j + first]
            to_right = charts[arc_j + i] * weights[j + first, i + first]
            all_left = charts[left_j + i] + to_left
            all_right = charts[right_j + i] + to_right
            charts[left_j + i], charts[right_j + i] = all_left, all_right
            charts[arc_right_j + i] = to_right
            if i > 0:
                _push(charts, arc_j, right + (i - one) * row, all_left, i)
                _push(charts, left_j, left + i * row, to_left, i)
                _push(charts, right_j, arc_right + i * row, all_right, i)
    if multi_root:
        return charts[right + uintp(n) * row]
    partition = charts[0] - charts[0]
    for r in range(size):
        partition += charts[left + r * row] * weights[r + one, 0] * charts[right + (size - one) * row + r]
    return partition


@part(fastmath=FAST)
def _push(charts, target, source, factor, count):
    for t in range(count):
        charts[target + t] += charts[source + t] * factor


@part(fastmath=FAST)
def hand_down(weights, n, multi_root, charts, partition, marginals):
    """``fill_charts`` backwards: adjoints of all spans, ``d log(partition) / d log weight`` of all arcs."""
    one, zero = uintp(1), uintp(0)
    first = uintp(0 if multi_root else 1)
    size = uintp(n) + one - first
    row = (size + uintp(7)) & ~uintp(7)
    block = size * row
    right, left, arc_right, arc = zero, block, block + block, block + block + block
    down = arc + block  # from a chart to its adjoint
    for m in range(uintp(n) + one):
        marginals[m, m] = 0
        marginals[m, zero] = 0
    if multi_root:
        charts[down + right + uintp(n) * row] = 1 / partition
    else:
        for r in range(size):
            at_left, at_right = left + r * row, right + (size - one) * row + r
            weight = weights[r + one, zero] / partition
            charts[down + at_left] += weight * charts[at_right]
            charts[down + at_right] += weight * charts[at_left]
            marginals[r + one, zero] = charts[at_left] * weight * charts[at_right]
    for back in range(size - one):
        j = size - one - back
        right_j, left_j = right + j * row, left + j * row
        arc_right_j, arc_j = arc_right + j * row, arc + j * row
        for i in range(j):
            all_left, all_right, to_right = charts[left_j + i], charts[right_j + i], charts[arc_right_j + i]
            weight_left, weight_right = weights[i + first, j + first], weights[j + first, i + first]
            to_left = charts[arc_j + i] * weight_left
            by_left, by_right = charts[down + left_j + i], charts[down + right_j + i]
            by_to_left, by_to_right = by_left - by_left, charts[down + arc_right_j + i]
            if i > 0:
                by_left += _pull(charts, down, arc_j, right + (i - one) * row, all_left, i)
                by_to_left = _pull(charts, down, left_j, left + i * row, to_left, i)
                by_right += _pull(charts, down, right_j, arc_right + i * row, all_right, i)
            by_to_left += by_left
            by_to_right += by_right
            charts[down + left_j + i], charts[down + right_j + i] = by_left, by_right
            if i + first > 0:
                marginals[i + first, j + first] = by_to_left * to_left
            marginals[j + first, i + first] = by_to_right * to_right
            charts[down + arc_j + i] = by_to_left * weight_left + by_to_right * weight_right
        for t in range(j):
            charts[down + right_j - row + t] += charts[down + arc_j + t]


@part(fastmath=FAST)
def _pull(charts, down, target, source, factor, count):
    """Adjoint of ``_push``: adds to the source's adjoint, returns the factor's."""
    by_factor = charts[target] - charts[target]
    for t in range(count):
        by_factor += charts[down + target + t] * charts[source + t]
    for t in range(count):
        charts[down + source + t] += charts[down + target + t] * factor
    return by_factor


# --------------------------------------------------------------------------- log domain


@part()
def log_domain_marginals(logs, n, multi_root, peaks, totals, shares, marginals):
    """Log-partition and marginals where sums leave float64's range; ``logs`` are the scores themselves."""
    log_charts(logs, n, multi_root, peaks, totals)
    peak = peaks[RIGHT, 0, n]
    if peak == -np.inf:
        return peak
    for m in range(n + 1):
        for h in range(n + 1):
            marginals[m, h] = 0
            for kind in range(5):
                shares[kind, m, h] = 0
    shares[RIGHT, 0, n] = 1
    if not multi_root:
        _share(peaks, totals, shares, RIGHT, ARC_RIGHT, RIGHT, ZERO, n, ONE, n + 1, ZERO)
        for r in range(1, n + 1):
            marginals[r, 0] = shares[ARC_RIGHT, 0, r]
            shares[LEFT, 1, r] += shares[ARC_RIGHT, 0, r]
    first = 0 if multi_root else 1
    for back in range(n - first):
        width = n - first - back
        for i in range(first, n + 1 - width):
            j = i + width
            _share(peaks, totals, shares, RIGHT, ARC_RIGHT, RIGHT, i, j, i + 1, j + 1, ZERO)
            _share(peaks, totals, shares, LEFT, LEFT, ARC_LEFT, i, j, i, j, ZERO)
            marginals[j, i] += shares[ARC_RIGHT, i, j]
            marginals[i, j] += shares[ARC_LEFT, i, j]
            shares[ARC, i, j] = shares[ARC_RIGHT, i, j] + shares[ARC_LEFT, i, j]
            _share(peaks, totals, shares, ARC, RIGHT, LEFT, i, j, i, j, ONE)
    return peak + math.log(totals[RIGHT, 0, n].real)


@part()
def log_charts(logs, n, multi_root, peaks, totals):
    """Inside sums ``exp(peaks[kind, i, j]) * totals[kind, i, j]`` of all spans.

    The whole sentence is ``RIGHT`` over ``(0, n)``. With one root word ``r`` it is split there, and
    ``ARC_RIGHT`` over ``(0, r)`` is that word's arc with the span to its left.
    """
    first, size = 0 if multi_root else 1, n + 1
    for i in range(size):
        for j in range(size):
            for kind in range(5):
                peaks[kind, i, j], totals[kind, i, j] = -np.inf, 0
    for k in range(first, size):
        peaks[RIGHT, k, k] = peaks[LEFT, k, k] = 0
        totals[RIGHT, k, k] = totals[LEFT, k, k] = 1
    for width in range(1, size - first):
        for i in range(first, size - width):
            j = i + width
            _sum_splits(peaks, totals, ARC, RIGHT, LEFT, i, j, i, j, ONE)
            _add_arc(peaks, totals, ARC_RIGHT, i, ARC, i, j, logs[j, i])
            if i > 0:
                _add_arc(peaks, totals, ARC_LEFT, i, ARC, i, j, logs[i, j])
            _sum_splits(peaks, totals, RIGHT, ARC_RIGHT, RIGHT, i, j, i + 1, j + 1, ZERO)
            _sum_splits(peaks, totals, LEFT, LEFT, ARC_LEFT, i, j, i, j, ZERO)
    if not multi_root:
        for r in range(1, size):
            _add_arc(peaks, totals, ARC_RIGHT, 0, LEFT, 1, r, logs[r, 0])
        _sum_splits(peaks, totals, RIGHT, ARC_RIGHT, RIGHT, ZERO, n, ONE, n + 1, ZERO)


@part()
def _add_arc(peaks, totals, target, start, source, i, j, log):
    """``target(start, j) = source(i, j) * exp(log)``; of the exponential, the imaginary part is a change."""
    peaks[target, start, j] = peaks[source, i, j] + log.real
    totals[target, start, j] = totals[source, i, j] * complex(1.0, log.imag)


@part()
def exp(value):
    return math.exp(value) if value > UNDERFLOW else 0.0


@part()
def _sum_splits(peaks, totals, whole, first, second, i, j, start, stop, gap):
    """``whole(i, j) = sum_r first(i, r) * second(r + gap, j)`` over ``start <= r < stop``."""
    peak = -np.inf
    for r in range(start, stop):
        peak = max(peak, peaks[first, i, r] + peaks[second, r + gap, j])
    if peak > -np.inf:
        total = totals[whole, i, j]
        for r in range(start, stop):
            below = peaks[first, i, r] + peaks[second, r + gap, j] - peak
            total += exp(below) * (totals[first, i, r] * totals[second, r + gap, j])
        peaks[whole, i, j], totals[whole, i, j] = rescaled(peak, total)


@part()
def rescaled(peak, total):
    """The same number with a total far from the ends of float64's range."""
    if total.real > LARGEST_TOTAL or total.real < 1 / LARGEST_TOTAL:
        return peak + math.log(total.real), total / total.real
    return peak, total


@part()
def _share(peaks, totals, shares, whole, first, second, i, j, start, stop, gap):
    """Hand a span's probability to its parts, in proportion to what each split adds to the span's sum."""
    if shares[whole, i, j] != 0:
        share = shares[whole, i, j] / totals[whole, i, j]
        for r in range(start, stop):
            below = peaks[first, i, r] + peaks[second, r + gap, j] - peaks[whole, i, j]
            part = share * exp(below) * (totals[first, i, r] * totals[second, r + gap, j])
            shares[first, i, r] += part
            shares[second, r + gap, j] += part
