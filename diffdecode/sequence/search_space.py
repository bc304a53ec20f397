"""What a search may emit: the candidate symbols, and how an end symbol ends a hypothesis.

Tagging emits labels for exactly as many steps as there are words. Translation ends a hypothesis with EOS,
after which it can only emit PAD at no cost ("absorbing" EOS), so that finished and unfinished hypotheses
stay on one beam. In a soft search a beam element is finished *to a degree* f in [0, 1].
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Smallest degree in a soft search: its logarithm, -69, is never chosen, and gradients stay finite.
SOFT_FLOOR = 1e-30

# An element that has ended to this degree has ended. Degrees are sums of float32 weights: within their
# rounding of 1, batch mates would decide whether a sentence takes another step.
ENDED = 1 - 1e-4


@dataclass(frozen=True)
class SearchSpace:
    """The candidate symbols of a search.

    Attributes:
        symbols: ``[C]`` ids that may be emitted; columns of log-probabilities not listed leave the search.
        eos: id that ends a hypothesis, or ``None`` when lengths are given (tagging).
        pad: id emitted after ``eos``.
        shortest: words that a hypothesis has at least before ``eos``.
    """

    symbols: Tensor
    eos: int | None = None
    pad: int | None = None
    shortest: int = 0

    def __post_init__(self) -> None:
        if self.symbols.numel() == 0:
            raise ValueError("a search space needs at least one symbol")
        if self.eos is not None:
            for name, symbol in (("eos", self.eos), ("pad", self.pad)):
                if symbol is None or not (self.symbols == symbol).any():
                    raise ValueError(
                        f"{name}={symbol} must be one of the symbols of a search that ends with eos"
                    )

    @property
    def size(self) -> int:
        """C, the number of symbols."""
        return self.symbols.numel()

    @property
    def padding(self) -> int:
        """The id of PAD, or -1, which is none, where a search has no such symbol."""
        return -1 if self.pad is None else self.pad

    def none_finished(self, scores: Tensor) -> Tensor | None:
        """Degrees of being finished before the first step: zeros like ``scores [B, K]``, none without EOS."""
        return None if self.eos is None else torch.zeros_like(scores)

    def local_scores(self, log_probs: Tensor, finished: Tensor | None, floor: float = SOFT_FLOOR) -> Tensor:
        """Scores ``[B, K, C]`` of emitting each candidate, from ``log_probs [B, K, V]``.

        With ``eos``: an element finished to the degree f scores ``log p + log(1 - f)`` on a word and
        ``log f`` on PAD, with degrees of at least ``floor`` (0 in a hard search: impossible is ``-inf``).
        """
        local = log_probs.index_select(2, self.symbols)
        if finished is None:
            return local
        running = torch.log((1.0 - finished).clamp_min(floor))[..., None]
        absorbed = torch.log(finished.clamp_min(floor))[..., None]
        return torch.where(self.symbols == self.padding, absorbed, local + running)

    def without_early_end(self, scores: Tensor, symbols: Tensor, t: int) -> Tensor:
        """``scores [B, ...]`` with EOS impossible where step ``t`` is too early for it.

        Args:
            scores: of candidates.
            symbols: their ids, broadcast to the scores.
            t: the step.
        """
        if self.eos is None or t >= self.shortest:
            return scores
        return scores.masked_fill(symbols == self.eos, -torch.inf)

    def running(self, finished: Tensor | None, lengths: Tensor, t: int) -> Tensor:
        """``[B]`` whether a sentence has a step ``t``; if not, it stays as it is while its batch mates go on.

        It has none at or beyond its length, nor once every element has ended: each would only emit PAD, at a
        score of about ``log(ENDED)`` a step.

        Args:
            finished: ``[B, K]`` degrees, or ``None``.
            lengths: ``[B]`` numbers of steps.
            t: the step.
        """
        inside = t < lengths
        return inside if finished is None else inside & (finished < ENDED).any(1)

    def finish_hard(self, finished: Tensor | None, parent: Tensor, emitted: Tensor) -> Tensor | None:
        """Degrees ``[B, K]`` (0 or 1) after each element continued its ``parent`` with ``emitted``.

        Args:
            finished: ``[B, J]`` degrees before, or ``None``.
            parent: ``[B, K]`` index of the element that each continues.
            emitted: ``[B, K]`` ids.
        """
        if finished is None or self.eos is None:
            return None
        return torch.maximum(finished.gather(1, parent), torch.eq(emitted, self.eos).to(finished.dtype))

    def finish_soft(self, weights: Tensor, symbols: Tensor) -> Tensor | None:
        """Degrees ``[B, K]`` after a soft choice: the weight on EOS and PAD.

        Args:
            weights: ``[B, K, M]`` of the symbols.
            symbols: ids, broadcast to ``weights``.
        """
        if self.eos is None:
            return None
        return (weights * ((symbols == self.eos) | (symbols == self.pad))).sum(-1).clamp(0.0, 1.0)

    def words(self, weights: Tensor, symbols: Tensor) -> Tensor:
        """Expected number of words ``[B, K]`` of a soft choice: 1, but 0 for PAD.

        Args:
            weights: ``[B, K, M]`` of the symbols.
            symbols: ids, broadcast to ``weights``.
        """
        return (weights * (symbols != self.padding)).sum(-1)

    def lengths(self, symbols: Tensor) -> Tensor:
        """Number of words ``[...]`` of hypotheses ``symbols [..., T]``, in which -1 stands for nothing."""
        return ((symbols >= 0) & (symbols != self.padding)).sum(-1)


def length_bounds(lengths: Tensor) -> tuple[int, int]:
    """The smallest and the largest of ``lengths [B]``; (0, 0) of an empty batch. A GPU waits once.

    Raises:
        ValueError: a negative length, naming the sentence.
    """
    numbers = lengths.tolist() or [0]
    if min(numbers) < 0:
        raise ValueError(f"sentence {numbers.index(min(numbers))} of the batch has length {min(numbers)}")
    return min(numbers), max(numbers)
