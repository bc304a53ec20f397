"""Dependency trees as tensors: heads, arcs, and the checks that every decision and marginal shares.

Notation: ``B`` batch, ``N`` words, position 0 the artificial root, ``scores[b, dependent, head]`` of shape
``[B, N+1, N+1]``. Row 0, the diagonal and everything past a sentence's length are never read. A score of
``-inf`` forbids an arc.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffdecode.checks import found, is_looking
from diffdecode.moves import moved
from diffdecode.structure.kernels.status import (
    LARGEST_SUMMABLE,
    NO_TREE,
    NOT_A_SCORE,
    PADDING,
    TOO_LARGE,
    possible_arcs,
)

Lengths = Tensor | Sequence[int] | None
"""``[B]`` words per sentence; ``None`` means ``N`` for all."""

_MESSAGES = {
    NOT_A_SCORE: "scores of batch row {row} hold NaN or +inf (use -inf to forbid an arc)",
    NO_TREE: "batch row {row} has no possible {tree}: too many of its arcs are forbidden (-inf)",
    TOO_LARGE: "scores of batch row {row} exceed 1e300 in size: their sums would overflow",
}


def check_inputs(scores: Tensor, lengths: Lengths, cost: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scores in float32 (float64 if given) with ``cost`` added, and lengths as an integer tensor.

    Args:
        scores: ``[B, N+1, N+1]`` or, with labels, ``[B, N+1, N+1, L]``. lengths: ``[B]`` words per
        sentence, a tensor or a sequence; ``None`` means ``N`` for all. cost: broadcastable to ``scores``;
        for labelled scores, ``[B, N+1, N+1]`` costs an arc under any label.

    Raises:
        ValueError: for a wrong shape, no words, or a length outside ``1..N`` (names the batch row).
        TypeError: for scores that are not floating point, or lengths that are not integers.
    """
    if not scores.is_floating_point():
        raise TypeError(f"scores must be floating point, got {scores.dtype}")
    if scores.dim() not in (3, 4) or scores.shape[1] != scores.shape[2]:
        raise ValueError(f"scores must be [B, N+1, N+1] or [B, N+1, N+1, L], got {list(scores.shape)}")
    batch, size = scores.shape[:2]
    if size < 2:
        raise ValueError(
            f"scores of shape {list(scores.shape)} leave no word beside the root, from batch row 0"
        )
    if scores.dim() == 4 and scores.shape[3] == 0:
        raise ValueError("labelled scores need at least one label")
    if scores.dtype not in LARGEST_SUMMABLE:
        scores = scores.float()
    if cost is not None:
        scores = scores + (cost.unsqueeze(-1) if cost.dim() == scores.dim() - 1 else cost).to(scores)
    return scores, check_lengths(lengths, batch, size - 1, scores.device)


def check_lengths(lengths: Lengths, batch: int, longest: int, device: torch.device) -> Tensor:
    """Lengths ``[B]`` as int64 on ``device``; those of the CPU are looked at there, which takes no wait.

    Args:
        lengths: ``[B]``; ``None`` means ``longest`` for all. batch: ``B``. longest: ``N``.

    Raises:
        ValueError: for a wrong shape, or a length outside ``1..N`` (names the batch row).
        TypeError: for lengths that are not integers.
    """
    if lengths is None:
        return torch.full((batch,), longest, dtype=torch.int64, device=device)
    lengths = torch.as_tensor(lengths)
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths must be integers, got {lengths.dtype}")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths must have shape [{batch}], got {list(lengths.shape)}")
    lengths = lengths.to(torch.int64)
    wrong = lambda: (lengths < 1) | (lengths > longest)  # noqa: E731 (in unchecked(), nobody asks)
    if found(lambda: wrong().any()):
        row = int(wrong().nonzero()[0])
        raise ValueError(f"length {int(lengths[row])} of batch row {row} is outside 1..{longest}")
    if not is_looking():
        lengths = lengths.clamp(1, longest)  # a kernel must stay within its charts all the same
    return moved(lengths, device)


def raise_for_status(status: Tensor, tree: str) -> None:
    """``ValueError`` naming the first batch row (and the kind of ``tree``) whose ``status [B]`` is not 0."""
    if status.any():
        row = int(status.nonzero()[0])
        raise ValueError(_MESSAGES[int(status[row])].format(row=row, tree=tree))


def only_possible(scores: Tensor, lengths: Tensor) -> Tensor:
    """Scores, ``[B, N+1, N+1]`` or with labels, with -inf where no arc can be, whatever they hold there.

    Args:
        scores: of arcs. lengths: ``[B]``.
    """
    possible = possible_arcs(lengths, scores.shape[1])
    return scores.masked_fill(~(possible if scores.dim() == 3 else possible.unsqueeze(3)), -torch.inf)


def heads_to_arcs(heads: Tensor, lengths: Lengths = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Indicator of a tree's arcs.

    Args:
        heads: ``[B, N]``; ``heads[b, m-1]`` is the head of word ``m`` (0 = root), ``PADDING`` beyond the
        length. lengths: ``[B]``, or ``None`` to go by the padding in ``heads``.

    Returns:
        ``[B, N+1, N+1]`` of 0 and 1: ``arcs[b, m, heads[b, m-1]] = 1``.
    """
    batch, longest = heads.shape
    word = heads >= 0
    if lengths is not None:
        word &= (
            torch.arange(longest, device=heads.device)
            < torch.as_tensor(lengths, device=heads.device)[:, None]
        )
    arcs = torch.zeros(batch, longest + 1, longest + 1, dtype=dtype, device=heads.device)
    arcs[:, 1:].scatter_(2, heads.clamp(min=0).unsqueeze(2), word.to(dtype).unsqueeze(2))
    return arcs


def tree_scores(scores: Tensor, heads: Tensor) -> Tensor:
    """Sum of the scores of a tree's arcs, ``[B]``; differentiable.

    Args:
        scores: ``[B, N+1, N+1]``. heads: ``[B, N]``; padding adds 0.
    """
    return arc_scores_of(scores, heads).sum(1)


def arc_scores_of(scores: Tensor, heads: Tensor) -> Tensor:
    """Scores ``[B, N]`` of a tree's arcs, 0 for padding, from ``[B, N+1, N+1]`` and heads ``[B, N]``."""
    chosen = scores[:, 1:].gather(2, heads.clamp(min=0).unsqueeze(2)).squeeze(2)
    return chosen.masked_fill(heads < 0, 0)


def best_labels(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Best label of every arc: ``[B, N+1, N+1, L]`` to scores and labels, both ``[B, N+1, N+1]``.

    Equal scores go to the smallest label.
    """
    labels = scores.argmax(-1)
    return scores.gather(-1, labels.unsqueeze(-1)).squeeze(-1), labels


def labels_of_heads(labels: Tensor, heads: Tensor) -> Tensor:
    """Labels ``[B, N]`` of the arcs in ``heads`` (``PADDING`` where the head is), from ``[B, N+1, N+1]``."""
    chosen = labels[:, 1:].gather(2, heads.clamp(min=0).unsqueeze(2)).squeeze(2)
    return chosen.masked_fill(heads < 0, PADDING)
