"""Chu-Liu/Edmonds on the CPU in O(N^2): the algorithm of ``reference._edmonds``, step for step."""

import numpy as np
from numba import uintp

from diffdecode.structure.kernels.numba.compiled import kernel, part
from diffdecode.structure.kernels.numba.memory import empty
from diffdecode.structure.kernels.numba.vectors import FLOAT64_LANES as LANES
from diffdecode.structure.kernels.numba.vectors import greatest, keep_greater, place_of
from diffdecode.structure.kernels.status import NO_TREE, OK, PADDING, UNUSUAL

# Rows of ``nodes``: the node that holds a word; and for each node, the cycle that it is part of, the head of
# its entering arc, its best head beside the root, the word that the root would enter, and the words that it
# holds (a linked list through ``FOLLOWING``), and its state. ``PATH`` and ``ROOTED`` are lists of nodes.
NODE_OF, CYCLE, HEAD, OTHER_HEAD, ROOT_ENTERS, FIRST, LAST, FOLLOWING, STATE, PATH, ROOTED = range(11)
# Rows of ``values``: for each node, the weights of its entering arc, of the root's and of the best other one.
ENTERING, ROOT, OTHER = range(3)
# States of a node.
NEW, ON_PATH, FINISHED, BROKEN = range(4)


@kernel(
    "int64, int64, float32[:,:,::1], float64[:,:,::1], int64[::1], boolean, float64, int64[:,::1], int8[::1]"
)
def arborescence(memory, start, stop, scores32, scores64, lengths, multi_root, largest, heads, status):
    """Fill ``heads [B, N]`` and ``status [B]`` for the sentences ``start <= b < stop``.

    Either array holds the scores, and the other nothing: all but reading them is the same.
    """
    size = heads.shape[1] + 1
    row = (size + LANES - 1) // LANES * LANES
    weights = empty(memory, (2 * size, row), np.float64)
    values = empty(memory, (3, 2 * size), np.float64)
    enters = empty(memory, (2 * size, row), np.int32)
    nodes = empty(memory, (11, 2 * size), np.int32)
    for b in range(start, stop):
        status[b] = edmonds(
            scores32, scores64, b, lengths[b] + 1, multi_root, largest, weights, enters, nodes, values, heads
        )


@part()
def edmonds(scores32, scores64, b, size, multi_root, largest, weights, enters, nodes, values, heads):
    """Fill ``heads[b]`` with the best tree over the positions below ``size``; the status.

    ``weights[node, u]`` is the best arc from word ``u`` into a node, ``enters[node, u]`` the word it enters.
    """
    for m in range(heads.shape[1]):
        heads[b, m] = PADDING
    created = 0
    status = _every_word_by_itself(scores32, scores64, b, size, largest, weights, enters, nodes, values)
    if status == OK:
        created = _grow_paths(size, weights, enters, nodes, values)
        if created > 0 and not multi_root:
            created = _leave_one_root(created, size, weights, enters, nodes, values)
        if created == 0:
            status = NO_TREE
    for node in range(created - 1, 0, -1):  # from the last contraction to the first, arcs break cycles
        if nodes[STATE, node] != BROKEN:
            head = nodes[HEAD, node]
            word = enters[node, head] if head > 0 else nodes[ROOT_ENTERS, node]
            heads[b, word - 1] = head
            while word != node:
                nodes[STATE, word] = BROKEN
                word = nodes[CYCLE, word]
    return status


@part()
def _every_word_by_itself(scores32, scores64, b, size, largest, weights, enters, nodes, values):
    """Nodes of one word with their best entering arcs; ``NO_TREE`` or ``UNUSUAL`` unless all have one."""
    possible, unusual = True, False
    nodes[NODE_OF, 0], nodes[STATE, 0] = 0, FINISHED
    for v in range(1, size):
        if len(scores64) > 0:
            for u in range(size):
                weights[v, u] = scores64[b, v, u]
        else:
            for u in range(size):
                weights[v, u] = scores32[b, v, u]
        for u in range(size, weights.shape[1]):
            weights[v, u] = -np.inf
        weights[v, v] = -np.inf
        for u in range(size):
            enters[v, u] = v
            score = weights[v, u]
            unusual |= not ((score <= largest) & ((score >= -largest) | (score == -np.inf)))
        values[ROOT, v] = weights[v, 0]
        weights[v, 0] = -np.inf
        nodes[NODE_OF, v] = nodes[ROOT_ENTERS, v] = nodes[FIRST, v] = nodes[LAST, v] = v
        nodes[STATE, v] = NEW
        possible = possible and not unusual and _choose(v, size, weights, nodes, values)
    if unusual:
        return UNUSUAL
    return OK if possible else NO_TREE


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
def _grow_paths(size, weights, enters, nodes, values):
    """Follow best arcs backwards from each word and contract cycles; the number of nodes, 0 for no tree."""
    created = size
    for start in range(1, size):
        top, node = 0, nodes[NODE_OF, start]
        while nodes[STATE, node] != FINISHED:
            if nodes[STATE, node] == ON_PATH:
                top = _contract(created, node, top, size, weights, enters, nodes, values)
                node = created
                created += 1
                if not _choose(node, size, weights, nodes, values):
                    return 0
            nodes[STATE, node] = ON_PATH
            nodes[PATH, top] = node
            top += 1
            node = nodes[NODE_OF, nodes[HEAD, node]]
        for k in range(top):
            nodes[STATE, nodes[PATH, k]] = FINISHED
    return created


@part()
def _leave_one_root(created, size, weights, enters, nodes, values):
    """Take arcs from the root until one is left; the number of nodes, 0 for no tree."""
    roots = 0
    for word in range(1, size):
        node = nodes[NODE_OF, word]
        if nodes[HEAD, node] == 0 and nodes[STATE, node] == FINISHED:
            nodes[STATE, node] = NEW  # listed
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
            _contract(created, node, top, size, weights, enters, nodes, values)
            if not _choose(created, size, weights, nodes, values):
                return 0
            nodes[HEAD, created] = 0
            nodes[ROOTED, place] = created
            created += 1
    return created


@part()
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
def _contract(merged, node, top, size, weights, enters, nodes, values):
    """Merge the cycle from ``node`` to the path's end into node ``merged``; the path's new length."""
    row, vectors = weights.shape[1], uintp((size + LANES - 1) // LANES)
    for u in range(row):
        weights[merged, u] = -np.inf
    values[ROOT, merged], nodes[STATE, merged] = -np.inf, NEW
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
