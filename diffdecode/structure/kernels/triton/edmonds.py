"""Chu-Liu/Edmonds on the GPU: one program a sentence, one launch a batch, as ``reference._edmonds``.

The algorithm is sequential, but each of its steps is a maximum over one row of weights, which a program
takes at once. What is known of each node (its head, the cycle it is part of, its place on the path) is a
vector in registers; only the rows of weights, and the words that these arcs enter, lie in global memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels import status as statuses
from diffdecode.structure.kernels.triton.launch import on_device_of
from diffdecode.structure.kernels.triton.scores import fault_and_length, look
from diffdecode.structure.kernels.triton.vectors import at, vector_sizes

NO_TREE, PADDING = tl.constexpr(statuses.NO_TREE), tl.constexpr(statuses.PADDING)

# The constexpr arguments: WORDS and NODES, powers of two that hold N + 1 and 2 N + 2; MULTI_ROOT.
# A node's place is its depth on the path, or one of these.
NEW = tl.constexpr(-1)
FINISHED = tl.constexpr(-2)


@triton.jit
def node_in(places, depth, node):
    """The node at this depth of the path."""
    return tl.sum(tl.where(places == depth, node, tl.zeros_like(node)), axis=0)


@triton.jit
def contract(
    weights, enters, merged, top, bottom, places, node_of, entering, root, root_enters, size, word, node
):
    """Merge the path from depth ``bottom`` to its end; ``node_of``, and the root's arc and best other arc."""
    inside = word < size
    part = node_in(places, top - 1, node)
    cut = at(entering, part, node)
    best = tl.load(weights + part * size + word, mask=inside, other=float("-inf")) - cut
    names = tl.load(enters + part * size + word, mask=inside, other=0)
    best_root = at(root, part, node) - cut
    root_word = at(root_enters, part, node)
    members = node_of == part
    for back in range(1, top - bottom):
        part = node_in(places, top - 1 - back, node)
        cut = at(entering, part, node)
        gain = tl.load(weights + part * size + word, mask=inside, other=float("-inf")) - cut
        name = tl.load(enters + part * size + word, mask=inside, other=0)
        names = tl.where(gain > best, name, names)
        best = tl.maximum(best, gain)
        gain_root = at(root, part, node) - cut
        root_word = tl.where(gain_root > best_root, at(root_enters, part, node), root_word)
        best_root = tl.maximum(best_root, gain_root)
        members = members | (node_of == part)
    best = tl.where(members, float("-inf"), best)
    tl.store(weights + merged * size + word, best, mask=inside)
    tl.store(enters + merged * size + word, names, mask=inside)
    tl.debug_barrier()
    node_of = tl.where(members, merged, node_of)
    return node_of, best_root, root_word, tl.max(best, axis=0), tl.argmax(best, axis=0)


@triton.jit(do_not_specialize=["size"])
def best_arborescence(
    scores, weights, enters, lengths, heads, status, size,
    WORDS: tl.constexpr, NODES: tl.constexpr, MULTI_ROOT: tl.constexpr,
    LARGEST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``heads [B, size-1]`` and ``status [B]``.

    ``scores [B, size, size]``, ``weights`` and ``enters [B, 2 size, size]``.
    """
    b = tl.program_id(0).to(tl.int64)
    scores += b * size * size
    fault, n = fault_and_length(scores, lengths + b, size, LARGEST, ROWS, COLUMNS)
    weights += b * 2 * size * size
    enters += b * 2 * size * size
    heads += b * (size - 1)
    word = tl.arange(0, WORDS)
    tl.store(heads + word, PADDING, mask=word < size - 1)
    node = tl.arange(0, NODES)
    node_of = word
    cycle = tl.zeros((NODES,), tl.int32)
    head = tl.zeros((NODES,), tl.int32)
    other_head = tl.zeros((NODES,), tl.int32)
    root_enters = node
    entering = tl.full((NODES,), float("-inf"), tl.float64)
    root = tl.full((NODES,), float("-inf"), tl.float64)
    other = tl.full((NODES,), float("-inf"), tl.float64)
    places = tl.where(node == 0, FINISHED, NEW)
    possible = n > 0
    for v in range(1, n + 1):
        is_head = (word > 0) & (word <= n) & (word != v)
        row = tl.load(scores + v * size + word, mask=is_head, other=float("-inf")).to(tl.float64)
        tl.store(weights + v * size + word, row, mask=word < size)
        tl.store(enters + v * size + word, tl.zeros_like(word) + v, mask=word < size)
        by_root = tl.load(scores + v * size).to(tl.float64)
        by_other = tl.max(row, axis=0)
        root = tl.where(node == v, by_root, root)
        other = tl.where(node == v, by_other, other)
        other_head = tl.where(node == v, tl.argmax(row, axis=0), other_head)
        possible = possible & (tl.maximum(by_root, by_other) > float("-inf"))
    tl.debug_barrier()
    entering = tl.maximum(root, other)
    head = tl.where(root >= other, 0, other_head)

    # Follow best arcs backwards from each word, and contract the cycles.
    created = n + 1
    for start in range(1, n + 1):
        top = 0
        here = at(node_of, start, word)
        while possible & (at(places, here, node) != FINISHED):
            bottom = at(places, here, node)
            if bottom >= 0:
                node_of, by_root, root_word, by_other, from_other = contract(
                    weights, enters, created, top, bottom, places, node_of, entering, root, root_enters,
                    size, word, node,
                )  # fmt: skip
                cycle = tl.where(places >= bottom, created, cycle)
                places = tl.where(places >= bottom, NEW, places)
                root = tl.where(node == created, by_root, root)
                root_enters = tl.where(node == created, root_word, root_enters)
                other = tl.where(node == created, by_other, other)
                other_head = tl.where(node == created, from_other, other_head)
                entering = tl.where(node == created, tl.maximum(by_root, by_other), entering)
                head = tl.where(node == created, tl.where(by_root >= by_other, 0, from_other), head)
                possible = tl.maximum(by_root, by_other) > float("-inf")
                here = created
                created += 1
                top = bottom
            places = tl.where(node == here, top, places)
            top += 1
            here = at(node_of, at(head, here, node), word)
        places = tl.where(places >= 0, FINISHED, places)

    if not MULTI_ROOT:
        # Take arcs from the root, always the one that is missed least, until one is left. ``rank`` keeps
        # the order in which the reference lists the nodes on the root.
        rank = tl.full((NODES,), -1, tl.int32)
        roots = 0
        for v in range(1, n + 1):
            top_node = at(node_of, v, word)
            new = (at(head, top_node, node) == 0) & (at(rank, top_node, node) < 0)
            rank = tl.where((node == top_node) & new, roots, rank)
            roots += tl.where(new, 1, 0)
        while possible & (roots > 1):
            loss = tl.where(rank >= 0, root - other, float("inf"))
            least = tl.min(loss, axis=0)
            place = tl.min(tl.where((loss == least) & (rank >= 0), rank, NODES), axis=0)
            possible = least < float("inf")
            first = node_in(rank, place, node)
            entering = tl.where(node == first, other, entering)
            head = tl.where(node == first, other_head, head)
            places = tl.full((NODES,), -1, tl.int32)
            places = tl.where(node == first, 0, places)
            top = 1
            here = at(node_of, at(head, first, node), word)
            while possible & (here != 0) & (here != first):
                places = tl.where(node == here, top, places)
                top += 1
                here = at(node_of, at(head, here, node), word)
            rank = tl.where(node == first, -1, rank)
            if possible & (here == 0):
                roots -= 1
                rank = tl.where(rank == roots, place, rank)
            if possible & (here == first):
                node_of, by_root, root_word, by_other, from_other = contract(
                    weights, enters, created, top, 0, places, node_of, entering, root, root_enters,
                    size, word, node,
                )  # fmt: skip
                cycle = tl.where(places >= 0, created, cycle)
                root = tl.where(node == created, by_root, root)
                root_enters = tl.where(node == created, root_word, root_enters)
                other = tl.where(node == created, by_other, other)
                other_head = tl.where(node == created, from_other, other_head)
                head = tl.where(node == created, 0, head)
                rank = tl.where(node == created, place, rank)
                possible = tl.maximum(by_root, by_other) > float("-inf")
                created += 1

    # From the last contraction to the first, entering arcs break cycles.
    tl.store(status + b, tl.where((n > 0) & (possible == 0), NO_TREE, fault).to(tl.int8))
    broken = tl.zeros((NODES,), tl.int32)
    for back in range(1, created):
        here = created - back
        if possible & (at(broken, here, node) == 0):
            from_word = at(head, here, node)
            named = tl.load(enters + here * size + from_word)
            entered = tl.where(from_word > 0, named, at(root_enters, here, node))
            tl.store(heads + entered - 1, from_word.to(tl.int64))
            while entered != here:
                broken = tl.where(node == entered, 1, broken)
                entered = at(cycle, entered, node)


def best_trees(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Heads ``[B, N]`` of the best trees (-1 beyond the length), and status ``[B]``.

    ``scores [B, N+1, N+1]`` contiguous, float32 or float64. Heads of a bad sentence mean nothing. Nothing
    waits for the device.
    """
    batch, size, _ = scores.shape
    card = scores.device
    weights = torch.empty(batch, 2 * size, size, dtype=torch.float64, device=card)
    enters = torch.empty(batch, 2 * size, size, dtype=torch.int32, device=card)
    heads = torch.empty(batch, size - 1, dtype=torch.int64, device=card)
    status = torch.empty(batch, dtype=torch.int8, device=card)
    with on_device_of(scores):
        best_arborescence[(batch,)](
            scores, weights, enters, lengths, heads, status, size,
            MULTI_ROOT=multi_root, **vector_sizes(size), **look(scores),
        )  # fmt: skip
    return heads, status
