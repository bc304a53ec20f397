"""Exact samples of trees on the CPU, the same as those of ``reference`` for the same seeds.

Projective trees are split top-down through the inside sums. All trees grow a word at a time, in the reverse
order of their elimination, which is done once for all samples of a sentence.
"""

import math

import numpy as np
from numba import uint64

from diffdecode.structure.kernels.numba.agenda import ARC_LEFT, ARC_RIGHT, LEFT, RIGHT, push
from diffdecode.structure.kernels.numba.compiled import ONE, ZERO, kernel, part
from diffdecode.structure.kernels.numba.inside_outside import (
    LARGEST_SUM,
    SMALLEST,
    best_score,
    exp,
    exponentiate,
    fill_charts,
    log_charts,
)
from diffdecode.structure.kernels.numba.matrix_tree import (
    bring_to_front,
    eliminate,
    log_eliminate,
    reached_by_all,
)
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.randomness import (
    ARC_SPAN,
    FIRST_FACTOR,
    LEFT_SPAN,
    RIGHT_SPAN,
    ROOT_SPAN,
    SECOND_FACTOR,
    STEP,
    TREE,
)
from diffdecode.structure.kernels.status import PADDING

SAMPLES = "int64, int64, float64[:,:,::1], int64[::1], boolean, uint64[:,::1], int64[:,:,::1]"


@part()
def _uniform(seed, kind, i, j):
    """The number of a place in the seed's stream; see ``randomness``."""
    place = (uint64(kind) << uint64(40)) + (uint64(i) << uint64(20)) + uint64(j) + uint64(1)
    mixed = seed + place * uint64(STEP)
    mixed = (mixed ^ (mixed >> uint64(30))) * uint64(FIRST_FACTOR)
    mixed = (mixed ^ (mixed >> uint64(27))) * uint64(SECOND_FACTOR)
    return ((mixed ^ (mixed >> uint64(31))) >> uint64(11)) * 2.0**-53


# --------------------------------------------------------------------------- projective trees


@kernel(SAMPLES)
def sample_projective(memory, start, stop, scores, lengths, multi_root, seeds, heads):
    """Fill ``heads [S, B, N]`` for sentences with a tree; seeds ``[S, B]`` uint64."""
    size = scores.shape[1]
    weights = empty(memory, (size, size), np.float64)
    flat = empty(memory, 8 * size * ((size + 7) // 8 * 8), np.float64)
    logs = empty(memory, (size, size), np.complex128)
    totals = empty(memory, (5, size, size), np.complex128)
    peaks = empty(memory, (5, size, size), np.float64)
    agenda = empty(memory, (2 * size + 4, 3), np.int64)
    cumulative = empty(memory, size, np.float64)
    for b in range(start, stop):
        n = lengths[b]
        exponentiate(scores[b], n, weights)
        partition = fill_charts(weights, n, multi_root, flat)
        if SMALLEST < partition < LARGEST_SUM:
            _take_charts(flat, weights, n, multi_root, peaks, totals)
        else:
            for m in range(n + 1):
                for h in range(n + 1):
                    logs[m, h] = scores[b, m, h]
            log_charts(logs, n, multi_root, peaks, totals)
        for s in range(len(seeds)):
            for m in range(size - 1):
                heads[s, b, m] = PADDING
            _walk_down(peaks, totals, n, multi_root, seeds[s, b], agenda, cumulative, heads[s, b])


@part()
def _take_charts(flat, weights, n, multi_root, peaks, totals):
    """The charts of ``inside_outside.fill_charts`` in the layout of its ``log_charts``, peaks being 0."""
    first = 0 if multi_root else 1
    size = n + 1 - first
    row = (size + 7) // 8 * 8
    for i in range(n + 1):
        for j in range(n + 1):
            for kind in range(5):
                peaks[kind, i, j] = 0
    for j in range(first, n + 1):
        for i in range(first, j + 1):
            at = (j - first) * row + i - first
            totals[RIGHT, i, j] = flat[at]
            totals[LEFT, i, j] = flat[size * row + at]
            totals[ARC_RIGHT, i, j] = flat[2 * size * row + at]
            totals[ARC_LEFT, i, j] = flat[3 * size * row + at] * weights[i, j]
    if not multi_root:
        for r in range(1, n + 1):
            totals[ARC_RIGHT, 0, r] = totals[LEFT, 1, r] * weights[r, 0]


@part()
def _walk_down(peaks, totals, n, multi_root, seed, agenda, cumulative, heads):
    """Split the whole sentence into ever smaller spans at random."""
    if multi_root:
        top = push(agenda, ZERO, ZERO, n, RIGHT)
    else:
        share = _uniform(seed, ROOT_SPAN, ZERO, n)
        root = _split(peaks, totals, ARC_RIGHT, RIGHT, ZERO, n, ONE, n + 1, ZERO, share, cumulative)
        heads[root - 1] = 0
        top = push(agenda, push(agenda, ZERO, ONE, root, LEFT), root, n, RIGHT)
    while top > 0:
        top -= 1
        i, j, kind = agenda[top, 0], agenda[top, 1], agenda[top, 2]
        if i == j:
            continue
        if kind == RIGHT:
            share = _uniform(seed, RIGHT_SPAN, i, j)
            r = _split(peaks, totals, ARC_RIGHT, RIGHT, i, j, i + 1, j + 1, ZERO, share, cumulative)
            first_kind, second_kind, start = ARC_RIGHT, RIGHT, r
        elif kind == LEFT:
            share = _uniform(seed, LEFT_SPAN, i, j)
            r = _split(peaks, totals, LEFT, ARC_LEFT, i, j, i, j, ZERO, share, cumulative)
            first_kind, second_kind, start = LEFT, ARC_LEFT, r
        else:
            dependent, head = (j, i) if kind == ARC_RIGHT else (i, j)
            heads[dependent - 1] = head
            share = _uniform(seed, ARC_SPAN, i, j)
            r = _split(peaks, totals, RIGHT, LEFT, i, j, i, j, ONE, share, cumulative)
            first_kind, second_kind, start = RIGHT, LEFT, r + 1
        top = push(agenda, push(agenda, top, i, r, first_kind), start, j, second_kind)


@part()
def _split(peaks, totals, first, second, i, j, start, stop, gap, share, cumulative):
    """The split ``start <= r < stop`` at this share of the sum of ``first(i, r) * second(r + gap, j)``."""
    peak = -np.inf
    for r in range(start, stop):
        peak = max(peak, peaks[first, i, r] + peaks[second, r + gap, j])
    total = 0.0
    for r in range(start, stop):
        below = peaks[first, i, r] + peaks[second, r + gap, j] - peak
        product = totals[first, i, r].real * totals[second, r + gap, j].real
        total += (exp(below) if below < 0 else 1.0) * product
        cumulative[r - start] = total
    return start + _place_of(share, cumulative, stop - start)


@part()
def _place_of(share, cumulative, count):
    """The first of ``count`` cumulative sums that is beyond this share of the whole, by bisection."""
    target = share * cumulative[count - 1]
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] > target:
            high = middle
        else:
            low = middle + 1
    return low


# --------------------------------------------------------------------------- all trees


@kernel(SAMPLES)
def sample_arborescence(memory, start, stop, scores, lengths, multi_root, seeds, heads):
    """Fill ``heads [S, B, N]`` for sentences with a tree; seeds ``[S, B]`` uint64."""
    size = scores.shape[1]
    weights = empty(memory, (size, size), np.float64)
    peaks, sums = empty(memory, (size, size), np.float64), empty(memory, (size, size), np.complex128)
    given, logs = empty(memory, (size, size), np.float64), empty(memory, (size, size), np.float64)
    cumulative, words = empty(memory, size, np.float64), empty(memory, size, np.int64)
    found, ways = empty(memory, size, np.int64), empty(memory, size, np.int64)
    for b in range(start, stop):
        n = lengths[b]
        bring_to_front(words, 1 if multi_root else reached_by_all(scores[b], n, found, ways))
        _log_weights(scores[b], n, words, given)
        for k in range(1, n + 1):
            for h in range(n + 1):
                weights[k, h] = math.exp(given[k, h])
        if eliminate(weights, n, multi_root) > -np.inf:
            for k in range(1, n + 1):
                for h in range(n + 1):
                    logs[k, h] = math.log(weights[k, h]) if weights[k, h] > 0 else -np.inf
        else:
            for k in range(1, n + 1):
                for h in range(n + 1):
                    peaks[k, h], sums[k, h] = given[k, h], 1
            log_eliminate(peaks, sums, n, multi_root, ways)
            for k in range(1, n + 1):
                for h in range(n + 1):
                    logs[k, h] = peaks[k, h] + math.log(sums[k, h].real)
                logs[k, k] = _log_sum(logs[k], 0 if multi_root or k == 1 else 1, k)
        for s in range(len(seeds)):
            _grow_tree(given, logs, n, multi_root, seeds[s, b], found, ways, cumulative)
            for m in range(size - 1):
                heads[s, b, m] = words[found[words[m + 1]]] if m < n else PADDING


@part()
def _log_weights(scores, n, words, given):
    """Scores in the order of elimination, each word's best one being 0."""
    for k in range(1, n + 1):
        best = best_score(scores, words[k], n)
        for h in range(n + 1):
            given[k, h] = scores[words[k], words[h]] - best if h != k else -np.inf


@part()
def _log_sum(logs, start, stop):
    peak, total = -np.inf, 0.0
    for h in range(start, stop):
        peak = max(peak, logs[h])
    for h in range(start, stop):
        total += exp(logs[h] - peak)
    return peak + math.log(total)


@part()
def _grow_tree(given, eliminated, n, multi_root, seed, heads, ways, cumulative):
    """As in ``reference``; the sums of the words' weights are on the diagonal of ``eliminated``."""
    heads[0] = 0
    for word in range(n + 1):
        ways[word] = 0
    for k in range(1, n + 1):
        last = 0
        for i in range(1, k):
            if ways[i] == k:
                last = i
                break
        if last > 0:
            word = last
            while word != 0:
                word = heads[word]
                if ways[word] == k:
                    last = word
            heads[k] = heads[last]
            for i in range(1, k):
                if ways[i] == k:
                    heads[i] = k
        else:
            first = 0 if multi_root or k == 1 else 1
            for h in range(first, k):
                cumulative[h - first] = eliminated[k, h]
            heads[k] = first + _draw(seed, ZERO, k, cumulative, k - first)
        for word in range(1, k + 1):
            if word == k or ways[word] == k:
                cumulative[0] = given[word, heads[word]]
                for j in range(k + 1, n + 1):
                    rerouted = eliminated[word, j] + eliminated[j, heads[word]] - eliminated[j, j]
                    cumulative[j - k] = rerouted
                ways[word] = k + _draw(seed, word, k, cumulative, n + 1 - k)


@part()
def _draw(seed, word, k, logs, count):
    """An index in proportion to the exponentials of ``logs``, which are written over."""
    peak, total = -np.inf, 0.0
    for index in range(count):
        peak = max(peak, logs[index])
    for index in range(count):
        total += exp(logs[index] - peak)
        logs[index] = total
    return _place_of(_uniform(seed, TREE, word, k), logs, count)
