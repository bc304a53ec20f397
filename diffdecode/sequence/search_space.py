"""What a search may emit, and at which score: candidate symbols, their local scores, how an end symbol ends.

Tagging emits labels for exactly as many steps as there are words. Translation ends a hypothesis with EOS,
after which it can only emit PAD at no cost ("absorbing" EOS), so that finished and unfinished hypotheses
stay on one beam. In a soft search a beam element is finished *to a degree* f in [0, 1].

A local score is ``logit - lambda * log Z`` with the softmax's normaliser Z: the log-probability at lambda 1,
and at 0 the logit. Scores that are not normalised let later words revise earlier choices (label bias; Andor
et al. 2016, section 3; Goyal, Dyer and Berg-Kirkpatrick 2019).
"""

import math
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
        score_normalizer: lambda of the local scores ``logit - lambda * log Z``; any other than 1 needs a
            ``LinearStepDecoder``.

    Raises:
        ValueError: no symbol, ``eos`` or ``pad`` not among the symbols, or a lambda that is negative or not
            finite.
    """

    symbols: Tensor
    eos: int | None = None
    pad: int | None = None
    shortest: int = 0
    score_normalizer: float = 1.0

    def __post_init__(self) -> None:
        if self.symbols.numel() == 0:
            raise ValueError("a search space needs at least one symbol")
        if not 0.0 <= self.score_normalizer < math.inf:
            raise ValueError(f"score_normalizer {self.score_normalizer} must be a number of at least 0")
        if self.eos is not None:
            ends = {"eos": self.eos, "pad": self.pad}
            among = [(self.symbols == symbol).any() for symbol in (self.eos, self.padding)]
            there = torch.stack(among).tolist()
            for (name, symbol), is_there in zip(ends.items(), there):
                if symbol is None or not is_there:
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

    @property
    def is_normalised(self) -> bool:
        """Whether local scores are log-probabilities."""
        return self.score_normalizer == 1.0

    def local_scores(
        self,
        log_probs: Tensor,
        finished: Tensor | None,
        floor: float = SOFT_FLOOR,
        log_z: Tensor | None = None,
    ) -> Tensor:
        """Scores ``[B, K, C]`` of emitting each candidate.

        With ``eos``: an element finished to the degree f scores ``log p + log(1 - f)`` on a word and
        ``log f`` on PAD (``log_degrees``). ``beyond_log_probs`` is added to both.

        Args:
            log_probs: ``[B, K, V]``.
            finished: ``[B, K]`` degrees, or ``None``.
            floor: smallest degree.
            log_z: ``[B, K]``, or ``None`` where scores are log-probabilities.
        """
        local = log_probs.index_select(2, self.symbols)
        if finished is not None:
            running, absorbed = self.log_degrees(finished, floor)
            local = torch.where(self.symbols == self.padding, absorbed[..., None], local + running[..., None])
        return local if log_z is None else local + self.beyond_log_probs(log_z, finished)[..., None]

    def log_degrees(self, finished: Tensor, floor: float = SOFT_FLOOR) -> tuple[Tensor, Tensor]:
        """``log(1 - f)`` and ``log f``, ``[B, K]``: to which degrees elements go on and have ended.

        Where scores are not normalised, they may differ by more than the logarithm of any floor, and an end
        must not be undone at any gain: degrees within their rounding of 0 are 0, and impossible.

        Args:
            finished: ``[B, K]`` degrees f.
            floor: smallest degree; 0 in a hard search, where impossible is ``-inf``.
        """
        running = torch.log((1.0 - finished).clamp_min(floor))
        absorbed = torch.log(finished.clamp_min(floor))
        if self.is_normalised:
            return running, absorbed
        return (
            running.masked_fill(finished >= ENDED, -torch.inf),
            absorbed.masked_fill(finished <= 1.0 - ENDED, -torch.inf),
        )

    def beyond_log_probs(self, log_z: Tensor, finished: Tensor | None) -> Tensor:
        """``(1 - lambda) log Z`` ``[B, K]``, which makes log-probabilities local scores.

        It counts to the degree to which an element goes on: nothing is added to a hypothesis that has ended,
        and within an element words and PAD compete as log-probabilities do.

        Args:
            log_z: ``[B, K]``.
            finished: ``[B, K]`` degrees, or ``None``.
        """
        beyond = (1.0 - self.score_normalizer) * log_z
        return beyond if finished is None else beyond * (1.0 - finished)

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
