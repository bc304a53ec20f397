"""What a continuous top-k operator is, the registry of their names, and what several of them need.

An operator takes scores ``[B, M]``, ``k`` and ``alpha`` and returns rows ``[B, K, M]``, one relaxed one-hot
row for each of the k best of M candidates, in order of rank. Each row sums to one and tends to the one-hot
row of its rank as ``alpha`` grows. To add one: a file in this folder that registers a ``TopKOperator``, and a
test.

With fewer than k possible candidates there is nothing to choose for the last rows. Such *surplus rows* are
zero, forward and backward; an operator may return anything finite for them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.registry import Registry

# exp(-VANISHES) is 0 in float32 and in float64.
VANISHES = 800.0


@dataclass(frozen=True)
class Discarded:
    """What is known of the candidates that a truncated top-k does not look at.

    If there are N of them, at ``cut`` or below, then ``sum_{v discarded} w(s_v) <= N * w(cut)`` for any
    weight w that grows with the score. If also their ``mass = sum_{v discarded} exp(s_v)`` is known (scores
    are log-probabilities), then N may be replaced by the *effective count* ``mass * exp(-cut)`` wherever
    ``w(s) * exp(-s)`` grows up to ``cut``, which is usually smaller by orders of magnitude.

    Attributes:
        cut: ``[B]`` no discarded score is larger.
        log_count: ``[B]`` log N.
        log_effective: ``[B]`` logarithm of the effective count, at most ``log_count``.
    """

    cut: Tensor
    log_count: Tensor
    log_effective: Tensor

    def log_weight(self, log_weight_at_cut: Tensor, faster_than_exp: Tensor | bool) -> Tensor:
        """Logarithm of a bound on the discarded weight, ``[B, ...]``.

        Args:
            log_weight_at_cut: ``log w(cut)``, ``[B, ...]``.
            faster_than_exp: whether ``w(s) * exp(-s)`` grows up to the cut; broadcast.
        """
        shape = [-1] + [1] * (log_weight_at_cut.dim() - 1)
        count, effective = self.log_count.view(shape), self.log_effective.view(shape)
        if isinstance(faster_than_exp, bool):
            return (effective if faster_than_exp else count) + log_weight_at_cut
        return torch.where(faster_than_exp, effective, count) + log_weight_at_cut


Rows = Callable[[Tensor, int, float], Tensor]
TailBound = Callable[[Tensor, int, float, Discarded], Tensor]


@dataclass(frozen=True)
class TopKOperator:
    """A continuous top-k.

    Attributes:
        rows: ``rows(scores [B, M], k, alpha) -> [B, K, M]``.
        tail_bound: ``tail_bound(kept [B, M], k, alpha, discarded) -> [B]``, an upper bound (it may exceed 1)
            on the total variation distance of each row over all candidates to the same row over the kept
            ones; ``None`` if there is no such bound, so that no truncated search can use the operator.
    """

    rows: Rows
    tail_bound: TailBound | None = None


TOP_K_OPERATORS: Registry[TopKOperator] = Registry("top-k operator")


def ranked_scores(scores: Tensor, k: int) -> Tensor:
    """The k largest scores ``[B, K]``; surplus ranks repeat the best one, so that nothing infinite enters."""
    best = scores.topk(k, dim=1).values
    return torch.where(best > -torch.inf, best, best[:, :1])


def without_infinities(scores: Tensor, maxima: Tensor, distance: float) -> Tensor:
    """``scores [B, M]`` with impossible candidates at least ``distance`` below all ``maxima [B, K]``.

    An operator gives exactly 0 at that distance, forward and backward, but a squared infinity would have an
    infinite slope; and this costs one pass over ``[B, M]`` where masks would cost several over ``[B, K, M]``.
    """
    last = maxima.detach().amin(1, keepdim=True)
    # More than the distance, so that rounding next to a large score cannot swallow it.
    return torch.where(scores == -torch.inf, last - (distance + 1.0 + last.abs()), scores)


def gap_to_cut(kept: Tensor, k: int, discarded: Discarded) -> Tensor:
    """How far the score of rank k of ``kept [B, M]`` is above all discarded ones, ``[B]``, at least 0."""
    return (ranked_scores(kept, k)[:, -1] - discarded.cut).clamp_min(0.0)
