"""Inside-outside for projective trees on the CPU.

The recursion is that of ``reference.inside_charts`` in the sum-product semiring, in the order of
``eisner``; the outside pass is its reverse-mode derivative, written by hand.

Real domain. Every word has one head, so subtracting the best score from each word's scores only shifts the
log-partition; then the weights are at most 1 and the recursion needs no logarithms. Where the sums leave
the range of float64 all the same (the best tree far below the words' best heads, or a very long sentence),
the sentence is done again in the log domain, where the outside pass hands probabilities down from spans to
their parts.

Second derivatives. The code is generic in the type of the weights. With ``exp(scores + 1j * STEP *
vector)`` the imaginary part of the marginals is ``STEP`` times their derivative in the direction
``vector``, which is the covariance product ``Sigma vector``; nothing is subtracted, so it is exact to
rounding (the complex step of Squire and Trapp 1998).
"""

import numpy as np
from numba import njit, uintp

from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.exp import exp_to_one
from diffdecode.structure.trees.tensors import NO_TREE

STEP = 1e-12
SMALLEST, LARGEST_SUM = 1e-200, 1e200  # of the partition function in the real domain
UNDERFLOW = -745.0  # exp() of less is 0
FAST = {"nsz", "reassoc", "contract", "arcp"}


@njit(nogil=True, cache=True)
def inside_outside(
    start, stop, scores, lengths, order, multi_root, largest, marginals, log_partition, status
):
    """Fill ``marginals [B, N+1, N+1]``, ``log_partition [B]`` and ``status [B]`` of ``order[start:stop]``."""
    size = scores.shape[1]
    weights = np.empty((size, size))
    charts = np.empty(8 * size * _row(size))
    result = np.empty((size, size))
    for b in order[start:stop]:
        n = lengths[b]
        marginals[b] = 0
        status[b] = status_of_scores(scores, b, n, largest)
        if status[b] == 0:
            shift = exponentiate(scores[b], n, weights)
            log_partition[b] = shift + projective_marginals(weights, scores[b], n, multi_root, charts, result)
            if log_partition[b] > -np.inf:
                marginals[b, 1 : n + 1, : n + 1] = result[1 : n + 1, : n + 1]
            else:
                status[b] = NO_TREE


@njit(nogil=True, cache=True)
def covariance_product(start, stop, scores, lengths, order, multi_root, vector, product):
    """Fill ``product [B, N+1, N+1]`` with the arcs' covariance times ``vector`` of ``order[start:stop]``."""
    size = scores.shape[1]
    weights = np.empty((size, size), np.complex128)
    logs = np.empty((size, size), np.complex128)
    charts = np.empty(8 * size * _row(size), np.complex128)
    result = np.empty((size, size), np.complex128)
    for b in order[start:stop]:
        n = lengths[b]
        product[b] = 0
        scale = exponentiate_along(scores[b], vector[b], n, logs, weights)
        if scale > 0:
            projective_marginals(weights, logs, n, multi_root, charts, result)
            for m in range(1, n + 1):
                for h in range(n + 1):
                    product[b, m, h] = result[m, h].imag * scale


@njit(nogil=True, cache=True)
def exponentiate(scores, n, weights):
    """``weights[m, h] = exp(scores[m, h] - best score of m)``, 0 on the diagonal; sums the best scores."""
    shift = 0.0
    weights[0, : n + 1] = 0
    for m in range(1, n + 1):
        best = best_score(scores, m, n)
        shift += best
        for h in range(n + 1):
            weights[m, h] = exp_to_one(np.float64(scores[m, h]) - best)
        weights[m, m] = 0
    return shift


@njit(nogil=True, cache=True)
def exponentiate_along(scores, vector, n, logs, weights):
    """Complex scores and weights for the derivative along ``vector``, and the scale of imaginary parts."""
    largest = 0.0
    for m in range(1, n + 1):
        for h in range(n + 1):
            if h != m and scores[m, h] > -np.inf:  # elsewhere, the vector may hold anything
                largest = max(largest, abs(np.float64(vector[m, h])))
    if largest == 0:
        return 0.0
    weights[0, : n + 1] = 0
    for m in range(1, n + 1):
        best = best_score(scores, m, n)
        for h in range(n + 1):
            along = STEP * (vector[m, h] / largest) if h != m and scores[m, h] > -np.inf else 0.0
            logs[m, h] = complex(scores[m, h], along)
            weight = np.exp(np.float64(scores[m, h]) - best) if h != m else 0.0
            weights[m, h] = complex(weight, weight * along)
    return largest / STEP


@njit(nogil=True, cache=True)
def best_score(scores, m, n):
    best = -np.inf
    for h in range(n + 1):
        if h != m:
            best = max(best, np.float64(scores[m, h].real))
    return best if best > -np.inf else 0.0


@njit(nogil=True, cache=True)
def projective_marginals(weights, logs, n, multi_root, charts, marginals):
    """Log-partition (of the weights, up to the shift of the scores) and marginals of one sentence."""
    partition = fill_charts(weights, n, multi_root, charts)
    if SMALLEST < partition.real < LARGEST_SUM:
        hand_down(weights, n, multi_root, charts, partition, marginals)
        if rows_sum_to_one(marginals, n):
            return np.log(partition).real
    return log_domain_marginals(weights, logs, n, multi_root, marginals)


@njit(nogil=True, cache=True)
def rows_sum_to_one(marginals, n):
    for m in range(1, n + 1):
        total = 0.0
        for h in range(n + 1):
            total += marginals[m, h].real
        if not abs(total - 1) < 1e-9:
            return False
    return True


# --------------------------------------------------------------------------- real domain


@njit(nogil=True, cache=True)
def _row(size):
    return (size + 7) // 8 * 8


@njit(nogil=True, cache=True, fastmath=FAST)
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


@njit(nogil=True, cache=True, fastmath=FAST)
def _push(charts, target, source, factor, count):
    for t in range(count):
        charts[target + t] += charts[source + t] * factor


@njit(nogil=True, cache=True, fastmath=FAST)
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


@njit(nogil=True, cache=True, fastmath=FAST)
def _pull(charts, down, target, source, factor, count):
    """Adjoint of ``_push``: adds to the source's adjoint, returns the factor's."""
    by_factor = charts[target] - charts[target]
    for t in range(count):
        by_factor += charts[down + target + t] * charts[source + t]
    for t in range(count):
        charts[down + source + t] += charts[down + target + t] * factor
    return by_factor


# --------------------------------------------------------------------------- log domain


@njit(nogil=True, cache=True)
def log_domain_marginals(weights, logs, n, multi_root, marginals):
    """The same for sentences whose sums leave float64's range; ``logs`` are the scores themselves."""
    shift = 0.0
    for m in range(1, n + 1):
        shift += best_score(logs, m, n)
    charts = np.empty((5, n + 1, n + 1), weights.dtype)
    log_charts(logs, n, multi_root, charts)
    right, left, arc_right, arc_left, arc = charts
    first, size = 0 if multi_root else 1, n + 1
    marginals[: n + 1, : n + 1] = 0
    by_right, by_left = np.zeros_like(right), np.zeros_like(right)
    by_arc_right, by_arc_left = np.zeros_like(right), np.zeros_like(right)
    if multi_root:
        total = right[0, n]
        by_right[0, n] = 1
    else:
        total = _log_sum(left[1, 1:] + logs[1 : n + 1, 0].astype(weights.dtype), right[1:, n])
        for r in range(1, n + 1):
            share = exp(left[1, r] + logs[r, 0] + right[r, n] - total)
            marginals[r, 0] = share
            by_left[1, r] += share
            by_right[r, n] += share
    if not total.real > -np.inf:
        return -np.inf
    for width in range(size - 1 - first, 0, -1):
        for i in range(first, size - width):
            j = i + width
            _share(
                by_right[i, j],
                right[i, j],
                arc_right[i, i + 1 : j + 1],
                right[i + 1 : j + 1, j],
                by_arc_right[i, i + 1 : j + 1],
                by_right[i + 1 : j + 1, j],
            )
            _share(
                by_left[i, j],
                left[i, j],
                left[i, i:j],
                arc_left[i:j, j],
                by_left[i, i:j],
                by_arc_left[i:j, j],
            )
            marginals[j, i] += by_arc_right[i, j]
            marginals[i, j] += by_arc_left[i, j]
            _share(
                by_arc_right[i, j] + by_arc_left[i, j],
                arc[i, j],
                right[i, i:j],
                left[i + 1 : j + 1, j],
                by_right[i, i:j],
                by_left[i + 1 : j + 1, j],
            )
    return total.real - shift


@njit(nogil=True, cache=True)
def log_charts(logs, n, multi_root, charts):
    """Log inside sums ``[i, j]`` of all spans: right, left, arc_right, arc_left, arc."""
    first, size = 0 if multi_root else 1, n + 1
    charts[:] = -np.inf
    right, left, arc_right, arc_left, arc = charts
    for k in range(first, size):
        right[k, k] = left[k, k] = 0
    for width in range(1, size - first):
        for i in range(first, size - width):
            j = i + width
            arc[i, j] = _log_sum(right[i, i:j], left[i + 1 : j + 1, j])
            arc_right[i, j] = arc[i, j] + logs[j, i]
            if i > 0:
                arc_left[i, j] = arc[i, j] + logs[i, j]
            right[i, j] = _log_sum(arc_right[i, i + 1 : j + 1], right[i + 1 : j + 1, j])
            left[i, j] = _log_sum(left[i, i:j], arc_left[i:j, j])


@njit(nogil=True, cache=True)
def exp(value):
    return np.exp(value) if value.real > UNDERFLOW else 0.0


@njit(nogil=True, cache=True)
def _log_sum(first, second):
    """``log sum_r exp(first[r] + second[r])``."""
    peak = -np.inf
    for r in range(len(first)):
        peak = max(peak, (first[r] + second[r]).real)
    total = first.dtype.type(0)
    if peak == -np.inf:
        return total + peak
    for r in range(len(first)):
        total += exp(first[r] + second[r] - peak)
    return np.log(total) + peak


@njit(nogil=True, cache=True)
def _share(probability, value, first, second, by_first, by_second):
    """Hand a span's probability to its parts, in proportion to what each split adds to the span's sum."""
    if probability != 0:
        for r in range(len(first)):
            share = probability * exp(first[r] + second[r] - value)
            by_first[r] += share
            by_second[r] += share
