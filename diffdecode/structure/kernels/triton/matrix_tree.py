"""Matrix-tree marginals on the GPU: one program a sentence, two launches a batch whatever the lengths.

The elimination of ``reference.matrix_tree_log_partition`` on logarithms in float64, and its way back, word by
word: the rows and columns of the words that are left are updated a tile at a time, and a barrier separates
one word from the next. Nothing is subtracted on the way there. On the way back only probabilities are,
where the head of an eliminated word is shared out, so that marginals are exact to the rounding of the scores.

The covariance product is the derivative of the marginals along a vector: with ``ALONG``, both passes carry
the derivatives of all values, which lie ``shift`` elements behind these.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels import reference
from diffdecode.structure.kernels.triton.launch import on_device_of
from diffdecode.structure.kernels.triton.logs import along_of, load, log_add, log_of, log_plus, store

# The constexpr arguments: WORDS and HEADS of a tile, powers of two; FIRST, 0 if the root may have several
# dependents, else 1; ALONG. None depends on the size: one kernel does for all.


@triton.jit(do_not_specialize=["size", "shift"])
def eliminate(
    weights, lengths, size, shift,
    WORDS: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, ALONG: tl.constexpr,
):  # fmt: skip
    """Reroute the arcs through words ``n .. 1`` in place: ``weights [B, size, size]`` are logarithms.

    Afterwards ``weights[k]`` is the row, and ``weights[:, k]`` the column, that word ``k`` had when it was
    eliminated, and ``weights[k, k]`` what its arcs added up to.
    """
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    weights += b * size * size
    lowest = float("-inf")
    for back in range(0, n):
        k = n - back
        first = tl.where(k > 1, FIRST, 0)
        peak = tl.full((1,), float("-inf"), tl.float64)
        total = tl.zeros((1,), tl.float64)
        slope = tl.zeros((1,), tl.float64)
        for start in range(0, k, HEADS):
            h = start + tl.arange(0, HEADS)
            x, x_along = load(weights + k * size + h, (h >= first) & (h < k), lowest, shift, ALONG)
            peak, total, slope = log_add(peak, total, slope, x[None, :], x_along[None, :])
        all_k = tl.sum(log_of(peak, total), axis=0)
        all_k_along = tl.sum(along_of(total, slope), axis=0)
        store(weights + k * size + k, all_k, all_k_along, n > 0, shift, ALONG)
        all_k = tl.where(all_k > float("-inf"), all_k, 0.0)
        for begin in range(1, k, WORDS):
            i = begin + tl.arange(0, WORDS)
            to_k, to_k_along = load(weights + i * size + k, i < k, lowest, shift, ALONG)
            to_k -= all_k
            to_k_along -= all_k_along
            for start in range(0, k, HEADS):
                h = start + tl.arange(0, HEADS)
                x, x_along = load(weights + k * size + h, h < k, lowest, shift, ALONG)
                at = weights + i[:, None] * size + h[None, :]
                use = (i < k)[:, None] & (h < k)[None, :] & (i[:, None] != h[None, :])
                direct, direct_along = load(at, use, lowest, shift, ALONG)
                both, both_along = log_plus(
                    direct, direct_along, to_k[:, None] + x[None, :], to_k_along[:, None] + x_along[None, :]
                )
                store(at, both, both_along, use, shift, ALONG)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["size", "shift"])
def undo(
    weights, adjoints, lengths, size, shift,
    WORDS: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, ALONG: tl.constexpr,
):  # fmt: skip
    """``eliminate`` backwards: logarithms of ``d partition / d weight / partition``, which start at -inf.

    A word ``k`` comes back among the words before it. Of the arcs among these, a part was rerouted
    through ``k``: that part is handed to the arc into ``k`` and to the one out of it. What is left of the
    arcs out of ``k``, ``own``, goes to them in proportion to their weights; where more than one word is to
    be expected below ``k``, it is negative.
    """
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    weights += b * size * size
    adjoints += b * size * size
    lowest = float("-inf")
    for k in range(1, n + 1):
        first = tl.where(k > 1, FIRST, 0)
        all_k, all_k_along = load(weights + k * size + k, n > 0, lowest, shift, ALONG)
        all_k = tl.where(all_k > float("-inf"), all_k, 0.0)
        for begin in range(1, k, WORDS):
            i = begin + tl.arange(0, WORDS)
            peak = tl.full((WORDS,), float("-inf"), tl.float64)
            total = tl.zeros((WORDS,), tl.float64)
            slope = tl.zeros((WORDS,), tl.float64)
            for start in range(0, k, HEADS):
                h = start + tl.arange(0, HEADS)
                use = (i < k)[:, None] & (h < k)[None, :] & (i[:, None] != h[None, :])
                x, x_along = load(weights + k * size + h, h < k, lowest, shift, ALONG)
                y, y_along = load(adjoints + i[:, None] * size + h[None, :], use, lowest, shift, ALONG)
                peak, total, slope = log_add(peak, total, slope, x[None, :] + y, x_along[None, :] + y_along)
            by_i, by_i_along = log_of(peak, total) - all_k, along_of(total, slope) - all_k_along
            store(adjoints + i * size + k, by_i, by_i_along, i < k, shift, ALONG)
        below = tl.zeros((1,), tl.float64)
        below_along = tl.zeros((1,), tl.float64)
        for start in range(0, k, HEADS):
            h = start + tl.arange(0, HEADS)
            peak = tl.full((HEADS,), float("-inf"), tl.float64)
            total = tl.zeros((HEADS,), tl.float64)
            slope = tl.zeros((HEADS,), tl.float64)
            for begin in range(1, k, WORDS):
                i = begin + tl.arange(0, WORDS)
                use = (i < k)[None, :] & (h < k)[:, None] & (i[None, :] != h[:, None])
                x, x_along = load(weights + i * size + k, i < k, lowest, shift, ALONG)
                y, y_along = load(adjoints + i[None, :] * size + h[:, None], use, lowest, shift, ALONG)
                peak, total, slope = log_add(peak, total, slope, x[None, :] + y, x_along[None, :] + y_along)
            through, through_along = log_of(peak, total), along_of(total, slope)
            x, x_along = load(weights + k * size + h, h < k, lowest, shift, ALONG)
            rerouted = tl.exp(through + x - all_k)
            below += tl.sum(rerouted, axis=0)
            below_along += tl.sum(rerouted * (through_along + x_along - all_k_along), axis=0)
            store(adjoints + k * size + h, through, through_along, h < k, shift, ALONG)
        tl.debug_barrier()
        for start in range(0, k, HEADS):
            h = start + tl.arange(0, HEADS)
            through, through_along = load(adjoints + k * size + h, h < k, lowest, shift, ALONG)
            scale = tl.maximum(through, 0.0)
            part, own = tl.exp(through - scale), tl.exp(-scale)
            whole = part + own * (1 - below)
            kept = whole > 1e-30  # less is a rounding error of the difference
            whole = tl.where(kept, whole, 1.0)
            by_k = tl.where(kept, tl.log(whole) + scale - all_k, float("-inf"))
            by_k_along = tl.where(kept, (part * through_along - own * below_along) / whole - all_k_along, 0.0)
            # A root arc that is no part of the sum gets what was rerouted alone, however little that is.
            by_k = tl.where(h >= first, by_k, through - all_k)
            by_k_along = tl.where(h >= first, by_k_along, through_along - all_k_along)
            store(adjoints + k * size + h, by_k, by_k_along, h < k, shift, ALONG)
        tl.debug_barrier()


def eliminated(given: Tensor, lengths: Tensor, multi_root: bool) -> Tensor:
    """What ``eliminate`` makes of logarithms ``given``, shaped as these.

    ``given [1, B, N+1, N+1]`` contiguous float64; or ``[2, B, N+1, N+1]``, of which the second part is the
    direction of a derivative, finite and 0 where no arc can be.
    """
    weights = given.clone()
    with on_device_of(given):
        eliminate[(given.shape[1],)](weights, lengths, **_options(given, multi_root))
    return weights


def log_partition(weights: Tensor, lengths: Tensor) -> Tensor:
    """``[B]``: the sum of the words' totals in eliminated ``weights [B, N+1, N+1]``."""
    totals = weights.diagonal(0, 1, 2)[:, 1:]
    word = torch.arange(1, weights.shape[1], device=weights.device)
    return totals.masked_fill(word > lengths[:, None], 0).sum(1)


def marginals_and_log_partition(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Arc marginals ``[B, N+1, N+1]`` and log-partition ``[B]``, both float64.

    ``scores [B, N+1, N+1]`` float64, without NaN or +inf where they are read; a log-partition of -inf means
    that there is no tree. Nothing waits for the device.
    """
    given, order, best = reference.matrix_tree_weights(scores, lengths, multi_root)
    weights, adjoints = _there_and_back(given[None], lengths, multi_root)
    marginals = reference.in_order((given + adjoints[0]).exp(), order)
    return marginals, log_partition(weights[0], lengths) + best


def covariance_product(scores: Tensor, lengths: Tensor, multi_root: bool, vector: Tensor) -> Tensor:
    """Covariance of a tree's arcs times ``vector``, both ``[B, N+1, N+1]`` float64.

    ``vector`` is 0 where no arc can be. Nothing waits for the device.
    """
    given, order, _ = reference.matrix_tree_weights(scores, lengths, multi_root)
    direction = reference.in_order(vector, order)
    _, adjoints = _there_and_back(torch.stack([given, direction]), lengths, multi_root)
    return reference.in_order((given + adjoints[0]).exp() * (direction + adjoints[1]), order)


def _there_and_back(given: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Eliminated weights and logarithms of adjoints, shaped as ``given`` (see :func:`eliminated`)."""
    weights = eliminated(given, lengths, multi_root)
    adjoints = torch.zeros_like(given)
    adjoints[0].fill_(-torch.inf)
    with on_device_of(given):
        undo[(given.shape[1],)](weights, adjoints, lengths, **_options(given, multi_root))
    return weights, adjoints


TILE = {"WORDS": 32, "HEADS": 32, "num_warps": 8}


def _options(given: Tensor, multi_root: bool) -> dict[str, int | bool]:
    parts, _, size, _ = given.shape
    return {
        "size": size,
        "shift": given[0].numel(),
        "FIRST": 0 if multi_root else 1,
        "ALONG": parts == 2,
        **TILE,
    }
