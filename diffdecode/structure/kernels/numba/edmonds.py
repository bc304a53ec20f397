"""Chu-Liu/Edmonds on the CPU in O(N^2): the algorithm of ``reference._edmonds``, step for step."""

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.checks import status_of_scores
from diffdecode.structure.kernels.numba.compiled import inlined, kernel, part
from diffdecode.structure.kernels.numba.vectors import FLOAT64_LANES as LANES
from diffdecode.structure.kernels.numba.vectors import greatest, keep_greater, place_of
from diffdecode.structure.kernels.status import NO_TREE, PADDING

# Rows of ``nodes``: the node that holds a word; and for each node, the cycle that it is part of, the head of
# its entering arc, its best head beside the root, the word that the root would enter, and the words that it
# holds (a linked list through ``FOLLOWING``). ``PATH`` and ``ROOTED`` are lists of nodes.
NODE_OF, CYCLE, HEAD, OTHER_HEAD, ROOT_ENTERS, FIRST, LAST, FOLLOWING, PATH, ROOTED = range(10)
# Rows of ``values``: for each node, the weights of its entering arc, of the root's and of the best other one.
ENTERING, ROOT, OTHER = range(3)
# States of a node.
NEW, ON_PATH, FINISHED, BROKEN = range(4)


@kernel()
def arborescence(start, stop, scores, lengths, multi_root, largest, heads, status):
    """Fill ``heads [B, N]`` and ``status [B]`` for the sentences ``start <= b < stop``."""
    size = scores.shape[1]
    weights = np.empty((2 * size, (size + LANES - 1) // LANES * LANES))
    enters = np.empty(weights.shape, np.int32)
    nodes, values = np.empty((10, 2 * size), np.int32), np.empty((3, 2 * size))
    state = np.empty(2 * size, np.int8)
    for b in range(start, stop):
        heads[b] = PADDING
        status[b] = status_of_scores(scores, b, lengths[b], largest)
        if status[b] == 0:
            found = edmonds(
                scores[b], lengths[b] + 1, multi_root, weights, enters, nodes, values, state, heads[b]
            )
            status[b] = 0 if found else NO_TREE


@part()
def edmonds(scores, size, multi_root, weights, enters, nodes, values, state, heads):
    """Fill ``heads`` with the best tree over the positions below ``size``; whether there is one.

    ``weights[node, u]`` is the best arc from word ``u`` into a node, ``enters[node, u]`` the word it enters.
    """
    if not _every_word_by_itself(scores, size, weights, enters, nodes, values, state):
        return False
    created = _grow_paths(size, weights, enters, nodes, values, state)
    if created > 0 and not multi_root:
        created = _leave_one_root(created, size, weights, enters, nodes, values, state)
    if created > 0:
        _expand(created, enters, nodes, state, heads)
    return created > 0


@part()
def _every_word_by_itself(scores, size, weights, enters, nodes, values, state):
    """Nodes of one word with their best entering arcs; whether each has one."""
    possible = True
    nodes[NODE_OF, 0], state[0] = 0, FINISHED
    for v in range(1, size):
        for u in range(size):
            weights[v, u] = scores[v, u]
        for u in range(size, (size + LANES - 1) // LANES * LANES):
            weights[v, u] = -np.inf
        for u in range(size):
            enters[v, u] = v
        weights[v, 0] = weights[v, v] = -np.inf
        values[ROOT, v] = scores[v, 0]
        nodes[NODE_OF, v] = nodes[ROOT_ENTERS, v] = nodes[FIRST, v] = nodes[LAST, v] = v
        state[v] = NEW
        possible &= _choose(v, size, weights, nodes, values)
    return possible


@part()
def _choose(node, size, weights, nodes, values):
    """Let a node's best arc enter it, of equal ones that from the smallest head; whether it has one."""
    row = uintp(node * weights.shape[1])
    root, other = values[ROOT, node], greatest(weights, row, uintp((size + LANES - 1) // LANES))
    values[OTHER, node], nodes[OTHER_HEAD, node] = other, place_of(weights, other, row)
    values[ENTERING, node] = max(root, other)
    nodes[HEAD, node] = 0 if root >= other else nodes[OTHER_HEAD, node]
    return values[ENTERING, node] > -np.inf


@part()
def _grow_paths(size, weights, enters, nodes, values, state):
    """Follow best arcs backwards from each word and contract cycles; the number of nodes, 0 for no tree."""
    created = size
    for start in range(1, size):
        top, node = 0, nodes[NODE_OF, start]
        while state[node] != FINISHED:
            if state[node] == ON_PATH:
                top = _contract(created, node, top, size, weights, enters, nodes, values, state)
                node = created
                created += 1
                if not _choose(node, size, weights, nodes, values):
                    return 0
            state[node] = ON_PATH
            nodes[PATH, top] = node
            top += 1
            node = nodes[NODE_OF, nodes[HEAD, node]]
        for k in range(top):
            state[nodes[PATH, k]] = FINISHED
    return created


@part()
def _leave_one_root(created, size, weights, enters, nodes, values, state):
    """Take arcs from the root until one is left; the number of nodes, 0 for no tree."""
    roots = 0
    for word in range(1, size):
        node = nodes[NODE_OF, word]
        if nodes[HEAD, node] == 0 and state[node] == FINISHED:
            state[node] = NEW  # listed
            nodes[ROOTED, roots] = node
            roots += 1
    while roots > 1:
        place = _smallest_loss(roots, nodes, values)
        if place < 0:
            return 0
        node = nodes[ROOTED, place]
        nodes[HEAD, node], values[ENTERING, node] = nodes[OTHER_HEAD, node], values[OTHER, node]
        top, above = 0, node
        while above != 0 and (top == 0 or above != node):
            nodes[PATH, top] = above
            top += 1
            above = nodes[NODE_OF, nodes[HEAD, above]]
        if above == 0:
            roots -= 1
            nodes[ROOTED, place] = nodes[ROOTED, roots]
        else:
            _contract(created, node, top, size, weights, enters, nodes, values, state)
            if not _choose(created, size, weights, nodes, values):
                return 0
            nodes[HEAD, created] = 0
            nodes[ROOTED, place] = created
            created += 1
    return created


@inlined()
def _smallest_loss(roots, nodes, values):
    """Where the rooted node is that loses least with its best other arc; -1 if none has another one."""
    place, smallest = -1, np.inf
    for k in range(roots):
        node = nodes[ROOTED, k]
        loss = values[ROOT, node] - values[OTHER, node]
        if loss < smallest:
            place, smallest = k, loss
    return place


@part()
def _contract(merged, node, top, size, weights, enters, nodes, values, state):
    """Merge the cycle from ``node`` to the path's end into node ``merged``; the path's new length."""
    row, vectors = weights.shape[1], uintp((size + LANES - 1) // LANES)
    weights[merged] = -np.inf
    values[ROOT, merged], state[merged] = -np.inf, NEW
    front = back = -1
    part = -1
    while part != node:
        top -= 1
        part = nodes[PATH, top]
        nodes[CYCLE, part] = merged
        inside = values[ENTERING, part]
        keep_greater(weights, enters, inside, uintp(part * row), uintp(merged * row), vectors)
        if values[ROOT, part] - inside > values[ROOT, merged]:
            values[ROOT, merged] = values[ROOT, part] - inside
            nodes[ROOT_ENTERS, merged] = nodes[ROOT_ENTERS, part]
        if front < 0:
            front = nodes[FIRST, part]
        else:
            nodes[FOLLOWING, back] = nodes[FIRST, part]
        back = nodes[LAST, part]
    nodes[FIRST, merged], nodes[LAST, merged], nodes[FOLLOWING, back] = front, back, -1
    word = front
    while word >= 0:
        nodes[NODE_OF, word] = merged
        weights[merged, word] = -np.inf
        word = nodes[FOLLOWING, word]
    return top


@inlined()
def _expand(created, enters, nodes, state, heads):
    """Heads of the words: from the last contraction to the first, entering arcs break cycles."""
    for node in range(created - 1, 0, -1):
        if state[node] != BROKEN:
            head = nodes[HEAD, node]
            word = enters[node, head] if head > 0 else nodes[ROOT_ENTERS, node]
            heads[word - 1] = head
            while word != node:
                state[word] = BROKEN
                word = nodes[CYCLE, word]
