"""Standard beam search (soft beam search 2018, Algorithm 1) over a step decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.sequence.costs import StepCost, step_costs
from diffdecode.sequence.search_space import SearchSpace
from diffdecode.sequence.step_decoder import State, StepDecoder, first_input, reorder


@dataclass
class Hypotheses:
    """The final beam, best first.

    Attributes:
        symbols: ``[B, K, T]`` ids; positions at or beyond a sentence's length hold ``-1``.
        scores: ``[B, K]`` cumulative log-probabilities (plus weighted costs, if any were added to them);
            ``-inf`` where fewer than K hypotheses exist.
        step_scores: ``[B, K, T]`` log-probability of each symbol, 0 beyond the length.
        costs: ``[B, K]`` cumulative costs D_T.
    """

    symbols: Tensor
    scores: Tensor
    step_scores: Tensor
    costs: Tensor


@torch.no_grad()
def hard_beam(
    decoder: StepDecoder,
    state: State,
    lengths: Tensor,
    beam_size: int,
    space: SearchSpace,
    cost: StepCost | None = None,
    cost_weight: float = 0.0,
) -> Hypotheses:
    """Keep the ``beam_size`` best prefixes at each step; ``beam_size=1`` is greedy search.

    The beam starts with one element and grows: k equal elements, as Algorithm 1, line 1 is printed, would
    stay k copies of the greedy search.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        lengths: ``[B]`` number of steps of each sentence, >= 1; a shorter sentence's beam is left as it is.
        beam_size: K.
        space: what may be emitted, and whether an end symbol ends a hypothesis.
        cost: d(y_t) of each symbol; ``None`` counts nothing (and the search ends once every hypothesis has).
        cost_weight: weight of the step cost *added to the scores* (cost-augmented search, section 2.5).

    Returns:
        The final beam. Results do not depend on the other sentences in the batch.
    """
    batch, device = lengths.size(0), lengths.device
    offset = torch.arange(batch, device=device)[:, None]
    vectors = first_input(decoder, batch)
    scores = costs = torch.zeros(batch, 1, device=device)
    finished = space.none_finished(scores)
    symbols = torch.zeros(batch, 1, 0, dtype=torch.long, device=device)
    step_scores = scores.new_zeros(batch, 1, 0)
    for t in range(int(lengths.max())):
        width = scores.size(1)
        log_probs, state = decoder.step(state, vectors)
        local = space.local_scores(log_probs.view(batch, width, -1), finished, floor=0.0)  # [B, K, C]
        local = space.without_early_end(local, space.symbols, t)
        symbol_costs = step_costs(cost, t, space.symbols.expand(batch, -1)).to(local.dtype)  # [B, C]
        candidates = (scores[..., None] + local + cost_weight * symbol_costs[:, None]).flatten(1)
        k = min(beam_size, candidates.size(1))
        best, index = candidates.topk(k, dim=1)
        parent, choice = index // space.size, index % space.size

        active = (t < lengths)[:, None]
        keep = torch.arange(k, device=device).expand(batch, -1)
        parent = torch.where(active, parent, keep.clamp(max=width - 1))
        held = torch.where(keep < width, scores.gather(1, keep.clamp(max=width - 1)), -torch.inf)
        scores = torch.where(active, best, held)
        costs = costs.gather(1, parent) + torch.where(active, symbol_costs.gather(1, choice), 0.0)
        emitted = space.symbols[choice]
        step_score = local.flatten(1).gather(1, index)

        finished = space.finish_hard(finished, parent, emitted)
        symbols = append_step(symbols, parent, torch.where(active, emitted, -1))
        step_scores = append_step(step_scores, parent, torch.where(active, step_score, 0.0))
        state = reorder(decoder, state, (offset * width + parent).flatten())
        vectors = decoder.embedding[emitted.flatten()]
        if cost is None and space.all_finished(finished):
            break
    return Hypotheses(symbols, scores, step_scores, costs)


def append_step(history: Tensor, parent: Tensor, last: Tensor) -> Tensor:
    """Follow the back-pointers of one step and append: ``history [B, K, T]`` -> ``[B, K', T + 1]``."""
    prefix = history.gather(1, parent[..., None].expand(-1, -1, history.size(2)))
    return torch.cat([prefix, last[..., None]], dim=2)
