"""Exact samples of trees on the GPU, one program a sample: for the same seeds, the trees of ``reference``.

What all samples of a sentence share comes first: the inside sums of projective trees, the elimination of all
trees. What is known of a sample (heads, spans to be split) is a vector in registers, and a draw takes all
of its choices at once. Random numbers belong to places, so that nothing hangs on the order of the draws.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels import randomness, reference
from diffdecode.structure.kernels.status import PADDING
from diffdecode.structure.kernels.triton.inside_outside import log_inside_sums
from diffdecode.structure.kernels.triton.launch import on_device_of
from diffdecode.structure.kernels.triton.matrix_tree_in_logs import eliminated, log_partition
from diffdecode.structure.kernels.triton.vectors import at, sizes_for

# The constexpr arguments: WORDS and NODES, powers of two that hold N + 1 and 2 N + 2; MULTI_ROOT.
TREE = tl.constexpr(randomness.TREE)
ROOT = tl.constexpr(randomness.ROOT_SPAN)
RIGHT = tl.constexpr(randomness.RIGHT_SPAN)
LEFT = tl.constexpr(randomness.LEFT_SPAN)
ARC = tl.constexpr(randomness.ARC_SPAN)
STEP = tl.constexpr(randomness.STEP)
FIRST_FACTOR = tl.constexpr(randomness.FIRST_FACTOR)
SECOND_FACTOR = tl.constexpr(randomness.SECOND_FACTOR)


@triton.jit
def uniform(seed, kind, i, j):
    """The number of a place in the seed's stream; see ``randomness``."""
    place = (tl.cast(kind, tl.int64) << 40) + (tl.cast(i, tl.int64) << 20) + j + 1
    mixed = seed.to(tl.uint64) + place.to(tl.uint64) * STEP
    mixed = (mixed ^ (mixed >> 30)) * FIRST_FACTOR
    mixed = (mixed ^ (mixed >> 27)) * SECOND_FACTOR
    return ((mixed ^ (mixed >> 31)) >> 11).to(tl.float64) * 1.1102230246251565e-16


@triton.jit
def draw(logs, index, start, share):
    """The index at this share of the sum of ``exp(logs)``; ``start`` if there is nothing to choose from."""
    peak = tl.max(logs, axis=0)
    parts = tl.exp(logs - tl.where(peak > float("-inf"), peak, 0.0))
    sums = tl.cumsum(parts, axis=0)
    place = tl.sum((sums <= share * tl.max(sums, axis=0)).to(tl.int32), axis=0)
    return tl.minimum(place, tl.max(tl.where(parts > 0, index, start), axis=0))


@triton.jit(do_not_specialize=["size", "batch"])
def split_spans(
    scores, right, left, arcs, lengths, seeds, heads, size, batch,
    WORDS: tl.constexpr, NODES: tl.constexpr, MULTI_ROOT: tl.constexpr,
):  # fmt: skip
    """``heads [S, B, size]`` of projective trees; charts ``[B, size, size]`` as ``inside`` leaves them."""
    sample = tl.program_id(0).to(tl.int64)
    b = sample % batch
    n = tl.load(lengths + b).to(tl.int32)
    seed = tl.load(seeds + sample)
    scores += b * size * size
    right += b * size * size
    left += b * size * size
    arcs += b * size * size
    word = tl.arange(0, WORDS)
    slot = tl.arange(0, NODES)
    head = tl.zeros((WORDS,), tl.int32)
    kinds = tl.full((NODES,), RIGHT, tl.int32)
    starts = tl.zeros((NODES,), tl.int32)
    ends = tl.zeros((NODES,), tl.int32) + n
    top = 1
    if not MULTI_ROOT:
        use = (word > 0) & (word <= n)
        choices = tl.load(scores + word * size, mask=use, other=float("-inf"))
        choices += tl.load(left + size + word, mask=use, other=0.0)
        choices += tl.load(right + word * size + n, mask=use, other=0.0)
        root = draw(choices, word, 1, uniform(seed, ROOT, 0, n))
        kinds = tl.where(slot == 0, LEFT, RIGHT)
        starts = tl.where(slot == 0, 1, root)
        ends = tl.where(slot == 0, root, n)
        top = 2
    while top > 0:
        top -= 1
        i = at(starts, top, slot)
        j = at(ends, top, slot)
        kind = at(kinds, top, slot)
        if i < j:
            # Both parts of a split lie in rows: (i, r) and (r + gap, j), charts being stored on both sides.
            begin = tl.where(kind == RIGHT, i + 1, i)
            stop = tl.where(kind == RIGHT, j + 1, j)
            use = (word >= begin) & (word < stop)
            at_i = i * size + word
            at_j = j * size + word
            what = tl.where(use, kind, TREE)
            is_right = what == RIGHT
            is_left = what == LEFT
            is_arc = what > LEFT
            logs = tl.load(arcs + at_i, mask=is_right, other=0.0)
            logs += tl.load(right + at_j, mask=is_right, other=0.0)
            logs += tl.load(left + at_i, mask=is_left, other=0.0)
            logs += tl.load(arcs + at_j, mask=is_left, other=0.0)
            logs += tl.load(right + at_i, mask=is_arc, other=0.0)
            logs += tl.load(left + at_j + 1, mask=is_arc, other=0.0)
            place = tl.minimum(kind, ARC)
            r = draw(tl.where(use, logs, float("-inf")), word, begin, uniform(seed, place, i, j))
            # ARC is an arc to the right, ARC + 1 one to the left.
            head = tl.where((word == j) & (kind == ARC), i, head)
            head = tl.where((word == i) & (kind == ARC + 1), j, head)
            first = tl.where(kind == RIGHT, ARC, tl.where(kind == LEFT, LEFT, RIGHT))
            second = tl.where(kind == RIGHT, RIGHT, tl.where(kind == LEFT, ARC + 1, LEFT))
            kinds = tl.where(slot == top, first, tl.where(slot == top + 1, second, kinds))
            starts = tl.where(slot == top, i, starts)
            starts = tl.where(slot == top + 1, tl.where(kind > LEFT, r + 1, r), starts)
            ends = tl.where(slot == top, r, tl.where(slot == top + 1, j, ends))
            top += 2
    tl.store(heads + sample * size + word, head.to(tl.int64), mask=word <= n)


@triton.jit(do_not_specialize=["size", "batch"])
def grow_trees(
    given, weights, lengths, seeds, heads, size, batch,
    WORDS: tl.constexpr, MULTI_ROOT: tl.constexpr,
):  # fmt: skip
    """``heads [S, B, size]`` in the order of elimination, as ``reference._grow_tree``.

    ``weights`` as ``eliminate`` leaves them, ``given`` as it finds them.
    """
    sample = tl.program_id(0).to(tl.int64)
    b = sample % batch
    n = tl.load(lengths + b).to(tl.int32)
    seed = tl.load(seeds + sample)
    given += b * size * size
    weights += b * size * size
    word = tl.arange(0, WORDS)
    sums = tl.load(weights + word * size + word, mask=(word > 0) & (word <= n), other=0.0)
    head = tl.zeros((WORDS,), tl.int32)
    ways = tl.zeros((WORDS,), tl.int32)
    for k in range(1, n + 1):
        through = ways == k
        if tl.max(through.to(tl.int32), axis=0) > 0:
            last = tl.min(tl.where(through, word, WORDS), axis=0)
            here = last
            while here != 0:
                here = at(head, here, word)
                last = tl.where(at(ways, here, word) == k, here, last)
            taken = at(head, last, word)
        else:
            first = 0 if MULTI_ROOT else tl.where(k > 1, 1, 0)
            logs = tl.load(weights + k * size + word, mask=(word >= first) & (word < k), other=float("-inf"))
            taken = draw(logs, word, first, uniform(seed, TREE, 0, k))
        head = tl.where(through, k, tl.where(word == k, taken, head))
        pending = through | (word == k)
        while tl.max(pending.to(tl.int32), axis=0) > 0:
            i = tl.min(tl.where(pending, word, WORDS), axis=0)
            h = at(head, i, word)
            later = (word > k) & (word <= n)
            logs = tl.load(weights + i * size + word, mask=later, other=float("-inf"))
            logs += tl.load(weights + word * size + h, mask=later, other=0.0) - sums
            logs = tl.where(word == k, tl.load(given + i * size + h), logs)
            ways = tl.where(word == i, draw(logs, word, k, uniform(seed, TREE, i, k)), ways)
            pending = pending & (word != i)
    tl.store(heads + sample * size + word, head.to(tl.int64), mask=word <= n)


def sample_projective(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """Heads ``[S, B, N]`` of projective trees, and log-partition ``[B]`` but for a constant.

    ``scores [B, N+1, N+1]`` contiguous float64, without NaN or +inf, and ``seeds [S, B]``; a log-partition of
    -inf means that there is no tree. Nothing waits for the device.
    """
    right, left, arcs, scores = log_inside_sums(scores, lengths, multi_root)
    heads = _run(split_spans, (scores, right, left, arcs, lengths), seeds, scores, multi_root)
    row = torch.arange(len(scores), device=scores.device)
    if multi_root:
        return _words_only(heads, lengths), right[row, 0, lengths]
    word = torch.arange(scores.shape[1], device=scores.device)
    by_root = left[:, 1] + scores[:, :, 0] + right[row, lengths]
    by_root = by_root.masked_fill((word < 1) | (word > lengths[:, None]), -torch.inf)
    return _words_only(heads, lengths), reference.log_sum(by_root, 1)


def sample_arborescence(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """Heads ``[S, B, N]`` of trees, and log-partition ``[B]``, as :func:`sample_projective`."""
    given, order, best = reference.matrix_tree_weights(scores, lengths, multi_root)
    weights = eliminated(given, lengths, multi_root)
    found = _run(grow_trees, (given, weights, lengths), seeds, given, multi_root)
    order = order.expand(len(seeds), -1, -1)
    heads = order.gather(2, found.gather(2, order))
    return _words_only(heads, lengths), log_partition(weights, lengths) + best


def _run(kernel, inputs, seeds: Tensor, scores: Tensor, multi_root: bool) -> Tensor:
    """Heads ``[S, B, N+1]`` by one program a sample; 0 beyond the sentence."""
    samples, (batch, size, _) = len(seeds), scores.shape
    heads = torch.zeros(samples, batch, size, dtype=torch.int64, device=scores.device)
    sizes = sizes_for(kernel, size)
    with on_device_of(scores):
        kernel[(samples * batch,)](
            *inputs, seeds.contiguous(), heads, size, batch, **sizes, MULTI_ROOT=multi_root
        )
    return heads


def _words_only(heads: Tensor, lengths: Tensor) -> Tensor:
    word = torch.arange(1, heads.shape[2], device=heads.device)
    return heads[:, :, 1:].masked_fill(word > lengths[:, None], PADDING)
