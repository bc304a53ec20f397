"""Chu-Liu/Edmonds on the CPU in O(N^2): the algorithm of ``reference._edmonds``, step for step.

Most sentences never reach it: where every word's best head already gives a tree, that is the best tree, and
the one that the contraction algorithm would return.
"""

import numpy as np
from numba import njit, uintp

from diffdecode.structure.kernels.numba_checks import status_of_scores
from diffdecode.structure.kernels.numba_vectors import FLOAT64_LANES as LANES
from diffdecode.structure.kernels.numba_vectors import keep_greater
from diffdecode.structure.trees import NO_TREE, PADDING

# Rows of ``nodes``: the node that holds a word; and for each node, what it was contracted into, the arc
# entering it and the words that it holds (a linked list through ``FOLLOWING``).
NODE_OF, PARENT, ENTERING_HEAD, ENTERING_WORD, PATH, FIRST, LAST, FOLLOWING = range(8)
FAST = {"nnan", "nsz", "reassoc"}  # scores were checked for NaN; "reassoc" lets a maximum be vectorised


@njit(nogil=True, cache=True)
def arborescence(start, stop, scores, lengths, multi_root, largest, heads, status):
    """Fill ``heads [B, N]`` and ``status [B]`` for the sentences ``start <= b < stop``."""
    size = scores.shape[1]
    width = (size + LANES - 1) // LANES * LANES
    weights = np.zeros((2 * size, width))
    enters = np.zeros((2 * size, width), np.int32)
    nodes = np.empty((8, 2 * size), np.int32)
    entering_weight = np.empty(2 * size)
    best = np.empty(size, np.int32)
    for b in range(start, stop):
        n = lengths[b]
        heads[b] = PADDING
        status[b] = status_of_scores(scores, b, n, largest)
        if status[b] != 0:
            continue
        if best_heads_form_a_tree(scores[b], n, multi_root, best, nodes[0]):
            heads[b, :n] = best[1 : n + 1]
        else:
            status[b] = edmonds(scores[b], n, multi_root, weights, enters, nodes, entering_weight, best)
            if status[b] == 0:
                heads[b, :n] = best[1 : n + 1]


@njit(nogil=True, cache=True)
def best_heads_form_a_tree(scores, n, multi_root, best, seen):
    """Fill ``best`` with each word's (smallest) best head; whether these arcs are an allowed tree."""
    roots, possible = 0, True
    for m in range(1, n + 1):
        head = m if np.isnan(scores[m, m]) else _first(scores, m, _maximum(scores, m, 0, n + 1), 0)
        if head == m:  # the diagonal is no head, whatever it holds
            value = max(_maximum(scores, m, 0, m), _maximum(scores, m, m + 1, n + 1))
            head = _first(scores, m, value, 0)
            head = _first(scores, m, value, m + 1) if head == m else head
        best[m] = head
        roots += head == 0
        possible &= scores[m, head] > -np.inf
    if not possible or roots == 0 or (not multi_root and roots > 1):
        return False
    seen[: n + 1] = 0
    for m in range(1, n + 1):
        word = m
        while word != 0 and seen[word] == 0:
            seen[word] = m
            word = best[word]
        if word != 0 and seen[word] == m:
            return False
    return True


@njit(nogil=True, cache=True, fastmath=FAST)
def _maximum(weights, node, start, stop):
    best = weights.dtype.type(-np.inf)
    for u in range(start, stop):
        best = max(best, weights[node, u])
    return best


@njit(nogil=True, cache=True)
def _first(weights, node, value, start):
    u = start
    while weights[node, u] != value:
        u += 1
    return u


@njit(nogil=True, cache=True)
def edmonds(scores, n, multi_root, weights, enters, nodes, entering_weight, heads):
    """Grow a path backwards from each word, contract the cycles it closes, and expand them in the end.

    ``heads`` holds each word's best head, and on return its head in the tree.
    """
    size = n + 1
    finished = np.zeros(2 * size, np.bool_)
    on_path = np.zeros(2 * size, np.bool_)
    finished[0] = True
    for v in range(1, size):
        for u in range(size):
            weights[v, u] = scores[v, u]
            enters[v, u] = v
        weights[v, v] = -np.inf
    for v in range(size):
        nodes[NODE_OF, v] = nodes[FIRST, v] = nodes[LAST, v] = v
    created, roots = size, 0
    for start in range(1, size):
        top, node = 0, nodes[NODE_OF, start]
        while not finished[node]:
            if on_path[node]:
                top = _contract(created, node, top, on_path, weights, enters, entering_weight, nodes, size)
                node = created
                created += 1
            if node < size and (multi_root or heads[node] != 0):
                head = heads[node]
            else:
                head = _best_head(weights, node, size, multi_root)
            if weights[node, head] == -np.inf:
                return NO_TREE
            roots += head == 0
            nodes[ENTERING_HEAD, node], nodes[ENTERING_WORD, node] = head, enters[node, head]
            entering_weight[node] = weights[node, head]
            on_path[node] = True
            nodes[PATH, top] = node
            top += 1
            node = nodes[NODE_OF, head]
        for k in range(top):
            finished[nodes[PATH, k]] = True
            on_path[nodes[PATH, k]] = False
    if not multi_root and roots > 1:
        return NO_TREE
    _expand(created, nodes, finished, heads)
    return 0


@njit(nogil=True, cache=True)
def _best_head(weights, node, size, multi_root):
    """Smallest among the best heads; with one root word, the root only if there is no other."""
    start = 0 if multi_root else 1
    best = _maximum(weights, node, start, size)
    return _first(weights, node, best, start) if best > -np.inf else 0


@njit(nogil=True, cache=True)
def _contract(merged, node, top, on_path, weights, enters, entering_weight, nodes, size):
    """Merge the cycle from ``node`` to the path's end into node ``merged``; the path's new length."""
    for u in range(size):
        weights[merged, u] = -np.inf
    width = weights.shape[1]
    front = back = -1
    while True:
        top -= 1
        part = nodes[PATH, top]
        on_path[part] = False
        nodes[PARENT, part] = merged
        source, target = uintp(part * width), uintp(merged * width)
        keep_greater(weights, enters, entering_weight[part], source, target, uintp(width // LANES))
        if front < 0:
            front = nodes[FIRST, part]
        else:
            nodes[FOLLOWING, back] = nodes[FIRST, part]
        back = nodes[LAST, part]
        if part == node:
            break
    nodes[FIRST, merged], nodes[LAST, merged] = front, back
    word = front
    while True:
        nodes[NODE_OF, word] = merged
        weights[merged, word] = -np.inf
        if word == back:
            return top
        word = nodes[FOLLOWING, word]


@njit(nogil=True, cache=True)
def _expand(created, nodes, broken, heads):
    """Heads of the words: from the last contraction to the first, entering arcs break cycles."""
    broken[:] = False
    for node in range(created - 1, 0, -1):
        if not broken[node]:
            word = nodes[ENTERING_WORD, node]
            heads[word] = nodes[ENTERING_HEAD, node]
            while word != node:
                broken[word] = True
                word = nodes[PARENT, word]
