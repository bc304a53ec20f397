"""Matrix-tree marginals on the GPU: one program a sentence, two launches a batch whatever the lengths.

As the kernels of the CPU (``numba/matrix_tree.py``): words are eliminated, and brought back, on weights in
float64, a word's best one being 1, without a logarithm. The rows and columns of the words that are left are
updated a tile at a time, and a barrier separates one word from the next. Where that loses digits, the
second launch does the sentence again on logarithms (``matrix_tree_in_logs``); elsewhere its programs return
at once, so that nobody has to wait to know.

The covariance product is the derivative of the marginals along a vector: with it, both ways carry the
derivatives of all values, which lie ``shift`` elements behind these.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels import status as statuses
from diffdecode.structure.kernels.triton import matrix_tree_in_logs as in_logs
from diffdecode.structure.kernels.triton.launch import on_device_of
from diffdecode.structure.kernels.triton.logs import load, store

# The constexpr arguments: WORDS and HEADS of a tile, powers of two; FIRST, 0 if the root may have several
# dependents, else 1; ALONG; IN_LOGS. None depends on the size: one kernel does for all.
OK, NO_TREE = tl.constexpr(statuses.OK), tl.constexpr(statuses.NO_TREE)
NOT_A_SCORE, TOO_LARGE = tl.constexpr(statuses.NOT_A_SCORE), tl.constexpr(statuses.TOO_LARGE)
LOST_DIGITS = tl.constexpr(statuses.LOST_DIGITS)
LARGEST = tl.constexpr(statuses.LARGEST_SUMMABLE[torch.float64])  # scores are added in float64
SMALLEST, LARGEST_PIVOT = tl.constexpr(1e-100), tl.constexpr(1e100)
ROUNDING = tl.constexpr(1e-14)  # for each word, what may be lost in a sum of probabilities
eliminate_in_logs, undo_in_logs = in_logs.eliminate, in_logs.undo


@triton.jit(do_not_specialize=["size"])
def tree_marginals(
    scores, vector, lengths, work, marginals, product, log_partitions, status, size,
    WORDS: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, IN_LOGS: tl.constexpr,
):  # fmt: skip
    """Sentence ``program_id(0)`` of ``status [B]``, and of these, where they are wanted.

    ``marginals`` and ``product [B, size, size]``, which has the covariance times ``vector [B, size, size]``,
    both 0 where no arc is or where the status is bad; ``log_partitions [B]``.

    ``work [B, 2, size, size]``, and twice that with a vector. ``IN_LOGS``: what is to be done again.
    """
    ALONG: tl.constexpr = vector is not None
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    if IN_LOGS:  # noqa: SIM102 (to Triton, the outer one is known when it compiles)
        if tl.load(status + b) != LOST_DIGITS:
            return
    square = size * size
    shift = 2 * square
    weights = work + b * (4 if ALONG else 2) * square
    adjoints = weights + square
    scores += b * square
    if ALONG:
        vector += b * square
    fault, front, best = look_at_words(scores, weights, n, size, WORDS, HEADS)
    n = tl.where(fault == OK, n, 0)
    if FIRST == 0 or IN_LOGS:
        front = 1
    copy_weights(scores, vector, weights, front, n, size, shift, WORDS, HEADS, IN_LOGS)
    tl.debug_barrier()
    if IN_LOGS:
        front = eliminate_in_logs(weights, n, size, shift, WORDS, HEADS, FIRST, ALONG)
        found = n
    else:
        found = tl.where(eliminate(weights, n, size, shift, WORDS, HEADS, FIRST, ALONG), n, 0)
    total = log_of_totals(weights, found, size, HEADS, IN_LOGS)
    if IN_LOGS:
        found = tl.where(total > float("-inf"), n, 0)
        undo_in_logs(weights, adjoints, found, size, shift, WORDS, HEADS, FIRST, ALONG)
    else:
        undo(weights, adjoints, found, size, shift, WORDS, HEADS, FIRST, ALONG)
    if marginals is not None:
        marginals += b * square
    if ALONG:
        product += b * square
    kept = put_back(
        scores, vector, weights, adjoints, front, marginals, product, found, size, shift, WORDS, HEADS, FIRST,
        IN_LOGS,
    )  # fmt: skip
    result = tl.where(found == n, OK, NO_TREE) if IN_LOGS else tl.where((found == n) & kept, OK, LOST_DIGITS)
    tl.store(status + b, tl.where(fault == OK, result, fault).to(tl.int8))
    if log_partitions is not None:
        tl.store(log_partitions + b, tl.where(found > 0, total + best, float("-inf")))


@triton.jit
def look_at_words(scores, best, n, size, WORDS: tl.constexpr, HEADS: tl.constexpr):
    """Put each word's best score in ``best [size]``, 0 if it has none.

    Returns the status of the scores; the word whose root arc comes closest to being its best (as the one
    that is eliminated last, it leaves no tiny pivot); the sum of the best scores.
    """
    no_score = tl.zeros((WORDS, HEADS), tl.int32)
    large = tl.zeros((WORDS, HEADS), tl.int32)
    margin = tl.full((WORDS,), float("-inf"), tl.float64)
    root = tl.full((WORDS,), 1, tl.int32)
    total = tl.zeros((WORDS,), tl.float64)
    for begin in range(1, n + 1, WORDS):
        m = begin + tl.arange(0, WORDS)
        peaks = tl.full((WORDS, HEADS), float("-inf"), tl.float64)
        for start in range(0, n + 1, HEADS):
            h = (start + tl.arange(0, HEADS))[None, :]
            score = tl.load(
                scores + m[:, None] * size + h,
                mask=(m <= n)[:, None] & (h <= n) & (m[:, None] != h),
                other=float("-inf"),
            ).to(tl.float64)
            no_score |= ((score != score) | (score == float("inf"))).to(tl.int32)
            large |= ((tl.abs(score) > LARGEST) & (score != float("-inf"))).to(tl.int32)
            peaks = tl.maximum(peaks, score)
        peak = tl.max(peaks, axis=1)
        peak = tl.where(peak > float("-inf"), peak, 0.0)
        tl.store(best + m, peak, mask=m <= n)
        total += peak
        above = tl.load(scores + m * size, mask=m <= n, other=float("-inf")).to(tl.float64) - peak
        root = tl.where(above > margin, m, root)
        margin = tl.maximum(margin, above)
    tl.debug_barrier()
    fault = tl.where(tl.max(tl.max(large, axis=1), axis=0) > 0, TOO_LARGE, OK)
    fault = tl.where(tl.max(tl.max(no_score, axis=1), axis=0) > 0, NOT_A_SCORE, fault)
    root = tl.min(tl.where(margin == tl.max(margin, axis=0), root, n), axis=0)
    return fault, root, tl.sum(total, axis=0)


@triton.jit
def swapped(word, front):
    """The place of ``word`` in an order that swaps ``front`` with word 1; likewise the word at a place."""
    return tl.where(word == 1, front, tl.where(word == front, 1, word))


@triton.jit
def weight_of(scores, vector, best, m, h, use, size, IN_LOGS: tl.constexpr):
    """Weights of arcs, or their logarithms, and derivatives along the vector (which is 0 if it is None)."""
    weight = tl.load(scores + m * size + h, mask=use, other=float("-inf")).to(tl.float64) - best
    use = use & (weight > float("-inf"))
    along = tl.zeros_like(weight)
    if vector is not None:  # where there is no arc, it may hold anything
        along = tl.load(vector + m * size + h, mask=use, other=0.0).to(tl.float64)
    if not IN_LOGS:
        weight = tl.exp(weight)
        along *= weight
    return weight, along


@triton.jit
def copy_weights(
    scores, vector, weights, front, n, size, shift,
    WORDS: tl.constexpr, HEADS: tl.constexpr, IN_LOGS: tl.constexpr,
):  # fmt: skip
    """``weights [size, size]`` in the order in which they are eliminated. Row 0 has the best scores."""
    for begin in range(1, n + 1, WORDS):
        k = (begin + tl.arange(0, WORDS))[:, None]
        m = swapped(k, front)
        best = tl.load(weights + m, mask=k <= n, other=0.0)
        for start in range(0, n + 1, HEADS):
            h = (start + tl.arange(0, HEADS))[None, :]
            use = (k <= n) & (h <= n) & (k != h)
            weight, along = weight_of(scores, vector, best, m, swapped(h, front), use, size, IN_LOGS)
            store(weights + k * size + h, weight, along, use, shift, vector is not None)


@triton.jit
def eliminate(
    weights, n, size, shift,
    WORDS: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, ALONG: tl.constexpr,
):  # fmt: skip
    """Reroute the arcs through words ``n .. 1`` in place, and whether all sums were in range.

    Afterwards ``weights[k]`` is the row, and ``weights[:, k]`` the column, that word ``k`` had when it was
    eliminated, and ``weights[k, k]`` what its arcs added up to.
    """
    k = n
    usual = n > 0
    while (k > 0) & usual:
        first = tl.where(k > 1, FIRST, 0)
        sums = tl.zeros((HEADS,), tl.float64)
        slopes = tl.zeros((HEADS,), tl.float64)
        for start in range(0, k, HEADS):
            h = start + tl.arange(0, HEADS)
            x, x_along = load(weights + k * size + h, (h >= first) & (h < k), 0.0, shift, ALONG)
            sums += x
            slopes += x_along
        pivot, pivot_along = tl.sum(sums, axis=0), tl.sum(slopes, axis=0)
        store(weights + k * size + k, pivot, pivot_along, n > 0, shift, ALONG)
        usual = (pivot > SMALLEST) & (pivot < LARGEST_PIVOT)
        pivot = tl.where(usual, pivot, 1.0)
        for begin in range(1, k, WORDS):
            i = begin + tl.arange(0, WORDS)
            to_k, to_k_along = load(weights + i * size + k, i < k, 0.0, shift, ALONG)
            share = to_k / pivot
            share_along = (to_k_along - share * pivot_along) / pivot
            for start in range(0, k, HEADS):
                h = start + tl.arange(0, HEADS)
                x, x_along = load(weights + k * size + h, h < k, 0.0, shift, ALONG)
                at = weights + i[:, None] * size + h[None, :]
                use = (i < k)[:, None] & (h < k)[None, :] & (i[:, None] != h[None, :])
                direct, direct_along = load(at, use, 0.0, shift, ALONG)
                direct += share[:, None] * x[None, :]
                direct_along += share_along[:, None] * x[None, :] + share[:, None] * x_along[None, :]
                store(at, direct, direct_along, use, shift, ALONG)
        tl.debug_barrier()
        k -= 1
    return usual


@triton.jit
def undo(
    weights, adjoints, n, size, shift,
    WORDS: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, ALONG: tl.constexpr,
):  # fmt: skip
    """``eliminate`` backwards: ``adjoints[i, h] = d log(partition) / d weights[i, h]``.

    A word ``k`` comes back among the words before it. Of the arcs among these, a part was rerouted
    through ``k``: that part is handed to the arc into ``k`` and to the one out of it. What is left of the
    arcs out of ``k``, ``own``, goes to them in proportion to their weights; where more than one word is to
    be expected below ``k``, it is negative.
    """
    for k in range(1, n + 1):
        first = tl.where(k > 1, FIRST, 0)
        pivot, pivot_along = load(weights + k * size + k, n > 0, 1.0, shift, ALONG)
        for begin in range(1, k, WORDS):
            i = begin + tl.arange(0, WORDS)
            sums = tl.zeros((WORDS, HEADS), tl.float64)
            slopes = tl.zeros((WORDS, HEADS), tl.float64)
            for start in range(0, k, HEADS):
                h = start + tl.arange(0, HEADS)
                use = (i < k)[:, None] & (h < k)[None, :] & (i[:, None] != h[None, :])
                x, x_along = load(weights + k * size + h, h < k, 0.0, shift, ALONG)
                y, y_along = load(adjoints + i[:, None] * size + h[None, :], use, 0.0, shift, ALONG)
                sums += x[None, :] * y
                slopes += x_along[None, :] * y + x[None, :] * y_along
            by_i = tl.sum(sums, axis=1) / pivot
            by_i_along = (tl.sum(slopes, axis=1) - by_i * pivot_along) / pivot
            store(adjoints + i * size + k, by_i, by_i_along, i < k, shift, ALONG)
        below = tl.zeros((HEADS,), tl.float64)
        below_along = tl.zeros((HEADS,), tl.float64)
        for start in range(0, k, HEADS):
            h = start + tl.arange(0, HEADS)
            sums = tl.zeros((WORDS, HEADS), tl.float64)
            slopes = tl.zeros((WORDS, HEADS), tl.float64)
            for begin in range(1, k, WORDS):
                i = begin + tl.arange(0, WORDS)
                use = (i < k)[:, None] & (h < k)[None, :] & (i[:, None] != h[None, :])
                x, x_along = load(weights + i * size + k, i < k, 0.0, shift, ALONG)
                y, y_along = load(adjoints + i[:, None] * size + h[None, :], use, 0.0, shift, ALONG)
                sums += x[:, None] * y
                slopes += x_along[:, None] * y + x[:, None] * y_along
            through, through_along = tl.sum(sums, axis=0), tl.sum(slopes, axis=0)
            x, x_along = load(weights + k * size + h, h < k, 0.0, shift, ALONG)
            below += through * x
            below_along += through_along * x + through * x_along
            store(adjoints + k * size + h, through, through_along, h < k, shift, ALONG)
        own = 1 - tl.sum(below, axis=0) / pivot
        own_along = ((1 - own) * pivot_along - tl.sum(below_along, axis=0)) / pivot
        tl.debug_barrier()
        for start in range(0, k, HEADS):
            h = start + tl.arange(0, HEADS)
            through, through_along = load(adjoints + k * size + h, h < k, 0.0, shift, ALONG)
            by_k = (through + tl.where(h >= first, own, 0.0)) / pivot
            by_k_along = through_along + tl.where(h >= first, own_along, 0.0)
            by_k_along = (by_k_along - by_k * pivot_along) / pivot
            store(adjoints + k * size + h, by_k, by_k_along, h < k, shift, ALONG)
        tl.debug_barrier()


@triton.jit
def log_of_totals(weights, n, size, HEADS: tl.constexpr, IN_LOGS: tl.constexpr):
    """The logarithm of the product of what words' arcs added up to."""
    logs = tl.zeros((HEADS,), tl.float64)
    for start in range(1, n + 1, HEADS):
        k = start + tl.arange(0, HEADS)
        total = tl.load(weights + k * size + k, mask=k <= n, other=0.0 if IN_LOGS else 1.0)
        logs += total if IN_LOGS else tl.log(total)
    return tl.sum(logs, axis=0)


@triton.jit
def put_back(
    scores, vector, weights, adjoints, front, marginals, product, n, size, shift,
    WORDS: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, IN_LOGS: tl.constexpr,
):  # fmt: skip
    """Weights times adjoints, in the order of ``scores``, and 0 elsewhere.

    Returns whether they are probabilities: each word has one head, and (``FIRST``) one word is the root word.
    """
    rounding = ROUNDING * (n + 10)
    wrong = tl.zeros((WORDS, HEADS), tl.int32)
    off = tl.zeros((WORDS,), tl.int32)
    roots = tl.zeros((WORDS, HEADS), tl.float64)
    for begin in range(0, size, WORDS):
        m = (begin + tl.arange(0, WORDS))[:, None]
        sums = tl.zeros((WORDS, HEADS), tl.float64)
        best = tl.load(weights + m, mask=(m > 0) & (m <= n), other=0.0)
        for start in range(0, size, HEADS):
            h = (start + tl.arange(0, HEADS))[None, :]
            use = (m > 0) & (m <= n) & (h <= n) & (m != h)
            weight, along = weight_of(scores, vector, best, m, h, use, size, IN_LOGS)
            at = adjoints + swapped(m, front) * size + swapped(h, front)
            nothing = float("-inf") if IN_LOGS else 0.0
            adjoint, adjoint_along = load(at, use, nothing, shift, vector is not None)
            if IN_LOGS:
                marginal = tl.exp(weight + adjoint)
                change = marginal * (along + adjoint_along)
            else:
                marginal = weight * adjoint
                change = along * adjoint + weight * adjoint_along
            inside = (m < size) & (h < size)
            if marginals is not None:
                tl.store(marginals + m * size + h, marginal, mask=inside)
            if product is not None:
                tl.store(product + m * size + h, change, mask=inside)
            sums += marginal
            roots += tl.where(h == 0, marginal, 0.0)
            wrong |= ((marginal > -rounding) & (marginal < 1 + rounding)).to(tl.int32) ^ 1
        word = begin + tl.arange(0, WORDS)
        fine = (tl.abs(tl.sum(sums, axis=1) - 1) < rounding) | (word == 0) | (word > n)
        off |= fine.to(tl.int32) ^ 1
    kept = (tl.max(tl.max(wrong, axis=1), axis=0) == 0) & (tl.max(off, axis=0) == 0)
    if FIRST == 1:
        kept = kept & (tl.abs(tl.sum(tl.sum(roots, axis=1), axis=0) - 1) < rounding)
    return kept


def marginals_and_log_partition(
    scores: Tensor, lengths: Tensor, multi_root: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Arc marginals ``[B, N+1, N+1]`` and log-partition ``[B]``, both float64; status ``[B]``.

    ``scores [B, N+1, N+1]`` contiguous float32 or float64. Nothing waits for the device.
    """
    marginals = torch.empty_like(scores, dtype=torch.float64)
    log_partitions = marginals.new_empty(len(scores))
    status = _run(scores, lengths, multi_root, None, marginals, None, log_partitions)
    return marginals, log_partitions, status


def covariance_product(scores: Tensor, lengths: Tensor, multi_root: bool, vector: Tensor) -> Tensor:
    """Covariance of a tree's arcs times ``vector``, all ``[B, N+1, N+1]``, the result in float64.

    ``scores`` and ``vector`` contiguous float32 or float64; the latter may hold anything where no arc can
    be. Nothing waits for the device.
    """
    product = torch.empty_like(scores, dtype=torch.float64)
    _run(scores, lengths, multi_root, vector, None, product, None)
    return product


def _run(scores, lengths, multi_root, vector, marginals, product, log_partitions) -> Tensor:
    """Fill in what is not None; status ``[B]``."""
    batch, size, _ = scores.shape
    parts = 2 if vector is None else 4
    work = torch.empty(batch, parts, size, size, dtype=torch.float64, device=scores.device)
    status = torch.empty(batch, dtype=torch.int8, device=scores.device)
    with on_device_of(scores):
        for again, tile in ((False, TILE), (True, in_logs.TILE)):
            tree_marginals[(batch,)](
                scores, vector, lengths, work, marginals, product, log_partitions, status, size,
                FIRST=0 if multi_root else 1, IN_LOGS=again, **tile,
            )  # fmt: skip
    return status


TILE = {"WORDS": 64, "HEADS": 32, "num_warps": 8}
