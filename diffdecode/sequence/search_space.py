"""What a search may emit, and at which score: candidate symbols, their local scores, how an end symbol ends.

Tagging emits labels for exactly as many steps as there are words. Translation ends a hypothesis with EOS,
after which it can only emit PAD at no cost ("absorbing" EOS), so that finished and unfinished hypotheses
stay on one beam. In a soft search a beam element is finished *to a degree* f in [0, 1].

A local score is ``logit - lambda * log Z`` with the softmax's normaliser Z: the log-probability at lambda 1,
and at 0 the logit. Scores that are not normalised let later words revise earlier choices (label bias; Andor
et al. 2016, section 3; Goyal, Dyer and Berg-Kirkpatrick 2019).
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

# Smallest degree in a soft search: its logarithm, -69, is never chosen, and gradients stay finite.
SOFT_FLOOR = 1e-30

# Which symbols may follow an element of a soft search is a matter of degree, too; below this one, none may.
LEAST_PERMITTED = 1e-4

# An element that has ended to this degree has ended. Degrees are sums of float32 weights: within their
# rounding of 1, batch mates would decide whether a sentence takes another step.
ENDED = 1 - 1e-4


@dataclass(frozen=True)
class SearchSpace:
    """The candidate symbols of a search.

    Attributes:
        symbols: ``[C]`` distinct ids that may be emitted; columns of log-probabilities not listed leave the
            search.
        eos: id that ends a hypothesis, or ``None`` when lengths are given (tagging).
        pad: id emitted after ``eos``.
        shortest: words that a hypothesis has at least before ``eos``.
        score_normalizer: lambda of the local scores ``logit - lambda * log Z``; any other than 1 needs a
            ``LinearStepDecoder``.
        transitions: ``[C + 1, C]`` boolean, or ``None``: whether symbol j of ``symbols`` (column) may follow
            symbol i (row), and may come first (the last row). The scores of what may not are ``-inf``; those
            of the others are left as they are.

    Raises:
        ValueError: no symbol, one that is there twice (looked for on a CPU), ``eos`` or ``pad`` not among the
            symbols, a lambda that is negative or not finite, transitions of another shape, or out of which
            there is no way, or beside ``eos``.
    """

    symbols: Tensor
    eos: int | None = None
    pad: int | None = None
    shortest: int = 0
    score_normalizer: float = 1.0
    transitions: Tensor | None = None

    def __post_init__(self) -> None:
        if self.symbols.numel() == 0:
            raise ValueError("a search space needs at least one symbol")
        if self.symbols.device.type == "cpu" and int(self.symbols.bincount().max()) > 1:
            raise ValueError(f"symbol {int(self.symbols.bincount().argmax())} is in the search space twice")
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
        if self.transitions is not None:
            self._check_transitions(self.transitions)

    def _check_transitions(self, transitions: Tensor) -> None:
        wanted = (self.size + 1, self.size)
        if transitions.dtype != torch.bool or tuple(transitions.shape) != wanted:
            raise ValueError(
                f"transitions must be boolean and {list(wanted)} for {self.size} symbols, not "
                f"{transitions.dtype} and {list(transitions.shape)}"
            )
        if self.eos is not None:
            raise ValueError("transitions are for sequences of given length: this space ends with eos")
        stuck = (~transitions.any(1)).nonzero()[:, 0].tolist()
        if stuck:
            place = "the beginning" if stuck[0] == self.size else f"symbol {int(self.symbols[stuck[0]])}"
            raise ValueError(f"transitions: nothing may follow {place}")

    def to(self, device: torch.device) -> "SearchSpace":
        """The same space on a device."""
        if self.symbols.device == device:
            return self
        transitions = None if self.transitions is None else self.transitions.to(device)
        return replace(self, symbols=self.symbols.to(device), transitions=transitions)

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

    def first_permitted(self, scores: Tensor) -> Tensor | None:
        """Degrees ``[B, K, C]`` (0 or 1) to which each symbol may come first, for ``scores [B, K]``."""
        if self.transitions is None:
            return None
        return self.transitions[-1].to(scores.dtype).expand(*scores.shape, -1)

    def permitted_after(self, choice: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Degrees ``[B, K, C]`` (0 or 1) to which each symbol may come next.

        Args:
            choice: ``[B, K]`` places in ``symbols`` of the last symbol.
            dtype: of the degrees.
        """
        return None if self.transitions is None else self.transitions[choice].to(dtype)

    def permitted_after_soft(self, weights: Tensor, symbols: Tensor | None = None) -> Tensor | None:
        """Degrees ``[B, K, C]`` to which each symbol may follow a mixture of symbols.

        Args:
            weights: ``[B, K, M]`` of the mixture.
            symbols: ``[B, M]`` their ids; ``None`` where they are those of the space.
        """
        if self.transitions is None:
            return None
        rows = self.transitions[:-1] if symbols is None else self.transitions[self.places(symbols)]
        return weights @ rows.to(weights.dtype)

    def places(self, symbols: Tensor) -> Tensor:
        """Places in ``symbols`` of ids ``[...]`` that are there."""
        in_order, order = self._in_order
        return order[torch.searchsorted(in_order, symbols.contiguous())]

    @cached_property
    def _in_order(self) -> tuple[Tensor, Tensor]:
        """The symbols in ascending order, and their places: searches ask at every step."""
        in_order, order = self.symbols.sort()
        return in_order, order

    @cached_property
    def most_forbidden(self) -> int:
        """How many symbols a single one at most forbids as the next."""
        return 0 if self.transitions is None else int((~self.transitions).sum(1).max())

    def log_permitted(self, degrees: Tensor) -> Tensor:
        """What degrees add to local scores: their logarithm; ``-inf``, without gradient, at about 0.

        Args:
            degrees: ``[...]`` from 0 to 1.
        """
        possible = degrees > LEAST_PERMITTED
        return torch.where(possible, degrees, 1.0).log().masked_fill(~possible, -torch.inf)

    def forbidden(self, symbols: Tensor) -> Tensor:
        """``[T]`` booleans: the symbol of ``symbols [T]`` may not stand where it does.

        Ids that are not of the space (a label that nobody knows) forbid nothing.
        """
        if self.transitions is None:
            return torch.zeros_like(symbols, dtype=torch.bool)
        known = torch.isin(symbols, self.symbols)
        places = self.places(torch.where(known, symbols, self.symbols[0]))
        before = torch.cat([places.new_tensor([self.size]), places[:-1]])
        known_before = torch.cat([known.new_ones(1), known[:-1]])
        return known & known_before[: len(known)] & ~self.transitions[before[: len(places)], places]

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
        permitted: Tensor | None = None,
    ) -> Tensor:
        """Scores ``[B, K, C]`` of emitting each candidate.

        With ``eos``: an element finished to the degree f scores ``log p + log(1 - f)`` on a word and
        ``log f`` on PAD (``log_degrees``). ``beyond_log_probs`` is added to both. With ``transitions``, an
        element that a symbol may follow to the degree a scores ``log a`` more on it (``log_permitted``).

        Args:
            log_probs: ``[B, K, V]``.
            finished: ``[B, K]`` degrees, or ``None``.
            floor: smallest degree.
            log_z: ``[B, K]``, or ``None`` where scores are log-probabilities.
            permitted: ``[B, K, C]`` degrees, or ``None``.
        """
        local = log_probs.index_select(2, self.symbols)
        if finished is not None:
            running, absorbed = self.log_degrees(finished, floor)
            local = torch.where(self.symbols == self.padding, absorbed[..., None], local + running[..., None])
        if log_z is not None:
            local = local + self.beyond_log_probs(log_z, finished)[..., None]
        return local if permitted is None else local + self.log_permitted(permitted)

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
        return (weights if self.pad is None else weights * (symbols != self.pad)).sum(-1)

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
