"""A race among all V words of which only the fastest are followed, exactly.

Gumbel noise on scores is a race: word v arrives at ``T_v = E_v / w_v``, E_v standard exponential and w_v its
weight, and ``log w_v + G_v = -log T_v``. Nobody need draw V numbers: the clocks have no memory, so that among
words of total weight W the next arrival comes after ``Exp(1) / W``, and it is v with probability ``w_v / W``
(top-down sampling: Maddison, Tarlow and Minka 2014, A* sampling). The m words of the largest weights have
clocks of their own; of all others, the *tail*, only the first n arrivals are drawn.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffdecode.categorical.estimators.draws import draw_index, standard_exponential


class Race(NamedTuple):
    """The fastest words of a race.

    Attributes:
        symbols: ``[R, n]`` the tail's first arrivals.
        weights: ``[R, n]`` their weights; 0 where the tail has ended.
        noise: ``[R, m + n]`` variates E of the best words and of these; ``inf`` where the tail has ended.
        last: ``[R]`` when the last of these arrived.
        rest: ``[R]`` total weight of those that have not arrived.
    """

    symbols: Tensor
    weights: Tensor
    noise: Tensor
    last: Tensor
    rest: Tensor


@torch.no_grad()
def race(weights: Tensor, best: Tensor, n: int, generator: torch.Generator | None = None) -> Race:
    """Draw a race.

    Args:
        weights: ``[R, V]``, 0 where a word does not take part; changed in between, and then restored.
        best: ``[R, m]`` words with clocks of their own.
        n: arrivals of the tail, at least 1 and at most V - m.
        generator: source of randomness, on the device of the weights.
    """
    at_best = weights.gather(1, best)
    weights.scatter_(1, best, 0.0)
    noise = [standard_exponential(best.shape, weights, generator)]
    totals, symbols, drawn_weights = _block_totals(weights), [], []
    time = torch.zeros_like(totals[:, 0])
    for _ in range(n):
        time = time + standard_exponential(time.shape, weights, generator) / totals.sum(1)
        block = draw_index(totals, generator=generator)[:, None]
        columns, of_block = _block(weights, block, totals.size(1))
        place = draw_index(of_block, generator=generator)[:, None]
        symbol, weight = columns.gather(1, place), of_block.gather(1, place)
        weights.scatter_(1, symbol, 0.0)
        totals.scatter_(1, block, of_block.scatter(1, place, 0.0).sum(1, keepdim=True))
        symbols.append(symbol)
        drawn_weights.append(weight)
        noise.append(torch.where(weight > 0, weight * time[:, None], torch.inf))
    weights.scatter_(1, best, at_best)
    for symbol, weight in zip(symbols, drawn_weights):  # a tail that has ended was drawn from with weight 0
        weights.scatter_add_(1, symbol, weight)
    return Race(torch.cat(symbols, 1), torch.cat(drawn_weights, 1), torch.cat(noise, 1), time, totals.sum(1))


def _block_totals(weights: Tensor) -> Tensor:
    """Sums ``[R, blocks]``; block b holds the columns b, b + blocks, b + 2 blocks, ..."""
    rows, vocabulary = weights.shape
    blocks = math.isqrt(vocabulary)
    depth = vocabulary // blocks
    totals = weights[:, : depth * blocks].view(rows, depth, blocks).sum(1)
    left = vocabulary - depth * blocks
    totals[:, :left] += weights[:, depth * blocks :][:, :left]
    return totals


def _block(weights: Tensor, block: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Columns and weights ``[R, depth]`` of one ``block [R, 1]`` each; 0 for columns that do not exist."""
    vocabulary = weights.size(1)
    depth = -(-vocabulary // blocks)
    columns = block + blocks * torch.arange(depth, device=weights.device)
    inside = columns < vocabulary
    columns = columns.clamp_max(vocabulary - 1)
    return columns, weights.gather(1, columns) * inside
