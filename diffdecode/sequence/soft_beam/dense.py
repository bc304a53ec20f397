"""Continuous relaxation of beam search (soft beam search 2018, Algorithm 3) over a step decoder.

Differences to the printed algorithm: the beam starts with one element and grows (k equal elements would stay
k equal elements); there are exactly ``lengths`` steps, and none once all elements of a sentence have ended;
scores and costs accumulate in float32.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffdecode.categorical import refuse_bad_best, relaxed_rows
from diffdecode.sequence.costs import PathCost, StepCost, step_costs
from diffdecode.sequence.precision import outside_autocast
from diffdecode.sequence.search_space import SearchSpace
from diffdecode.sequence.soft_beam.beam import (
    Beam,
    Choice,
    Observer,
    Problem,
    Selection,
    SoftBeam,
    SoftBeamOptions,
    expected_scores,
)
from diffdecode.sequence.step_decoder import State, StepDecoder, predict


@outside_autocast
def soft_beam(
    decoder: StepDecoder,
    state: State,
    lengths: Tensor,
    space: SearchSpace,
    options: SoftBeamOptions,
    cost: StepCost | None = None,
    observe: Observer | None = None,
    path_cost: PathCost | None = None,
) -> SoftBeam:
    """Run the relaxed beam search; everything it returns can be differentiated.

    Under autocast, the decoder's steps run in it and the search does not.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        lengths: ``[B]`` number of steps of each sentence, >= 0. A sentence's result does not depend on its
            batch mates.
        space: what may be emitted, and how it is scored.
        options: beam size, alpha and operator.
        cost: d(y_t) of each symbol; ``None`` counts nothing (and a search without gradient then ends once
            every element has ended).
        observe: called at each step, without gradient; its results are returned in ``observed``.
        path_cost: cost that depends on the symbols before, too, and is added to the costs alone.

    Raises:
        ValueError: beam larger than the number of symbols, a negative length, or scores that are not finite
            (naming the batch row).
        TypeError: a space whose scores the decoder cannot give (``predict``).
    """
    problem = Problem(decoder, lengths, space, options, cost, path_cost)
    beam, observed, best = problem.first_beam(state), [], []
    step = partial(_step, problem, _candidate_embeddings(decoder, space), observe)
    light_step = partial(checkpoint, step, use_reentrant=False)
    for t in range(problem.bounds[1]):
        running = space.running(beam.finished, lengths, t)
        if problem.may_stop(running):
            break
        beam, seen, best_of_step = (light_step if options.recomputes(t) else step)(beam, t, running)
        observed.append(seen)
        best.append(best_of_step)
    if best:
        refuse_bad_best(torch.stack(best, 1))
    return problem.result(beam, observed)


def _candidate_embeddings(decoder: StepDecoder, space: SearchSpace) -> Tensor:
    """Rows ``[C, d]`` of the candidates; PAD is no word: its row is zero and gets no gradient."""
    rows = decoder.embedding.index_select(0, space.symbols)
    return rows if space.pad is None else rows.masked_fill((space.symbols == space.padding)[:, None], 0.0)


def _step(
    problem: Problem, embeddings: Tensor, observe: Observer | None, beam: Beam, t: int, running: Tensor
) -> tuple[Beam, Any, Tensor]:
    """One pass through the loop of Algorithm 3, for the sentences that are ``running [B]``.

    Returns:
        The beam, what was observed, and the best candidates' scores ``[B]``: not finite where any is NaN or
        +inf, or none is possible.
    """
    space, options = problem.space, problem.options
    batch, width = beam.scores.shape
    log_probs, log_z, state = predict(problem.decoder, beam.state, beam.vectors, space.is_normalised)
    log_z = None if log_z is None else log_z.view(batch, width)
    log_probs = log_probs.view(batch, width, -1)
    local = space.local_scores(log_probs, beam.finished, log_z=log_z, permitted=beam.permitted)  # [B, J, C]
    local = space.without_early_end(local, space.symbols, t)
    symbol_costs = step_costs(problem.cost, t, space.symbols.expand(batch, -1)).to(local.dtype)  # line 6
    candidates = beam.scores[..., None] + local  # line 5
    if options.cost_weight:
        candidates = candidates + options.cost_weight * symbol_costs[:, None]  # line 5 of section 2.5

    flat = problem.without_held(candidates.flatten(1), t, running)
    chosen = relaxed_rows(
        flat, options.beam_size, options.alpha, options.operator, options.hard_forward
    )  # [B, K, J * C], line 7
    by_pair = chosen.view(batch, options.beam_size, width, space.size)
    symbols = by_pair.sum(2)  # [B, K, C], line 10
    costs, memory = torch.einsum("bkc,bc->bk", symbols, symbol_costs), None
    if problem.path_cost is not None:
        elements = torch.arange(width, device=flat.device).repeat_interleave(space.size).expand(batch, -1)
        each = space.symbols.repeat(width).expand(batch, -1)  # [B, J * C]
        paid, memory = problem.paid_on_paths(beam, t, elements, each, chosen)
        costs = costs + paid
    choice = Choice(
        parents=by_pair.sum(3),  # line 9
        vectors=(symbols.to(embeddings.dtype) @ embeddings).flatten(0, 1),  # line 11
        scores=expected_scores(chosen, flat),  # line 13
        costs=costs,  # line 12
        words=space.words(symbols, space.symbols),
        finished=space.finish_soft(symbols, space.symbols),
        permitted=space.permitted_after_soft(symbols),
        memory=memory,
    )
    new = problem.continued(beam, state, choice, t, running)
    seen = None if observe is None else observe(Selection(by_pair.detach(), new.scores.detach(), running))
    return new, seen, flat.detach().amax(1)
