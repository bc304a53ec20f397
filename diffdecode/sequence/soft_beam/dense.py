"""Continuous relaxation of beam search (soft beam search 2018, Algorithm 3) over a step decoder.

Differences to the printed algorithm: the beam starts with one element and grows (k equal elements would stay
k equal elements); there are exactly ``lengths`` steps; scores and costs accumulate in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffdecode.categorical import continuous_top_k
from diffdecode.sequence.costs import StepCost, step_costs
from diffdecode.sequence.search_space import SearchSpace
from diffdecode.sequence.step_decoder import State, StepDecoder, first_input, mix

# Score of an element that there was no candidate for: never chosen, and finite in every product.
NO_CANDIDATE = -1e4


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
    """

    state: State
    vectors: Tensor
    scores: Tensor
    costs: Tensor
    words: Tensor
    finished: Tensor | None


@dataclass
class SoftBeam:
    """The final beam of a soft search.

    Attributes:
        scores: ``[B, K]`` s_T.
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

    def max_score(self) -> Tensor:
        """``[B]`` relaxed ranking of the best hypothesis, s_max of the hinge (section 2.5)."""
        return (self.choice * self.ranking).sum(1)


def normalised(scores: Tensor, words: Tensor, length_penalty: float) -> Tensor:
    """``scores / words ** length_penalty``, with at least one word."""
    return scores / words.clamp_min(1.0) ** length_penalty if length_penalty else scores


def soft_beam(
    decoder: StepDecoder,
    state: State,
    lengths: Tensor,
    space: SearchSpace,
    options: SoftBeamOptions,
    cost: StepCost | None = None,
    observe: Callable[[Tensor, Tensor], Any] | None = None,
) -> SoftBeam:
    """Run the relaxed beam search; everything it returns can be differentiated.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        lengths: ``[B]`` number of steps of each sentence, >= 1. A sentence's result does not depend on its
            batch mates.
        space: what may be emitted.
        options: beam size, alpha and operator.
        cost: d(y_t) of each symbol; ``None`` counts nothing (and a search without gradient then ends once
            every element has ended).
        observe: called at each step, without gradient, with the selection ``[B, K_out, K_in, C]`` and the new
            scores ``[B, K_out]``; its results are returned in ``observed``.

    Raises:
        ValueError: beam larger than the number of symbols, or a sentence without steps.
    """
    beam = first_beam(decoder, state, lengths, space, options)
    step = partial(_step, decoder, space, _candidate_embeddings(decoder, space), options, cost, observe)
    light_step = partial(checkpoint, step, use_reentrant=False)
    observed = []
    for t in range(int(lengths.max())):
        run = light_step if options.recomputes(t) else step
        beam, seen = run(beam, t, (t < lengths)[:, None])
        observed.append(seen)
        if cost is None and not torch.is_grad_enabled() and space.all_finished(beam.finished):
            break
    return SoftBeam(beam.scores, beam.costs, beam.words, options, observed)


def first_beam(
    decoder: StepDecoder, state: State, lengths: Tensor, space: SearchSpace, options: SoftBeamOptions
) -> Beam:
    """The beam of one element before the first step, after checking the search's arguments."""
    if not 1 <= options.beam_size <= space.size:
        raise ValueError(
            f"beam size {options.beam_size} must be between 1 and the number of symbols that may be emitted, "
            f"{space.size}"
        )
    if int(lengths.min()) < 1:
        raise ValueError(f"sentence {int(lengths.argmin())} of the batch has no steps")
    batch = lengths.size(0)
    start = torch.zeros(batch, 1, device=lengths.device)
    return Beam(state, first_input(decoder, batch), start, start, start, space.none_finished(start))


def expected_scores(chosen: Tensor, scores: Tensor) -> Tensor:
    """``sum_m p_m s_m`` ``[B, K]`` of rows ``[B, K, M]`` and candidates' scores ``[B, M]`` (line 13).

    An impossible candidate has weight 0 and score -inf; their product is 0. A surplus row, with no candidate
    at all, is worth ``NO_CANDIDATE``.
    """
    expected = torch.einsum("bkm,bm->bk", chosen, scores.masked_fill(scores == -torch.inf, 0.0))
    return torch.where(chosen.detach().sum(-1) > 0.5, expected, NO_CANDIDATE)


def _candidate_embeddings(decoder: StepDecoder, space: SearchSpace) -> Tensor:
    """Rows ``[C, d]`` of the candidates; PAD is no word: its row is zero and gets no gradient."""
    rows = decoder.embedding.index_select(0, space.symbols)
    return rows if space.pad is None else rows.masked_fill((space.symbols == space.pad)[:, None], 0.0)


def _step(
    decoder: StepDecoder,
    space: SearchSpace,
    embeddings: Tensor,
    options: SoftBeamOptions,
    cost: StepCost | None,
    observe: Callable[[Tensor, Tensor], Any] | None,
    beam: Beam,
    t: int,
    active: Tensor,
) -> tuple[Beam, Any]:
    """One pass through the loop of Algorithm 3; rows that are not ``active [B, 1]`` keep scores and costs."""
    batch, width = beam.scores.shape
    log_probs, state = decoder.step(beam.state, beam.vectors)
    local = space.local_scores(log_probs.view(batch, width, -1), beam.finished)  # [B, J, C]
    local = space.without_early_end(local, space.symbols, t)
    symbol_costs = step_costs(cost, t, space.symbols.expand(batch, -1)).to(local.dtype)  # [B, C], line 6
    candidates = beam.scores[..., None] + local  # line 5
    if options.cost_weight:
        candidates = candidates + options.cost_weight * symbol_costs[:, None]  # line 5 of section 2.5

    flat = candidates.flatten(1)
    chosen = continuous_top_k(
        flat, options.beam_size, options.alpha, options.operator, options.hard_forward
    )  # [B, K, J * C], line 7
    by_pair = chosen.view(batch, options.beam_size, width, space.size)
    parents = by_pair.sum(3)  # soft back-pointers [B, K, J], line 9
    symbols = by_pair.sum(2)  # [B, K, C], line 10
    vectors = symbols.to(embeddings.dtype) @ embeddings  # line 11
    costs = torch.einsum("bkc,bc->bk", symbols, symbol_costs)  # line 12
    costs = costs + torch.einsum("bkj,bj->bk", parents, beam.costs)  # line 17
    scores = expected_scores(chosen, flat)  # line 13
    words = space.words(symbols, space.symbols) + torch.einsum("bkj,bj->bk", parents, beam.words)

    new = Beam(
        mix(decoder, state, parents),  # line 16
        vectors.flatten(0, 1),
        torch.where(active, scores, beam.scores),
        torch.where(active, costs, beam.costs),
        torch.where(active, words, beam.words),
        space.finish_soft(symbols, space.symbols),
    )
    return new, observe(by_pair.detach(), new.scores.detach()) if observe else None
