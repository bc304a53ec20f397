"""Standard beam search (soft beam search 2018, Algorithm 1) over a step decoder.

``hard_beam`` searches whole sentences; where one is still arriving, ``first_beam`` and ``next_beam`` take its
steps one by one, and the beam is kept between them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffdecode.sequence.costs import StepCost, missing_costs, step_costs
from diffdecode.sequence.precision import outside_autocast
from diffdecode.sequence.search_space import SearchSpace, length_bounds
from diffdecode.sequence.step_decoder import State, StepDecoder, first_input, predict, reorder


@dataclass
class Hypotheses:
    """The final beam, best first.

    Attributes:
        symbols: ``[B, K, T]`` ids. Positions at or beyond a sentence's length, and those after all its
            hypotheses have ended, hold ``-1``; a hypothesis that ends before others holds PAD.
        scores: ``[B, K]`` cumulative local scores, log-probabilities unless the search space says otherwise
            (plus weighted costs, if any were added to them); ``-inf`` where fewer than K hypotheses exist.
        step_scores: ``[B, K, T]`` local score of each symbol, 0 where there is none.
        costs: ``[B, K]`` cumulative costs D_T.
    """

    symbols: Tensor
    scores: Tensor
    step_scores: Tensor
    costs: Tensor

    @property
    def agreed(self) -> Tensor:
        """``[B]``: how many symbols from the first on are the same in all hypotheses of a sentence.

        A beam only continues what is on it: no further step can change these.
        """
        first = self.symbols[:, :1]
        same = (self.symbols == first) | self.scores.isneginf()[..., None]
        return (same.all(1) & (first[:, 0] >= 0)).cumprod(1).sum(1)


class HardBeam(NamedTuple):
    """A beam between two steps.

    Attributes:
        state: the decoder's memory, ``B * K`` rows.
        vectors: ``[B * K, d]`` embeddings of the last symbols, the next input.
        hypotheses: the K prefixes of each sentence.
        finished: ``[B, K]`` degrees of having ended (0 or 1), or ``None``.
        permitted: ``[B, K, C]`` degrees (0 or 1) to which each symbol may come next, or ``None``.
    """

    state: State
    vectors: Tensor
    hypotheses: Hypotheses
    finished: Tensor | None
    permitted: Tensor | None


@torch.no_grad()
@outside_autocast
def hard_beam(
    decoder: StepDecoder,
    state: State,
    lengths: Tensor,
    beam_size: int,
    space: SearchSpace,
    cost: StepCost | None = None,
    cost_weight: float = 0.0,
    reference: Tensor | None = None,
) -> Hypotheses:
    """Keep the ``beam_size`` best prefixes at each step; ``beam_size=1`` is greedy search.

    The beam starts with one element and grows: k equal elements, as Algorithm 1, line 1 is printed, would
    stay k copies of the greedy search. Under autocast, the decoder's steps run in it and the search does not.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        lengths: ``[B]`` number of steps of each sentence, >= 0; a shorter sentence's beam is left as it is.
        beam_size: K.
        space: what may be emitted and how it is scored, and whether an end symbol ends a hypothesis.
        cost: d(y_t) of each symbol; ``None`` counts nothing (and the search ends once every hypothesis has).
        cost_weight: weight of the step cost *added to the scores* (cost-augmented search, section 2.5).
        reference: ``[B, T]`` ids. A sentence's search ends with the step after which its reference is no
            longer on the beam (early update; Collins and Roark 2004); beyond T it goes on with PAD.

    Returns:
        The final beam. Results do not depend on the other sentences in the batch.

    Raises:
        ValueError: a negative length.
        TypeError: a space whose scores the decoder cannot give (``predict``).
    """
    beam = first_beam(decoder, state, lengths.size(0), space)
    on_beam = torch.ones_like(lengths, dtype=torch.bool)
    for t in range(length_bounds(lengths)[1]):
        running = on_beam & space.running(beam.finished, lengths, t)
        may_stop = cost is None and (space.eos is not None or reference is not None)
        if may_stop and not bool(running.any()):
            break
        symbol_costs = step_costs(cost, t, space.symbols.expand(len(lengths), -1))
        missing = missing_costs(cost, t, lengths, space.pad)
        beam = _step(decoder, beam, running[:, None], beam_size, space, symbol_costs, missing, cost_weight)
        if reference is not None:
            on_beam &= _contains(beam.hypotheses.symbols, reference, space.padding)
    return beam.hypotheses


def first_beam(decoder: StepDecoder, state: State, batch: int, space: SearchSpace) -> HardBeam:
    """The beam before the first step: one element, that has no symbol.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        batch: B.
        space: of the search.
    """
    vectors = first_input(decoder, batch)
    scores = torch.zeros(batch, 1, device=vectors.device)
    symbols = torch.zeros(batch, 1, 0, dtype=torch.long, device=vectors.device)
    hypotheses = Hypotheses(symbols, scores, scores.new_zeros(batch, 1, 0), scores)
    return HardBeam(state, vectors, hypotheses, space.none_finished(scores), space.first_permitted(scores))


@torch.no_grad()
@outside_autocast
def next_beam(decoder: StepDecoder, beam: HardBeam, beam_size: int, space: SearchSpace) -> HardBeam:
    """The beam after one more step: after the last word, that of ``hard_beam``.

    What a step reads of its sentence may be put into the beam's state just before it.

    Args:
        decoder: the model.
        beam: from ``first_beam`` or from here.
        beam_size: K.
        space: what may be emitted and how it is scored. A sentence whose hypotheses have all ended is held.

    Raises:
        TypeError: a space whose scores the decoder cannot give (``predict``).
    """
    symbols = beam.hypotheses.symbols
    batch, _, t = symbols.shape
    running = space.running(beam.finished, symbols.new_full((batch,), t + 1), t)
    no_costs = beam.hypotheses.scores.new_zeros(batch, space.size)
    return _step(decoder, beam, running[:, None], beam_size, space, no_costs, no_costs[:, :1], 0.0)


def _step(
    decoder: StepDecoder,
    beam: HardBeam,
    running: Tensor,
    beam_size: int,
    space: SearchSpace,
    symbol_costs: Tensor,
    missing: Tensor,
    cost_weight: float,
) -> HardBeam:
    """One pass through the loop of Algorithm 1, for the sentences that are ``running [B, 1]``.

    Args:
        decoder: the model.
        beam: before.
        running: the others are held.
        beam_size: K.
        space: of the search.
        symbol_costs: ``[B, C]`` of each symbol.
        missing: ``[B, 1]`` what a sentence that is held pays for this step.
        cost_weight: weight of the costs among the scores.
    """
    old = beam.hypotheses
    batch, width, t = old.symbols.shape
    log_probs, log_z, state = predict(decoder, beam.state, beam.vectors, space.is_normalised)
    log_z = None if log_z is None else log_z.view(batch, width)
    log_probs = log_probs.view(batch, width, -1)
    local = space.local_scores(log_probs, beam.finished, 0.0, log_z, beam.permitted)  # [B, K, C]
    local = space.without_early_end(local, space.symbols, t)
    symbol_costs = symbol_costs.to(local.dtype)
    candidates = (old.scores[..., None] + local + cost_weight * symbol_costs[:, None]).flatten(1)
    k = min(beam_size, candidates.size(1))
    best, index = candidates.topk(k, dim=1)
    parent, choice = index // space.size, index % space.size

    keep = torch.arange(k, device=parent.device).clamp(max=width - 1)
    parent = torch.where(running, parent, keep)
    emitted = torch.where(running, space.symbols[choice], -1)
    # A sentence that has ended is held; but where the reference goes on, each missing word costs.
    held = pad(old.scores, (0, k - width), value=-torch.inf) + cost_weight * missing
    paid = torch.where(running, symbol_costs.gather(1, choice), missing)
    step_score = torch.where(running, local.flatten(1).gather(1, index), 0.0)
    hypotheses = Hypotheses(
        append_step(old.symbols, parent, emitted),
        torch.where(running, best, held),
        append_step(old.step_scores, parent, step_score),
        old.costs.gather(1, parent) + paid,
    )
    rows = torch.arange(batch, device=parent.device)[:, None] * width + parent
    return HardBeam(
        reorder(decoder, state, rows.flatten()),
        decoder.embedding[emitted.clamp(min=0).flatten()],
        hypotheses,
        space.finish_hard(beam.finished, parent, emitted),
        space.permitted_after(choice, hypotheses.scores.dtype),
    )


def _contains(beam: Tensor, reference: Tensor, padding: int) -> Tensor:
    """``[B]`` whether a prefix of the reference ``[B, T]`` is one of ``beam [B, K, t]``."""
    prefix = pad(reference, (0, max(0, beam.size(2) - reference.size(1))), value=padding)[:, : beam.size(2)]
    return (beam == prefix[:, None]).all(2).any(1)


def append_step(history: Tensor, parent: Tensor, last: Tensor) -> Tensor:
    """Follow the back-pointers of one step and append: ``history [B, K, T]`` -> ``[B, K', T + 1]``."""
    prefix = history.gather(1, parent[..., None].expand(-1, -1, history.size(2)))
    return torch.cat([prefix, last[..., None]], dim=2)
