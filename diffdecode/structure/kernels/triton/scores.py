"""What there is to know about scores before a decision, on the GPU: one launch each."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffdecode.structure.kernels import status as statuses
from diffdecode.structure.kernels.triton.launch import on_device_of

NOT_A_SCORE, TOO_LARGE = tl.constexpr(statuses.NOT_A_SCORE), tl.constexpr(statuses.TOO_LARGE)


@triton.jit(do_not_specialize=["size"])
def look_at_scores(
    scores, lengths, status, usable, size,
    LARGEST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``status [B]`` int8 of sentence ``program_id(0)``, and in ``usable [B]`` its length, 0 if it is bad."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b).to(tl.int32)
    scores += b * size * size
    no_score = tl.zeros((ROWS, COLUMNS), tl.int32)
    large = tl.zeros((ROWS, COLUMNS), tl.int32)
    for first_word in range(1, n + 1, ROWS):
        word = (first_word + tl.arange(0, ROWS))[:, None]
        for first_head in range(0, n + 1, COLUMNS):
            head = (first_head + tl.arange(0, COLUMNS))[None, :]
            use = (word <= n) & (head <= n) & (word != head)
            score = tl.load(scores + word * size + head, mask=use, other=0.0)
            no_score += ((score != score) | (score == float("inf"))).to(tl.int32)
            large += ((tl.abs(score) > LARGEST) & (score != float("-inf"))).to(tl.int32)
    found = tl.where(tl.max(tl.max(large, axis=1), axis=0) > 0, TOO_LARGE, 0)
    found = tl.where(tl.max(tl.max(no_score, axis=1), axis=0) > 0, NOT_A_SCORE, found)
    tl.store(status + b, found.to(tl.int8))
    tl.store(usable + b, tl.where(found == 0, n, 0).to(tl.int64))


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


def looked_at(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Status ``[B]`` of ``scores [B, N+1, N+1]`` (see ``status_of_scores``), and lengths ``[B]`` to go by.

    A bad sentence has length 0: its scores would send a walk down out of its charts.
    """
    status = torch.empty(len(scores), dtype=torch.int8, device=scores.device)
    usable = torch.empty_like(lengths)
    with on_device_of(scores):
        look_at_scores[(len(scores),)](
            scores, lengths, status, usable, scores.shape[1],
            LARGEST=statuses.LARGEST_SUMMABLE[scores.dtype], **LOOK,
        )  # fmt: skip
    return status, usable


LOOK = {"ROWS": 8, "COLUMNS": 32, "num_warps": 4}


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
