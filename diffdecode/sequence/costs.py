"""Decomposable evaluation costs d(y_t): what direct loss minimises (soft beam search 2018, section 2.3)."""

from typing import Protocol

import torch
from torch import Tensor


class StepCost(Protocol):
    """The cost of emitting a symbol at one time step."""

    def __call__(self, t: int, symbols: Tensor) -> Tensor:
        """Costs ``[B, C]`` of ``symbols [B, C]`` (ids) at step ``t``."""


class HammingCost:
    """1 for each wrong symbol, or its own weight (section 3.1: a wrong ``O`` costs 2), or that of a table.

    Steps beyond the reference compare with ``pad``, so every missing or extra symbol costs as well.

    Args:
        gold: ``[B, T]`` reference ids, padded with ``pad``.
        pad: id of padding.
        wrong_costs: ``[V]`` cost of predicting each symbol wrongly, or ``[V, V]``, gold symbols first, of
            predicting it for each gold symbol; ``None`` is 1 for all.
    """

    def __init__(self, gold: Tensor, pad: int, wrong_costs: Tensor | None = None):
        self.gold = gold
        self.pad = pad
        self.wrong_costs = wrong_costs

    def __call__(self, t: int, symbols: Tensor) -> Tensor:
        """Costs ``[B, C]``, float32."""
        gold = self.gold[:, t] if t < self.gold.size(1) else torch.full_like(self.gold[:, 0], self.pad)
        wrong = (symbols != gold[:, None]).float()
        if self.wrong_costs is None:
            return wrong
        by_gold = self.wrong_costs.dim() == 2
        return wrong * (self.wrong_costs[gold[:, None], symbols] if by_gold else self.wrong_costs[symbols])


def step_costs(cost: StepCost | None, t: int, symbols: Tensor) -> Tensor:
    """``cost(t, symbols)``, or zeros ``[B, C]`` where no cost is counted."""
    return torch.zeros(symbols.shape, device=symbols.device) if cost is None else cost(t, symbols)


def missing_costs(cost: StepCost | None, t: int, lengths: Tensor, pad: int | None) -> Tensor:
    """What a sentence whose hypotheses have all ended still pays for step ``t``, ``[B, 1]``: the cost of PAD.

    Zeros where no cost is counted, at and beyond ``lengths [B]``, and in a search without PAD.
    """
    if cost is None or pad is None:
        return torch.zeros(lengths.size(0), 1, device=lengths.device)
    return cost(t, torch.full_like(lengths, pad)[:, None]) * (t < lengths)[:, None]
