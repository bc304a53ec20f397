"""What the dense and the truncated soft beam share: options, the beam, and how one step continues it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffdecode.sequence.costs import PathCost, StepCost, missing_costs
from diffdecode.sequence.risk import expected_risk
from diffdecode.sequence.search_space import LEAST_PERMITTED, SearchSpace, length_bounds
from diffdecode.sequence.step_decoder import State, StepDecoder, first_input, mix


@dataclass(frozen=True)
class SoftBeamOptions:
    """How soft the search is.

    Attributes:
        beam_size: K, at most the number of candidate symbols.
        alpha: peakedness of every relaxed selection; large is close to the hard beam.
        operator: name of the continuous top-k (``diffdecode.categorical.TOP_K_OPERATORS``).
        hard_forward: hard selection forward, soft backward.
        cost_weight: weight of the step cost *added to the scores*, for the hinge (section 2.5); 0 is none.
        recompute: share of the steps, 0 to 1, whose activations are dropped and computed again in the
            backward pass; with 1 (or ``True``) memory does not grow with ``K^2 * V * T``, at about a third
            more time.
        length_penalty: p in ``score / words^p``, by which the final hypotheses are compared; 0 compares
            plain scores, as the paper does.
    """

    beam_size: int = 3
    alpha: float = 1.0
    operator: str = "peaked"
    hard_forward: bool = False
    cost_weight: float = 0.0
    recompute: float = 1.0
    length_penalty: float = 0.0

    def recomputes(self, t: int) -> bool:
        """Whether step ``t`` is one of those, spread evenly, whose activations are computed again."""
        return torch.is_grad_enabled() and int((t + 1) * self.recompute) > int(t * self.recompute)


class Beam(NamedTuple):
    """K relaxed prefixes of each sentence.

    Attributes:
        state: the decoder's memory, ``B * K`` rows.
        vectors: ``[B * K, d]`` soft embeddings, the next input.
        scores: ``[B, K]`` cumulative scores s_t.
        costs: ``[B, K]`` cumulative costs D_t.
        words: ``[B, K]`` expected number of symbols written; PAD is none.
        finished: ``[B, K]`` degrees of having ended, or ``None``.
        permitted: ``[B, K, C]`` degrees to which each symbol may come next, or ``None``.
        memory: ``[B, K, S]`` what a path cost remembers, or ``None``.
    """

    state: State
    vectors: Tensor
    scores: Tensor
    costs: Tensor
    words: Tensor
    finished: Tensor | None
    permitted: Tensor | None
    memory: Tensor | None


class Choice(NamedTuple):
    """What one soft selection of K continuations says.

    Attributes:
        parents: ``[B, K, J]`` soft back-pointers to the elements before.
        vectors: ``[B * K, d]`` soft embeddings.
        scores: ``[B, K]`` cumulative scores.
        costs: ``[B, K]`` costs of the symbols of this step.
        words: ``[B, K]`` number of words of this step.
        finished: ``[B, K]`` degrees of having ended, or ``None``.
        permitted: ``[B, K, C]`` degrees to which each symbol may come next, or ``None``.
        memory: ``[B, K, S]`` what a path cost remembers, or ``None``.
    """

    parents: Tensor
    vectors: Tensor
    scores: Tensor
    costs: Tensor
    words: Tensor
    finished: Tensor | None
    permitted: Tensor | None
    memory: Tensor | None


class Selection(NamedTuple):
    """What ``observe`` is shown of a step; nothing in it has a gradient.

    Attributes:
        weights: the relaxed rows, ``[B, K, J, C]`` over the continuations of J elements by C symbols in a
            dense search, ``[B, K, M]`` over the M candidates in a truncated one.
        scores: ``[B, K]`` the new scores.
        running: ``[B]`` boolean; the selection of any other sentence has no effect.
    """

    weights: Tensor
    scores: Tensor
    running: Tensor


Observer = Callable[[Selection], Any]


@dataclass(frozen=True)
class Problem:
    """One soft search: the decoder, what it may emit, how soft, and what it costs.

    Attributes:
        decoder: the model.
        lengths: ``[B]`` number of steps of each sentence; 0 is an empty sentence.
        space: what may be emitted.
        options: beam size, alpha and operator.
        cost: d(y_t) of each symbol, or ``None``.
        path_cost: cost that depends on the symbols before, too, or ``None``; not added to any score.

    Raises:
        ValueError: a beam larger than the number of symbols.
    """

    decoder: StepDecoder
    lengths: Tensor
    space: SearchSpace
    options: SoftBeamOptions
    cost: StepCost | None
    path_cost: PathCost | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.options.beam_size <= self.space.size:
            raise ValueError(
                f"beam size {self.options.beam_size} must be between 1 and the number of symbols that may be "
                f"emitted, {self.space.size}"
            )

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """Number of steps of the shortest and of the longest sentence."""
        return length_bounds(self.lengths)

    def first_beam(self, state: State) -> Beam:
        """The beam of one element before the first step."""
        batch = self.lengths.size(0)
        start = torch.zeros(batch, 1, device=self.lengths.device)
        vectors = first_input(self.decoder, batch)
        finished, permitted = self.space.none_finished(start), self.space.first_permitted(start)
        memory = None if self.path_cost is None else self.path_cost.first()[:, None]
        return Beam(state, vectors, start, start, start, finished, permitted, memory)

    def may_stop(self, running: Tensor) -> bool:
        """Whether no further step can change anything. In training, where a GPU should not wait, never."""
        counts = self.cost is not None or self.path_cost is not None
        looks = self.space.eos is not None and not counts and not torch.is_grad_enabled()
        return looks and not bool(running.any())

    def without_held(self, candidates: Tensor, t: int, running: Tensor) -> Tensor:
        """Candidates' scores ``[B, ...]``, with 0 for sentences that are not ``running [B]``.

        Nothing is selected for them, so that it does not matter, and is not reported, what a decoder makes of
        a sentence without words.
        """
        if t < self.bounds[0]:
            return candidates
        return candidates.masked_fill(~running.view(-1, *[1] * (candidates.dim() - 1)), 0.0)

    def paid_on_paths(
        self, beam: Beam, t: int, parents: Tensor, symbols: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Expected path costs ``[B, K]`` of this step, and what is remembered of it, ``[B, K, S]``.

        Args:
            beam: the J elements before.
            t: the step.
            parents: ``[B, M]`` the element that each of M candidates continues.
            symbols: ``[B, M]`` their symbols.
            chosen: ``[B, K, M]`` the selection.
        """
        assert self.path_cost is not None and beam.memory is not None
        before = beam.memory.gather(1, parents[..., None].expand(-1, -1, beam.memory.size(2)))
        paid, memory = self.path_cost.step(t, symbols, before)
        paid, memory = paid.to(chosen.dtype), memory.to(chosen.dtype)
        return torch.einsum("bkm,bm->bk", chosen, paid), torch.bmm(chosen, memory)

    def continued(self, beam: Beam, state: State, choice: Choice, t: int, running: Tensor) -> Beam:
        """The beam after step ``t`` (Algorithm 3, lines 12, 16 and 17); a sentence that has ended is held.

        Args:
            beam: the J elements before.
            state: the decoder's memory after it was fed their vectors, ``B * J`` rows.
            choice: the selected continuations.
            t: the step.
            running: ``[B]`` boolean, from ``SearchSpace.running``.
        """

        def inherited(values: Tensor) -> Tensor:
            return torch.einsum("bkj,bj->bk", choice.parents, values)

        new = Beam(
            mix(self.decoder, state, choice.parents),  # line 16
            choice.vectors,
            choice.scores,
            choice.costs + inherited(beam.costs),  # lines 12 and 17
            choice.words + inherited(beam.words),
            choice.finished,
            choice.permitted,
            choice.memory,
        )
        if t < self.bounds[0] and new.finished is None:
            return new  # nobody has ended
        return self._held(beam, new, t, running[:, None])

    def _held(self, old: Beam, new: Beam, t: int, running: Tensor) -> Beam:
        """``new`` for sentences that are ``running [B, 1]``; the others stay as they were.

        No more is selected, so that their elements do not mix; but where the reference goes on, each missing
        word costs.
        """
        missing = missing_costs(self.cost, t, self.lengths, self.space.pad)
        scores = self._widened(old.scores, -torch.inf) + self.options.cost_weight * missing
        costs = self._widened(old.costs) + missing
        finished = new.finished
        if finished is not None and old.finished is not None:
            finished = torch.where(running, finished, self._widened(old.finished))
        memory = new.memory
        if memory is not None and old.memory is not None:
            kept = pad(old.memory, (0, 0, 0, memory.size(1) - old.memory.size(1)))
            memory = torch.where(running[..., None], memory, kept)
        return Beam(
            new.state,
            new.vectors,
            torch.where(running, new.scores, scores),
            torch.where(running, new.costs, costs),
            torch.where(running, new.words, self._widened(old.words)),
            finished,
            new.permitted,  # of a sentence that is held nothing more is selected
            memory,
        )

    def _widened(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """``[B, J]`` to ``[B, K]``: the first step makes K elements of one, also of one that is held."""
        missing = self.options.beam_size - values.size(1)
        return pad(values, (0, missing), value=fill) if missing else values

    def result(self, beam: Beam, observed: list[Any]) -> "SoftBeam":
        """What the search returns."""
        costs = beam.costs
        if self.path_cost is not None and beam.memory is not None:
            costs = costs + self.path_cost.last(beam.memory)
        return SoftBeam(
            self._widened(beam.scores, -torch.inf),
            self._widened(costs),
            self._widened(beam.words),
            self.options,
            observed,
        )


@dataclass
class SoftBeam:
    """The final beam of a soft search.

    Attributes:
        scores: ``[B, K]`` s_T; ``-inf`` where fewer than K hypotheses exist. An empty sentence has one, of
            score 0.
        costs: ``[B, K]`` D_T.
        words: ``[B, K]`` expected lengths.
        options: those of the search.
        observed: what ``observe`` returned at each step.
    """

    scores: Tensor
    costs: Tensor
    words: Tensor
    options: SoftBeamOptions
    observed: list[Any]

    @property
    def ranking(self) -> Tensor:
        """What the final hypotheses are compared by, ``[B, K]``: s_T, or s_T / words^p."""
        return normalised(self.scores, self.words, self.options.length_penalty)

    @property
    def choice(self) -> Tensor:
        """Weights ``[B, K]`` of the best hypothesis: peaked-softmax of its ranking."""
        return torch.softmax(self.options.alpha * self.ranking, dim=1)

    def direct_loss(self) -> Tensor:
        """``[B]`` relaxed cost of the best hypothesis (Algorithm 3, line 19)."""
        return (self.choice * self.costs).sum(1)

    def risk(self) -> Tensor:
        """``[B]`` expected relaxed cost of the whole beam, each hypothesis weighed as e to its ranking.

        With log-probabilities that is their probability among the beam, at any alpha: unlike the direct loss,
        it does not become the cost of the best alone.
        """
        return expected_risk(self.ranking, self.costs, sharpness=1.0)

    def global_loss(self, reference: Tensor) -> Tensor:
        """``[B]`` minus the log-probability of the reference among itself and the beam.

        The relaxation of ``diffdecode.sequence.global_loss`` without early update, which it becomes as alpha
        grows (after Goyal, Dyer and Berg-Kirkpatrick 2019): the normaliser is a sum over final scores of the
        soft beam. An element that is the reference would be counted twice; it counts to the degree min(1, D)
        to which it is not. No costs may have been added to the scores.

        Args:
            reference: ``[B]`` score of the reference, the sum of its local scores in the same space. The
                costs are those of ``HammingCost`` without a table: 0 for the reference, and else 1 or more.
        """
        other = self.costs.clamp(0.0, 1.0)
        counts = other > LEAST_PERMITTED
        degrees = torch.where(counts, other, 1.0).log().masked_fill(~counts, -torch.inf)
        scores = torch.cat([reference[:, None], self.scores + degrees], 1)
        return -scores.log_softmax(1)[:, 0]

    def max_score(self) -> Tensor:
        """``[B]`` relaxed ranking of the best hypothesis, s_max of the hinge (section 2.5)."""
        return (self.choice * finite(self.ranking)).sum(1)


def normalised(scores: Tensor, words: Tensor, length_penalty: float) -> Tensor:
    """``scores / words ** length_penalty``: hypotheses of different lengths compared.

    Args:
        scores: ``[...]``.
        words: numbers of words, same shape; less than one counts as one.
        length_penalty: 0 returns the scores.
    """
    if not length_penalty:
        return scores
    # An infinite score would have an infinite slope in the words.
    ranking = finite(scores) / words.clamp_min(1.0) ** length_penalty
    return ranking.masked_fill(scores.isneginf(), -torch.inf)


def finite(scores: Tensor) -> Tensor:
    """Scores with 0 for what does not exist (``-inf``): its weight is 0, and their product is 0, too."""
    return scores.masked_fill(scores.isneginf(), 0.0)


def expected_scores(chosen: Tensor, scores: Tensor) -> Tensor:
    """``sum_m p_m s_m`` ``[B, K]`` of rows ``[B, K, M]`` and candidates' scores ``[B, M]`` (line 13).

    An element that there was no candidate for, of a surplus row, has score -inf: it is never continued.
    """
    expected = torch.einsum("bkm,bm->bk", chosen, finite(scores))
    return torch.where(chosen.detach().sum(-1) > 0.5, expected, -torch.inf)
