"""Standard beam search (soft beam search 2018, Algorithm 1) over a step decoder."""

from dataclasses import dataclass

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
    batch, device = lengths.size(0), lengths.device
    offset = torch.arange(batch, device=device)[:, None]
    vectors = first_input(decoder, batch)
    scores = costs = torch.zeros(batch, 1, device=device)
    finished, permitted = space.none_finished(scores), space.first_permitted(scores)
    symbols = torch.zeros(batch, 1, 0, dtype=torch.long, device=device)
    step_scores = scores.new_zeros(batch, 1, 0)
    on_beam = torch.ones(batch, dtype=torch.bool, device=device)
    for t in range(length_bounds(lengths)[1]):
        width = scores.size(1)
        running = (on_beam & space.running(finished, lengths, t))[:, None]
        may_stop = cost is None and (space.eos is not None or reference is not None)
        if may_stop and not bool(running.any()):
            break
        log_probs, log_z, state = predict(decoder, state, vectors, space.is_normalised)
        log_z = None if log_z is None else log_z.view(batch, width)
        log_probs = log_probs.view(batch, width, -1)
        local = space.local_scores(log_probs, finished, 0.0, log_z, permitted)  # [B, K, C]
        local = space.without_early_end(local, space.symbols, t)
        symbol_costs = step_costs(cost, t, space.symbols.expand(batch, -1)).to(local.dtype)  # [B, C]
        candidates = (scores[..., None] + local + cost_weight * symbol_costs[:, None]).flatten(1)
        k = min(beam_size, candidates.size(1))
        best, index = candidates.topk(k, dim=1)
        parent, choice = index // space.size, index % space.size

        parent = torch.where(running, parent, torch.arange(k, device=device).clamp(max=width - 1))
        emitted = torch.where(running, space.symbols[choice], -1)
        # A sentence that has ended is held; but where the reference goes on, each missing word costs.
        missing = missing_costs(cost, t, lengths, space.pad)
        held = pad(scores, (0, k - width), value=-torch.inf) + cost_weight * missing
        scores = torch.where(running, best, held)
        costs = costs.gather(1, parent) + torch.where(running, symbol_costs.gather(1, choice), missing)
        step_score = torch.where(running, local.flatten(1).gather(1, index), 0.0)

        finished = space.finish_hard(finished, parent, emitted)
        permitted = space.permitted_after(choice, scores.dtype)
        symbols = append_step(symbols, parent, emitted)
        if reference is not None:
            on_beam &= _contains(symbols, reference, space.padding)
        step_scores = append_step(step_scores, parent, step_score)
        state = reorder(decoder, state, (offset * width + parent).flatten())
        vectors = decoder.embedding[emitted.clamp(min=0).flatten()]
    return Hypotheses(symbols, scores, step_scores, costs)


def _contains(beam: Tensor, reference: Tensor, padding: int) -> Tensor:
    """``[B]`` whether a prefix of the reference ``[B, T]`` is one of ``beam [B, K, t]``."""
    prefix = pad(reference, (0, max(0, beam.size(2) - reference.size(1))), value=padding)[:, : beam.size(2)]
    return (beam == prefix[:, None]).all(2).any(1)


def append_step(history: Tensor, parent: Tensor, last: Tensor) -> Tensor:
    """Follow the back-pointers of one step and append: ``history [B, K, T]`` -> ``[B, K', T + 1]``."""
    prefix = history.gather(1, parent[..., None].expand(-1, -1, history.size(2)))
    return torch.cat([prefix, last[..., None]], dim=2)
