"""What all kernels agree on: which arcs are read, how a sentence without an answer is reported.

Notation: ``B`` batch, ``N`` words, position 0 the artificial root, ``scores[b, dependent, head]`` of shape
``[B, N+1, N+1]``. Row 0, the diagonal and everything past a sentence's length are never read. A score of
``-inf`` forbids an arc.
"""

import torch
from torch import Tensor

PADDING = -1
"""Head (and label) of a position beyond the sentence's length."""

OK, NOT_A_SCORE, NO_TREE, TOO_LARGE = 0, 1, 2, 3
"""Status of one sentence, reported by every kernel."""

LOST_DIGITS = 4
"""Status of a sentence that a fast kernel leaves to a slower one, before anything is reported."""

UNUSUAL = 5
"""Status of a sentence that a fast kernel refuses, before it is looked at again to say why."""

LARGEST_SUMMABLE = {torch.float32: 1e36, torch.float64: 1e300}
"""Scores above this size could overflow when a tree's arcs are added up."""


def possible_arcs(lengths: Tensor, size: int) -> Tensor:
    """``[B, N+1, N+1]`` bool: dependent a word of the sentence, head the root or another of its words.

    Args:
        lengths: ``[B]`` words per sentence. size: ``N+1``.
    """
    position = torch.arange(size, device=lengths.device)
    shortest = torch.maximum(position[:, None], position)  # sentence with the arc
    shortest[0] = size
    shortest.fill_diagonal_(size)
    return shortest <= lengths[:, None, None]


def status_of_scores(scores: Tensor, lengths: Tensor) -> Tensor:
    """``[B]`` int8 status of the arcs that are read: ``OK``, ``NOT_A_SCORE`` or ``TOO_LARGE``."""
    arcs = scores.masked_fill(~possible_arcs(lengths, scores.shape[1]), 0).flatten(1)
    largest = LARGEST_SUMMABLE[scores.dtype]
    too_large = ((arcs.abs() > largest) & (arcs != -torch.inf)).any(1)
    not_a_score = (arcs.isnan() | (arcs == torch.inf)).any(1)
    status = torch.where(too_large, TOO_LARGE, OK)
    return torch.where(not_a_score, NOT_A_SCORE, status).to(torch.int8)
