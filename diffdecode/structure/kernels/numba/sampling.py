"""Exact samples of trees on the CPU.

Projective trees: top-down through the inside sums, as in ``reference.sample_projective``.

All trees: Wilson's algorithm (1996). A walk from each word moves to random heads until it meets the tree so
far; its loops are erased. With one root word, that one is drawn first and takes the root's place. Walks get
lost where words point at each other with very high scores. They are then given up for
``reference.sample_arborescence``, word by word. That does not bias the samples: the arcs erased in loops,
so their number too, are independent of the tree that remains (Propp and Wilson 1998, Section 6).
"""

import numpy as np
from numba import njit, uint64

from diffdecode.structure.kernels.numba.inside_outside import (
    LARGEST_SUM,
    SMALLEST,
    exp,
    exponentiate,
    fill_charts,
    log_charts,
)
from diffdecode.structure.kernels.numba.matrix_tree import head_marginals, tree_marginals
from diffdecode.structure.trees.tensors import PADDING

RIGHT, LEFT, ARC_RIGHT, ARC_LEFT, ARC = range(5)


@njit(nogil=True, cache=True)
def _uniform(state):
    """Next number of a SplitMix64 stream, whose state is ``state[0]``."""
    state[0] += uint64(0x9E3779B97F4A7C15)
    mixed = state[0]
    mixed = (mixed ^ (mixed >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> uint64(27))) * uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> uint64(31))) >> uint64(11)) * 2.0**-53


# --------------------------------------------------------------------------- projective trees


@njit(nogil=True, cache=True)
def sample_projective(start, stop, scores, lengths, multi_root, seeds, heads):
    """Fill ``heads [S, B, N]`` for sentences with a tree; seeds ``[S, B]`` uint64."""
    size = scores.shape[1]
    weights = np.empty((size, size))
    flat = np.empty(8 * size * ((size + 7) // 8 * 8))
    agenda = np.empty((2 * size + 4, 3), np.int64)
    state = np.empty(1, np.uint64)
    for b in range(start, stop):
        n = lengths[b]
        charts = np.empty((5, n + 1, n + 1))
        exponentiate(scores[b], n, weights)
        partition = fill_charts(weights, n, multi_root, flat)
        if SMALLEST < partition < LARGEST_SUM:
            _logs_of_charts(flat, weights, n, multi_root, charts)
            roots = np.log(weights[1 : n + 1, 0])
        else:
            log_charts(scores[b].astype(np.float64), n, multi_root, charts)
            roots = scores[b, 1 : n + 1, 0].astype(np.float64)
        for s in range(len(seeds)):
            state[0] = seeds[s, b]
            heads[s, b] = PADDING
            _walk_down(charts, roots, n, multi_root, state, agenda, heads[s, b])


@njit(nogil=True, cache=True)
def _logs_of_charts(flat, weights, n, multi_root, charts):
    """The charts of ``inside_outside.fill_charts`` in the layout of its ``log_charts``."""
    first = 0 if multi_root else 1
    size = n + 1 - first
    row = (size + 7) // 8 * 8
    charts[:] = -np.inf
    for j in range(size):
        for i in range(j + 1):
            at = j * row + i
            arc = flat[3 * size * row + at]
            charts[RIGHT, i + first, j + first] = np.log(flat[at])
            charts[LEFT, i + first, j + first] = np.log(flat[size * row + at])
            if i < j:
                charts[ARC_RIGHT, i + first, j + first] = np.log(flat[2 * size * row + at])
                charts[ARC_LEFT, i + first, j + first] = np.log(arc * weights[i + first, j + first])
                charts[ARC, i + first, j + first] = np.log(arc)


@njit(nogil=True, cache=True)
def _walk_down(charts, roots, n, multi_root, state, agenda, heads):
    """Split the whole sentence into ever smaller spans at random."""
    right, left, arc_right, arc_left, _ = charts
    if multi_root:
        agenda[0], top = (0, n, RIGHT), 1
    else:
        root = 1 + _draw(left[1, 1:] + roots, right[1:, n], state)
        heads[root - 1] = 0
        agenda[0], agenda[1], top = (1, root, LEFT), (root, n, RIGHT), 2
    while top > 0:
        top -= 1
        i, j, kind = agenda[top]
        if i == j:
            continue
        if kind == RIGHT:
            r = i + 1 + _draw(arc_right[i, i + 1 : j + 1], right[i + 1 : j + 1, j], state)
            agenda[top], agenda[top + 1] = (i, r, ARC_RIGHT), (r, j, RIGHT)
        elif kind == LEFT:
            r = i + _draw(left[i, i:j], arc_left[i:j, j], state)
            agenda[top], agenda[top + 1] = (i, r, LEFT), (r, j, ARC_LEFT)
        else:
            dependent, head = (j, i) if kind == ARC_RIGHT else (i, j)
            heads[dependent - 1] = head
            r = i + _draw(right[i, i:j], left[i + 1 : j + 1, j], state)
            agenda[top], agenda[top + 1] = (i, r, RIGHT), (r + 1, j, LEFT)
        top += 2


@njit(nogil=True, cache=True)
def _draw(first, second, state):
    """An index in proportion to ``exp(first + second)``."""
    peak = -np.inf
    for r in range(len(first)):
        peak = max(peak, first[r] + second[r])
    cumulative = np.empty(len(first))
    total = 0.0
    for r in range(len(first)):
        total += exp(first[r] + second[r] - peak)
        cumulative[r] = total
    return np.searchsorted(cumulative, _uniform(state) * total, side="right")


# --------------------------------------------------------------------------- all trees


@njit(nogil=True, cache=True)
def sample_arborescence(start, stop, scores, lengths, multi_root, patience, seeds, heads):
    """Fill ``heads [S, B, N]`` for sentences with a tree; a walk may erase about ``patience`` arcs a word."""
    size = scores.shape[1]
    weights = np.empty((size, size))
    state = np.empty(1, np.uint64)
    order = np.empty(size, np.int64)
    for b in range(start, stop):
        n = lengths[b]
        logs = scores[b, : n + 1, : n + 1].astype(np.float64)
        exponentiate(scores[b], n, weights)
        root_marginals = np.ones(1)
        if not multi_root:
            root_marginals = _root_marginals(logs, n, order)
        cumulative = np.zeros((n + 1, n + 1))
        for m in range(1, n + 1):
            if not multi_root:
                weights[m, 0] = 0
            cumulative[m] = np.cumsum(weights[m, : n + 1])
        for s in range(len(seeds)):
            state[0] = seeds[s, b]
            heads[s, b] = PADDING
            root = 0
            if not multi_root:
                root = 1 + _draw_from(np.cumsum(root_marginals), state)
            found = patience > 0 and _wilson(cumulative, root, n, patience * n, state, heads[s, b])
            if not found:
                _word_by_word(logs, root, n, state, heads[s, b])


@njit(nogil=True, cache=True)
def _root_marginals(logs, n, order):
    work = np.empty((5, n + 1, n + 1))
    tree_marginals(logs, n, False, order, work)
    probabilities = np.empty(n)
    for k in range(1, n + 1):
        probabilities[order[k] - 1] = max(work[0, k, 0], 0.0)
    return probabilities


@njit(nogil=True, cache=True)
def _draw_from(cumulative, state):
    return np.searchsorted(cumulative, _uniform(state) * cumulative[-1], side="right")


@njit(nogil=True, cache=True)
def _wilson(cumulative, root, n, patience, state, heads):
    """Loop-erased walks to ``root``; whether at most ``patience`` arcs were erased."""
    reached = np.zeros(n + 1, np.bool_)
    reached[root] = True
    if root > 0:
        heads[root - 1] = 0
    steps = 0
    for start in range(1, n + 1):
        word = start
        while not reached[word]:
            steps += 1
            if steps > patience + n or not cumulative[word, n] > 0:
                return False
            heads[word - 1] = _draw_from(cumulative[word], state)
            word = heads[word - 1]
        word = start
        while not reached[word]:
            reached[word] = True
            word = heads[word - 1]
    return True


@njit(nogil=True, cache=True)
def _word_by_word(logs, root, n, state, heads):
    """Each head from its marginals given the heads so far, on logarithms."""
    given = logs.copy()
    if root > 0:
        given[:, 0] = -np.inf
        given[root] = -np.inf
        given[root, 0] = 0
    for m in range(n + 1):
        given[m, m] = -np.inf
    probabilities = np.empty((n + 1, n + 1))
    for m in range(1, n + 1):
        head_marginals(given, m, n, probabilities)
        head = _draw_from(np.cumsum(probabilities[m]), state)
        heads[m - 1] = head
        kept = given[m, head]
        given[m] = -np.inf
        given[m, head] = kept
