"""Exact samples of trees on the CPU.

Projective trees: top-down through the inside sums, as in ``reference.sample_projective``.

All trees: Wilson's algorithm (1996). A walk from each word moves to random heads until it meets the tree so
far; its loops are erased. With one root word, that one is drawn first and takes the root's place. Walks get
lost where words point at each other with very high scores. They are then given up for ``word_by_word``.
That does not bias the samples: the arcs erased in loops, so their number too, are independent of the tree
that remains (Propp and Wilson 1998, Section 6).
"""

import numpy as np
from numba import uint64

from diffdecode.structure.kernels.numba.agenda import ARC_LEFT, ARC_RIGHT, LEFT, RIGHT, push
from diffdecode.structure.kernels.numba.compiled import ONE, ZERO, kernel, part
from diffdecode.structure.kernels.numba.inside_outside import (
    LARGEST_SUM,
    SMALLEST,
    exp,
    exponentiate,
    fill_charts,
    log_charts,
)
from diffdecode.structure.kernels.status import PADDING


@part()
def _uniform(state):
    """Next number of a SplitMix64 stream, whose state is ``state[0]``."""
    state[0] += uint64(0x9E3779B97F4A7C15)
    mixed = state[0]
    mixed = (mixed ^ (mixed >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> uint64(27))) * uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> uint64(31))) >> uint64(11)) * 2.0**-53


# --------------------------------------------------------------------------- projective trees


@kernel()
def sample_projective(start, stop, scores, lengths, multi_root, seeds, heads):
    """Fill ``heads [S, B, N]`` for sentences with a tree; seeds ``[S, B]`` uint64."""
    size = scores.shape[1]
    weights, flat = np.empty((size, size)), np.empty(8 * size * ((size + 7) // 8 * 8))
    logs, totals = np.empty((size, size), np.complex128), np.empty((5, size, size), np.complex128)
    peaks, agenda = np.empty((5, size, size)), np.empty((2 * size + 4, 3), np.int64)
    state, cumulative = np.empty(1, np.uint64), np.empty(size)
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
            state[0] = seeds[s, b]
            for m in range(size - 1):
                heads[s, b, m] = PADDING
            _walk_down(peaks, totals, n, multi_root, state, agenda, cumulative, heads[s, b])


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
def _walk_down(peaks, totals, n, multi_root, state, agenda, cumulative, heads):
    """Split the whole sentence into ever smaller spans at random."""
    if multi_root:
        top = push(agenda, ZERO, ZERO, n, RIGHT)
    else:
        root = _draw_split(peaks, totals, ARC_RIGHT, RIGHT, ZERO, n, ONE, n + 1, ZERO, state, cumulative)
        heads[root - 1] = 0
        top = push(agenda, push(agenda, ZERO, ONE, root, LEFT), root, n, RIGHT)
    while top > 0:
        top -= 1
        i, j, kind = agenda[top, 0], agenda[top, 1], agenda[top, 2]
        if i == j:
            continue
        if kind == RIGHT:
            r = _draw_split(peaks, totals, ARC_RIGHT, RIGHT, i, j, i + 1, j + 1, ZERO, state, cumulative)
            first_kind, second_kind, start = ARC_RIGHT, RIGHT, r
        elif kind == LEFT:
            r = _draw_split(peaks, totals, LEFT, ARC_LEFT, i, j, i, j, ZERO, state, cumulative)
            first_kind, second_kind, start = LEFT, ARC_LEFT, r
        else:
            dependent, head = (j, i) if kind == ARC_RIGHT else (i, j)
            heads[dependent - 1] = head
            r = _draw_split(peaks, totals, RIGHT, LEFT, i, j, i, j, ONE, state, cumulative)
            first_kind, second_kind, start = RIGHT, LEFT, r + 1
        top = push(agenda, push(agenda, top, i, r, first_kind), start, j, second_kind)


@part()
def _draw_split(peaks, totals, first, second, i, j, start, stop, gap, state, cumulative):
    """A split ``start <= r < stop`` in proportion to ``first(i, r) * second(r + gap, j)``."""
    peak = -np.inf
    for r in range(start, stop):
        peak = max(peak, peaks[first, i, r] + peaks[second, r + gap, j])
    total = 0.0
    for r in range(start, stop):
        below = peaks[first, i, r] + peaks[second, r + gap, j] - peak
        product = totals[first, i, r].real * totals[second, r + gap, j].real
        total += (exp(below) if below < 0 else 1.0) * product
        cumulative[r - start] = total
    return start + _draw_from(cumulative, stop - start, state)


# --------------------------------------------------------------------------- all trees


@kernel()
def sample_arborescence(start, stop, scores, lengths, multi_root, roots, patience, states, given_up, heads):
    """Fill ``heads [S, B, N]`` for sentences with a tree; a walk may erase about ``patience`` arcs a word.

    ``roots [B, N]`` has each word's probability to be the root word (not read with ``multi_root``). Where a
    walk is ``given_up [S, B]``, ``heads`` holds nothing but the root word, and the stream of random numbers
    goes on from ``states [S, B]``, which begins as the seed.
    """
    size = scores.shape[1]
    weights, cumulative = np.empty((size, size)), np.empty((size, size))
    state, reached = np.empty(1, np.uint64), np.empty(size, np.bool_)
    for b in range(start, stop):
        n = lengths[b]
        exponentiate(scores[b], n, weights)
        if not multi_root:
            _cumulate(roots[b], n, cumulative[0])
        for m in range(1, n + 1):
            if not multi_root:
                weights[m, 0] = 0
            _cumulate(weights[m], n + 1, cumulative[m])
        for s in range(len(states)):
            state[0] = states[s, b]
            root = 0 if multi_root else 1 + _draw_from(cumulative[0], n, state)
            found = patience > 0 and _wilson(cumulative, root, n, patience * n, state, reached, heads[s, b])
            for m in range(size - 1):
                if m >= n or not found:
                    heads[s, b, m] = PADDING
            if not found:
                given_up[s, b], states[s, b] = True, state[0]
                if not multi_root:
                    heads[s, b, root - 1] = 0


@part()
def _draw_from(cumulative, count, state):
    """The first of ``count`` cumulative sums that is beyond a random share of the whole, by bisection."""
    target = _uniform(state) * cumulative[count - 1]
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] > target:
            high = middle
        else:
            low = middle + 1
    return low


@part()
def _cumulate(values, count, sums):
    total = 0.0
    for k in range(count):
        total += values[k]
        sums[k] = total


@part()
def _wilson(cumulative, root, n, patience, state, reached, heads):
    """Loop-erased walks to ``root``; whether at most ``patience`` arcs were erased."""
    for word in range(n + 1):
        reached[word] = word == root
    if root > 0:
        heads[root - 1] = 0
    steps = 0
    for start in range(1, n + 1):
        word = start
        while not reached[word]:
            steps += 1
            if steps > patience + n or not cumulative[word, n] > 0:
                return False
            heads[word - 1] = _draw_from(cumulative[word], n + 1, state)
            word = heads[word - 1]
        word = start
        while not reached[word]:
            reached[word] = True
            word = heads[word - 1]
    return True
