"""Decomposable evaluation costs d(y_t): what direct loss minimises (soft beam search 2018, section 2.3).

A ``StepCost`` depends on one symbol. A ``PathCost`` depends on the symbols before as well, by as much of them
as it remembers. What it remembers, and its cost, are linear in what was remembered before: an element of a
soft beam is a mixture of sequences, and of a mixture both are expectations.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad


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


class PathCost(Protocol):
    """The cost of a sequence, symbol by symbol, with a memory of S numbers for each prefix."""

    def first(self) -> Tensor:
        """The memory ``[B, S]`` before the first symbol."""

    def step(self, t: int, symbols: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Costs ``[B, M]`` and new memory ``[B, M, S]`` of ``symbols [B, M]`` after ``memory [B, M, S]``.

        Both are linear in the memory, or linear and a constant.
        """

    def last(self, memory: Tensor) -> Tensor:
        """Costs ``[B, K]`` that are due at the end of sequences of ``memory [B, K, S]``."""


class SpanCost:
    """The number of wrong spans: predicted ones that the reference has not, and those of it that are missed.

    Spans are written in BIO labels: one begins at a ``B-X``, and at an ``I-X`` that continues no span of X,
    as conlleval has it. A predicted span is right if the reference has one of its type, start and end, so
    that errors are all spans of both less twice the right ones: a missed one costs 1, wrong bounds cost 2.

    The memory says, for each type, whether the last label is inside a span of it, and then whether the span
    of the reference that the last word is in has been predicted from its start on.

    Args:
        gold: ``[B, T]`` reference ids.
        inside: ``[V, X]`` booleans, for X types: the label is inside a span of the type.
        begins: ``[V]`` booleans: it is a ``B-`` label.
    """

    def __init__(self, gold: Tensor, inside: Tensor, begins: Tensor):
        self.inside, self.begins = inside, begins
        self.kinds = torch.where(inside.any(1), inside.int().argmax(1), -1)
        kind = self.kinds[gold]
        before = pad(kind, (1, 0), value=-1)[:, :-1]
        begun = (kind >= 0) & (begins[gold] | (kind != before))
        self.spans = begun.sum(1)
        # Of each word of the reference: its type, that of the word before, does a span begin, does one go on.
        self.reference = torch.stack([kind, before, begun, (kind >= 0) & ~begun], 2)  # [B, T, 4]

    def first(self) -> Tensor:
        """The memory ``[B, S]`` before the first symbol; S = X + 1."""
        return torch.zeros(self.spans.size(0), self.inside.size(1) + 1, device=self.spans.device)

    def step(self, t: int, symbols: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Costs ``[B, M]`` and new memory ``[B, M, S]`` of ``symbols [B, M]`` after ``memory [B, M, S]``."""
        gold, before, begins, goes_on = self.reference[:, t, :, None].unbind(1)  # [B, 1] each
        kind, inside = self.kinds[symbols], self.inside[symbols].to(memory.dtype)
        matched, continued = memory[..., -1], (memory[..., :-1] * inside).sum(2)
        begun = (kind >= 0) * torch.where(self.begins[symbols], 1.0, 1.0 - continued)
        follows = (kind >= 0) & ~self.begins[symbols] & (kind == before)
        ends_here = (before >= 0) & (goes_on == 0)
        right = matched * (ends_here & ~follows)
        matched = torch.where(begins == 1, begun * (kind == gold), matched * ((goes_on == 1) & follows))
        return begun - 2.0 * right, torch.cat([inside, matched[..., None]], 2)

    def last(self, memory: Tensor) -> Tensor:
        """Costs ``[B, K]`` due at the end after ``memory [B, K, S]``: a last span may be right."""
        return self.spans[:, None] - 2.0 * memory[..., -1]


def path_costs(cost: PathCost, symbols: Tensor) -> Tensor:
    """Costs ``[B, K]`` of sequences ``symbols [B, K, T]`` (ids), which end where -1 stands for nothing."""
    batch, size, steps = symbols.shape
    memory = cost.first()[:, None].expand(-1, size, -1)
    total = memory.new_zeros(batch, size)
    for t in range(steps):
        there = symbols[:, :, t] >= 0
        paid, new = cost.step(t, symbols[:, :, t].clamp(min=0), memory)
        total = total + torch.where(there, paid, 0.0)
        memory = torch.where(there[..., None], new, memory)
    return total + cost.last(memory)


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
