"""Matrix-tree marginals of all trees on the CPU: subtraction-free elimination as in ``reference``.

Real domain (weights divided by each word's best) with a reverse pass by hand; generic in the type of the
weights, so that complex weights give covariance products, as in ``inside_outside``. Where a pivot
leaves float64's range, or is 0 because of the order of elimination, the sentence is left to kernels of
their own that work on pairs (peak and total, see ``inside_outside``), a slower way that always does.
"""

import math

import numpy as np

from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.compiled import ONE, ZERO, kernel, part
from diffdecode.structure.kernels.numba.inside_outside import (
    IN_LOGS,
    MARGINALS,
    STEP,
    UNDERFLOW,
    best_score,
    differentiate,
    exp,
    exponentiate,
    put_derivatives,
    put_marginals,
    rescaled,
    rounding_of_sums,
    rows_sum_to_one,
    scores_along,
)
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.status import LOST_DIGITS, NO_TREE, OK

SMALLEST, LARGEST_PIVOT = 1e-100, 1e100
FAST = {"nsz", "reassoc", "contract", "arcp"}


@kernel(MARGINALS)
def matrix_tree(
    memory, start, stop, scores, lengths, order, multi_root, largest, marginals, log_partition, status
):
    """Fill ``marginals [B, N+1, N+1]``, ``log_partition [B]`` and ``status [B]`` of ``order[start:stop]``.

    ``LOST_DIGITS`` where the real domain did not do.
    """
    size = scores.shape[1]
    work = empty(memory, (5, size, size), np.float64)
    words = empty(memory, size, np.int64)
    for g in range(start, stop):
        b = order[g]
        n = lengths[b]
        status[b] = status_of_scores(scores, b, n, largest)
        if status[b] == OK:
            bring_to_front(words, 1 if multi_root else likeliest_root(scores[b], n))
            shift = exponentiate(scores[b], n, work[0])
            put_in_order(work[0], n, words, work[1])
            log_partition[b] = tree_marginals(n, multi_root, work) + shift
            status[b] = OK if log_partition[b] > -np.inf else LOST_DIGITS
        put_back(work[0], n, words, status[b] == OK, marginals[b])


@kernel("int64, int64, float64[:,:,::1], int64[::1], boolean, float64[:,:,::1], float64[:,:,::1], int8[::1]")
def covariance_product(memory, start, stop, scores, lengths, multi_root, vector, product, status):
    """Fill ``product [B, N+1, N+1]`` with the arcs' covariance times ``vector``, for part of the batch.

    ``status [B]`` is ``LOST_DIGITS`` where the real domain did not do, and else ``OK``.
    """
    size = scores.shape[1]
    values = empty(memory, (2, size, size), np.float64)
    work = empty(memory, (5, size, size), np.complex128)
    words = empty(memory, size, np.int64)
    for b in range(start, stop):
        n = lengths[b]
        bring_to_front(words, 1 if multi_root else likeliest_root(scores[b], n))
        exponentiate(scores[b], n, values[0])
        scale = differentiate(values[0], vector[b], n, values[1])
        for m in range(n + 1):
            for h in range(n + 1):
                work[0, m, h] = complex(values[0, m, h], values[1, m, h] * STEP)
        put_in_order(work[0], n, words, work[1])
        status[b] = OK if tree_marginals(n, multi_root, work) > -np.inf else LOST_DIGITS
        put_in_order(work[0], n, words, work[1])  # which swaps back
        put_derivatives(work[1], n, scale, product[b])


@kernel(IN_LOGS)
def matrix_tree_in_logs(
    memory, start, stop, scores, lengths, order, multi_root, vector, marginals, log_partition, product, status
):
    """``matrix_tree`` and ``covariance_product`` on pairs, of scores that are known to be fine."""
    size = scores.shape[1]
    depths = 2
    while 1 << (depths - 2) < size - 1:
        depths += 1
    logs = empty(memory, (size, size), np.complex128)
    result = empty(memory, (size, size), np.complex128)
    peaks = empty(memory, (depths + 1, size, size), np.float64)
    totals = empty(memory, (depths + 1, size, size), np.complex128)
    words, eliminated = empty(memory, size, np.int64), empty(memory, size, np.int64)
    rest, agenda = empty(memory, size, np.int64), empty(memory, (2 * depths, 5), np.int64)
    for g in range(start, stop):
        b = order[g]
        n = lengths[b]
        scale = scores_along(scores[b], vector[b], n, logs)
        log_partition[b] = log_domain_marginals(
            logs, n, multi_root, words, peaks, totals, eliminated, rest, agenda, result
        )
        status[b] = OK if log_partition[b] > -np.inf else NO_TREE
        put_marginals(result, n, marginals[b])
        put_derivatives(result, n, scale, product[b])


@part()
def put_in_order(weights, n, words, ordered):
    """Rows and columns of ``words``, an order that swaps two at most."""
    for k in range(1, n + 1):
        for h in range(n + 1):
            ordered[k, h] = weights[words[k], words[h]]


@part()
def put_back(ordered, n, words, found, marginals):
    """The marginals found in the order of ``words``; 0 beyond the sentence, or everywhere if none were."""
    for m in range(len(marginals)):
        for h in range(len(marginals)):
            inside = 0 < m <= n and h <= n and found
            marginals[m, h] = ordered[words[m], words[h]] if inside else 0.0


@part()
def tree_marginals(n, multi_root, work):
    """Log-partition of the weights ``work[1]``, -inf where digits were lost; marginals in ``work[0]``."""
    marginals, weights, eliminated = work[0], work[1], work[2]
    adjoint, scratch = work[3], work[4]
    for k in range(1, n + 1):
        for h in range(n + 1):
            eliminated[k, h] = weights[k, h]
    log_partition = eliminate(eliminated, n, multi_root)
    if log_partition > -np.inf:
        undo(eliminated, n, multi_root, adjoint, scratch)
        for k in range(1, n + 1):
            for h in range(n + 1):
                marginals[k, h] = weights[k, h] * adjoint[k, h]
        if not are_probabilities(marginals, n, multi_root):
            log_partition = -np.inf
    return log_partition


@part()
def are_probabilities(marginals, n, multi_root):
    """Whether nothing was lost on the way: each word has one head, and one word is the only root word."""
    roots, rounding = 0.0, rounding_of_sums(n)
    for m in range(1, n + 1):
        roots += marginals[m, 0].real
        for h in range(n + 1):
            if not -rounding < marginals[m, h].real < 1 + rounding:
                return False
    return rows_sum_to_one(marginals, n) and (multi_root or abs(roots - 1) < rounding)


@part()
def bring_to_front(order, word):
    """Swap ``word`` with the one eliminated last (from the plain order)."""
    for k in range(len(order)):
        order[k] = k
    order[1], order[word] = word, 1


@part()
def likeliest_root(logs, n):
    """The word whose root arc comes closest to being its best: as the last one, it leaves no tiny pivot."""
    best, root = -np.inf, 1
    for m in range(1, n + 1):
        margin = logs[m, 0] - best_score(logs, m, n)
        if margin > best:
            best, root = margin, m
    return root


@part()
def reached_by_all(logs, n, seen, stack):
    """A word to which every other one has a chain of possible heads, if there is one."""
    for m in range(n + 1):
        seen[m] = 0
    candidate = 1
    for start in range(1, n + 1):
        if seen[start] != 0:
            continue
        candidate, seen[start] = start, 1
        stack[0], top = start, 1
        while top > 0:
            top -= 1
            head = stack[top]
            for m in range(1, n + 1):
                if seen[m] == 0 and logs[m, head].real > -np.inf:
                    seen[m] = 1
                    stack[top] = m
                    top += 1
    return candidate


# --------------------------------------------------------------------------- real domain


@part(fastmath=FAST)
def eliminate(weights, n, multi_root):
    """Reroute the arcs through words ``n .. 1`` in place; the sum of the log pivots, -inf out of range."""
    log_partition = 0.0
    for back in range(n):
        k = n - back
        first = 0 if multi_root or k == 1 else 1
        pivot = weights[k, k]
        for h in range(first, k):
            pivot += weights[k, h]
        if not SMALLEST < pivot.real < LARGEST_PIVOT:
            return -np.inf
        log_partition += math.log(pivot.real)
        weights[k, k] = pivot  # kept for the way back
        for i in range(1, k):
            factor = weights[i, k] / pivot
            diagonal = weights[i, i]
            for h in range(k):
                weights[i, h] += factor * weights[k, h]
            weights[i, i] = diagonal
    return log_partition


@part(fastmath=FAST)
def undo(weights, n, multi_root, adjoint, scratch):
    """``eliminate`` backwards: ``adjoint[m, h] = d log(partition) / d weights[m, h]``."""
    through = scratch[0]
    for k in range(n + 1):
        for h in range(n + 1):
            adjoint[k, h] = 0
    for k in range(1, n + 1):
        first = 0 if multi_root or k == 1 else 1
        pivot = weights[k, k]
        for h in range(k):
            through[h] = 0
        for i in range(1, k):
            factor = weights[i, k]
            by_factor = through[k - 1] - through[k - 1]
            for h in range(k):
                through[h] += adjoint[i, h] * factor
                by_factor += adjoint[i, h] * weights[k, h]
            adjoint[i, k] = by_factor / pivot
        used = through[0] * weights[k, 0]
        for h in range(1, k):
            used += through[h] * weights[k, h]
        own = 1 - used / pivot  # the pivot's derivative; it leaves the root out unless first == 0
        for h in range(k):
            adjoint[k, h] = (through[h] + (own if h >= first else 0)) / pivot


# --------------------------------------------------------------------------- log domain


@part()
def log_domain_marginals(
    logs, n, multi_root, order, level_peaks, level_totals, eliminated, rest, agenda, marginals
):
    """Log-partition and marginals, on pairs ``exp(peak) * total`` and without any subtraction.

    The head of word ``m`` is ``h`` with a probability proportional to ``w[m, h]`` times the chance that a
    walk from ``h``, each word moving on to a head in proportion to the weights, meets the root before
    ``m``. With one root word, root arcs are made so costly that a second one adds nothing.
    """
    peaks, totals = level_peaks[0], level_totals[0]
    bring_to_front(order, 1 if multi_root else reached_by_all(logs, n, eliminated, rest))
    _copy_in_order(logs, n, order, peaks, totals)
    log_partition = log_eliminate(peaks, totals, n, multi_root, rest)
    if log_partition > -np.inf:
        bring_to_front(order, ONE)
        _copy_in_order(logs, n, order, peaks, totals)
        if not multi_root:
            cost = _prohibitive(peaks, n)
            for k in range(1, n + 1):
                peaks[k, 0] -= cost
        _leave_each_word_out(level_peaks, level_totals, n, eliminated, rest, agenda, marginals)
    return log_partition


@part()
def _copy_in_order(logs, n, order, peaks, totals):
    for k in range(1, n + 1):
        for h in range(n + 1):
            log = logs[order[k], order[h]]
            peaks[k, h], totals[k, h] = log.real, complex(1.0, log.imag)
        peaks[k, k] = -np.inf


@part()
def _prohibitive(peaks, n):
    """A cost that outweighs any difference between trees, and their number.

    A power of two: taking it from a score then rounds as little as can be.
    """
    lowest, highest = np.inf, -np.inf
    for m in range(1, n + 1):
        for h in range(n + 1):
            if peaks[m, h] > -np.inf:
                lowest, highest = min(lowest, peaks[m, h]), max(highest, peaks[m, h])
    exponent = math.ceil(math.log(n * (highest - lowest + math.log(n + 1.0)) + 50) / math.log(2.0))
    return math.pow(2.0, exponent)


@part()
def log_eliminate(peaks, totals, n, multi_root, rest):
    """``eliminate`` on pairs."""
    log_peaks, log_totals = 0.0, 0.0
    for k in range(n + 1):
        rest[k] = k
    for back in range(n):
        k = n - back
        first = 0 if multi_root or k == 1 else 1
        peak, total = _sum_of_pairs(peaks[k], totals[k], rest[first:k])
        if peak == -np.inf:
            return -np.inf
        log_peaks += peak
        log_totals += math.log(total.real)
        _reroute(peaks, totals, k, peak, total, rest[:k])
    return log_peaks + log_totals


@part()
def _reroute(peaks, totals, k, peak, total, rest):
    """Arcs through ``k``, whose weights add up to the pair, become direct ones among the others."""
    for i in rest:
        if i > 0 and peaks[i, k] > -np.inf:
            through_peak, through_total = peaks[i, k] - peak, totals[i, k] / total
            for h in rest:
                if h != i:
                    peaks[i, h], totals[i, h] = _add_pairs(
                        peaks[i, h], totals[i, h], through_peak + peaks[k, h], through_total * totals[k, h]
                    )


@part()
def _leave_each_word_out(peaks, totals, n, eliminated, rest, agenda, marginals):
    """Head probabilities of every word, all others eliminated: half of them at a time, halves shared."""
    top = _push(agenda, ZERO, ONE, ONE, n + 1, ONE, ONE)
    while top > 0:
        top -= 1
        depth, start, stop = agenda[top, 0], agenda[top, 1], agenda[top, 2]
        now, before = agenda[top, 3], agenda[top, 4]
        _copy_pairs(peaks[depth - 1], totals[depth - 1], n, peaks[depth], totals[depth])
        count = n - (stop - start) - (before - now)
        for k in range(now, before):
            count = _eliminate_word(peaks[depth], totals[depth], k, n, eliminated, count, rest)
        if stop - start == 1:
            _head_probabilities(
                peaks[0], totals[0], peaks[depth], totals[depth], start, n, eliminated, rest, marginals
            )
        else:
            middle = (start + stop) // 2
            top = _push(agenda, top, depth + 1, start, middle, middle, stop)
            top = _push(agenda, top, depth + 1, middle, stop, start, middle)


@part()
def _copy_pairs(peaks, totals, n, to_peaks, to_totals):
    for m in range(1, n + 1):
        for h in range(n + 1):
            to_peaks[m, h], to_totals[m, h] = peaks[m, h], totals[m, h]


@part()
def _push(agenda, top, depth, start, stop, now, before):
    """Put on the stack: at this depth, words to leave out later, and words to eliminate now."""
    agenda[top, 0] = depth
    agenda[top, 1] = start
    agenda[top, 2] = stop
    agenda[top, 3] = now
    agenda[top, 4] = before
    return top + 1


@part()
def _eliminate_word(peaks, totals, k, n, eliminated, count, rest):
    """Reroute the arcs through ``k``, the next of the ``eliminated``; how many these are now."""
    eliminated[count] = k
    size = 0
    for word in range(n + 1):
        gone = False
        for place in range(count + 1):
            gone |= eliminated[place] == word
        if not gone:
            rest[size] = word
            size += 1
    peak, total = _sum_of_pairs(peaks[k], totals[k], rest[:size])
    _reroute(peaks, totals, k, peak, total, rest[:size])
    return count + 1


@part()
def _head_probabilities(peaks, totals, rerouted_peaks, rerouted_totals, m, n, eliminated, rest, marginals):
    """Row ``m`` of the marginals; the first ``n - 1`` of ``eliminated`` are all other words, in order."""
    # The chance to meet the root before m; of the arcs, which do not enter the root, row 0 is free.
    reach_peaks, reach_totals = rerouted_peaks[0], rerouted_totals[0]
    for h in range(n + 1):
        reach_peaks[h], reach_totals[h] = -np.inf, 0
    reach_peaks[0], reach_totals[0] = 0, 1
    rest[0], rest[1], count = 0, m, 2
    for back in range(n - 1):
        k = eliminated[n - 2 - back]
        all_peak, all_total = _sum_of_pairs(rerouted_peaks[k], rerouted_totals[k], rest[:count])
        peak, total = _sum_of_products(
            rerouted_peaks[k], rerouted_totals[k], reach_peaks, reach_totals, rest[:count]
        )
        if peak > -np.inf:
            reach_peaks[k], reach_totals[k] = peak - all_peak, total / all_total
        rest[count] = k
        count += 1
    peak, total = _sum_of_products(peaks[m], totals[m], reach_peaks, reach_totals, rest[:count])
    for h in range(n + 1):
        below = peaks[m, h] + reach_peaks[h] - peak
        marginals[m, h] = exp(below) * (totals[m, h] * reach_totals[h]) / total if h != m else 0.0


@part()
def _sum_of_pairs(peaks, totals, chosen):
    peak, total = peaks[chosen[0]], totals[chosen[0]]
    for h in chosen[1:]:
        peak, total = _add_pairs(peak, total, peaks[h], totals[h])
    return peak, total


@part()
def _sum_of_products(a_peaks, a_totals, b_peaks, b_totals, chosen):
    first = chosen[0]
    peak, total = a_peaks[first] + b_peaks[first], a_totals[first] * b_totals[first]
    for h in chosen[1:]:
        peak, total = _add_pairs(peak, total, a_peaks[h] + b_peaks[h], a_totals[h] * b_totals[h])
    return peak, total


@part()
def _add_pairs(a_peak, a_total, b_peak, b_total):
    if a_peak < b_peak:
        a_peak, a_total, b_peak, b_total = b_peak, b_total, a_peak, a_total
    if b_peak - a_peak > UNDERFLOW:
        return rescaled(a_peak, a_total + exp(b_peak - a_peak) * b_total)
    return a_peak, a_total
