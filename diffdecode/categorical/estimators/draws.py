"""Probabilities and samples: the only place of the estimators where a random number is drawn."""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from diffdecode.checks import found
from diffdecode.moves import moved


def first_row(bad: Tensor) -> str:
    """Where the boolean tensor ``bad`` is first true, as an error message says it: ``[2, 0]``."""
    return str(bad.nonzero()[0].tolist())


def checked_softmax(scores: Tensor) -> Tensor:
    """softmax over the last dimension of ``scores`` ``[..., V]``; -inf gives probability 0.

    Raises:
        ValueError: a row holds NaN or +inf, or nothing but -inf; the message names the row.
    """
    probs = scores.softmax(-1)
    # Softmax of such a row is NaN from end to end: one column tells, and its sum whether to look closer.
    column = probs.detach().select(-1, 0)
    if found(lambda: column.sum().isnan()):
        refuse_row(scores, column.isnan())
    return probs


def checked_max(scores: Tensor) -> Tensor:
    """argmax ``[...]`` over the last dimension of ``scores [..., V]``, the first of equals.

    Raises:
        ValueError: as ``checked_softmax``.
    """
    best, index = scores.detach().max(-1)
    if found(lambda: ~best.sum().isfinite()):
        bad = ~best.isfinite()
        if bad.any():
            refuse_row(scores, bad)
    return index


def refuse_row(scores: Tensor, bad: Tensor) -> NoReturn:
    """Raise for the first row of ``scores`` ``[..., V]`` that is ``bad`` ``[...]``."""
    impossible = bool((scores.detach()[tuple(bad.nonzero()[0])] == -torch.inf).all())
    reason = "no possible category (all are -inf or masked)" if impossible else "NaN or +inf"
    raise ValueError(f"logits row {first_row(bad)}: {reason}")


def standard_exponential(
    shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Exp(1) variates E > 0 (torch never draws 0), ``[*shape]``, of the dtype and device of ``like``.

    They are drawn on the generator's device, so that one of the CPU gives a GPU the CPU's numbers.
    """
    source = like.device if generator is None else generator.device
    drawn = torch.empty(shape, dtype=like.dtype, device=source).exponential_(generator=generator)
    return moved(drawn, like.device)


def gumbel(scores: Tensor, noise: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise -log E in the shape of ``scores [..., V]``; E is ``noise``, or drawn."""
    if noise is None:
        return standard_exponential(scores.shape, scores, generator).log_().neg_()
    return noise.log().neg_()


@torch.no_grad()
def draw_index(
    probs: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Sample ``[...]`` from ``probs`` ``[..., V]`` by an exponential race: argmax_i p_i / E_i, E ``noise``.

    This is what ``torch.multinomial`` computes for one draw, so the same seed gives the same sample, but
    without its passes of checks.  A category of probability 0 is never drawn.
    """
    if noise is None:
        noise = standard_exponential(probs.shape, probs, generator)
    return (probs / noise).argmax(-1)
