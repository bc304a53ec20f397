"""What there is to know about scores before a decision, on the GPU.

The kernels of best trees look themselves, each program at its own sentence, which saves a launch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels import status as statuses
from diffdecode.structure.kernels.triton.launch import on_device_of

NOT_A_SCORE, TOO_LARGE = tl.constexpr(statuses.NOT_A_SCORE), tl.constexpr(statuses.TOO_LARGE)


@triton.jit
def fault_and_length(
    scores, length, size, LARGEST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Status of a sentence from its ``scores [size, size]``, and the length to go by: 0 if it is bad.

    Its scores would send a walk down out of its charts. ``length`` points to the one it has; ``ROWS`` and
    ``COLUMNS`` are those of a tile, powers of two.
    """
    n = tl.load(length).to(tl.int32)
    worst = tl.zeros((ROWS, COLUMNS), tl.int32)
    for first_word in range(1, n + 1, ROWS):
        word = (first_word + tl.arange(0, ROWS))[:, None]
        for first_head in range(0, n + 1, COLUMNS):
            head = (first_head + tl.arange(0, COLUMNS))[None, :]
            use = (word <= n) & (head <= n) & (word != head)
            score = tl.load(scores + word * size + head, mask=use, other=0.0)
            large = (tl.abs(score) > LARGEST) & (score != float("-inf"))
            no_score = (score != score) | (score == float("inf"))
            worst = tl.maximum(worst, tl.where(no_score, 2, large.to(tl.int32)))
    worst = tl.max(tl.max(worst, axis=1), axis=0)
    fault = tl.where(worst == 2, NOT_A_SCORE, tl.where(worst == 1, TOO_LARGE, 0))
    return fault, tl.where(fault == 0, n, 0)


@triton.jit(do_not_specialize=["size"])
def look_at_scores(
    scores, lengths, status, size, LARGEST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """``status [B]`` int8 of sentence ``program_id(0)``."""
    b = tl.program_id(0).to(tl.int64)
    fault, _ = fault_and_length(scores + b * size * size, lengths + b, size, LARGEST, ROWS, COLUMNS)
    tl.store(status + b, fault.to(tl.int8))


@triton.jit(do_not_specialize=["size"])
def mark_possible(scores, lengths, marks, size, COLUMNS: tl.constexpr):
    """Row ``program_id(0)`` of ``marks [B * size, size]``; ``COLUMNS`` is a power of two that holds it."""
    row = tl.program_id(0).to(tl.int64)
    word = row % size
    n = tl.load(lengths + row // size)
    n = tl.where((word > 0) & (word <= n), n, -1)
    head = tl.arange(0, COLUMNS)
    exists = (head <= n) & (head != word)
    score = tl.load(scores + row * size + head, mask=exists, other=float("-inf"))
    tl.store(marks + row * size + head, (score > float("-inf")).to(tl.int8), mask=head < size)


def look(scores: Tensor) -> dict[str, float]:
    """Compile-time arguments of :func:`fault_and_length`."""
    return {"LARGEST": statuses.LARGEST_SUMMABLE[scores.dtype], **LOOK}


LOOK = {"ROWS": 16, "COLUMNS": 32}


def looked_at(scores: Tensor, lengths: Tensor) -> Tensor:
    """Status ``[B]`` of contiguous ``scores [B, N+1, N+1]``; see ``status_of_scores``."""
    status = torch.empty(len(scores), dtype=torch.int8, device=scores.device)
    with on_device_of(scores):
        look_at_scores[(len(scores),)](scores, lengths, status, scores.shape[1], **look(scores))
    return status


def possible(scores: Tensor, lengths: Tensor) -> Tensor:
    """See :func:`diffdecode.structure.kernels.reference.possible`."""
    scores = scores.contiguous()
    marks = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    batch, size, _ = scores.shape
    with on_device_of(scores):
        mark_possible[(batch * size,)](
            scores, lengths, marks.view(torch.int8), size, triton.next_power_of_2(size), num_warps=1
        )
    return marks
