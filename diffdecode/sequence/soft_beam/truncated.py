"""The soft beam over the best M candidates of each sentence, with a bound on what that leaves out.

A peaked operator gives next to nothing to a candidate far below the beam, and almost all of the k * V
candidates are far below. Here a step looks at M of them: it never builds a ``[B, K, K * V]`` selection, mixes
M embeddings instead of V, and the output layer's gradient is that of ``diffdecode.sequence.output_layer``.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffdecode.categorical import TOP_K_OPERATORS, relaxed_rows, tail_bound
from diffdecode.sequence.costs import PathCost, StepCost, step_costs
from diffdecode.sequence.output_layer import OutputLayer, Prediction
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
from diffdecode.sequence.soft_beam.dense import soft_beam
from diffdecode.sequence.step_decoder import LinearStepDecoder, State


@dataclass
class TruncatedSoftBeam(SoftBeam):
    """The final beam.

    Attributes:
        tail: ``[B]`` upper bound on the total variation distance of any selection row of any step to the same
            row over all candidates.
        fell_back: ``[B]`` boolean, True if ``tail`` was too much, so that a sentence's beam is that of the
            dense search.
    """

    tail: Tensor
    fell_back: Tensor


class Candidates(NamedTuple):
    """The M best continuations of each sentence.

    Attributes:
        scores: ``[B, M]`` cumulative scores.
        parents: ``[B, M]`` the beam element that each continues.
        symbols: ``[B, M]`` ids.
        cut: ``[B]`` no other continuation scores more.
        log_mass: ``[B]`` logarithm of the sum of exp(score) over all others, rounded up.
        others: how many others there are.
    """

    scores: Tensor
    parents: Tensor
    symbols: Tensor
    cut: Tensor
    log_mass: Tensor
    others: int


@outside_autocast
def truncated_soft_beam(
    decoder: LinearStepDecoder,
    state: State,
    lengths: Tensor,
    space: SearchSpace,
    options: SoftBeamOptions,
    cost: StepCost | None = None,
    observe: Observer | None = None,
    size: int = 64,
    tolerance: float = 1e-3,
    path_cost: PathCost | None = None,
) -> TruncatedSoftBeam:
    """``soft_beam`` over the best ``size`` candidates; the dense search of sentences that need more.

    Whether they do is decided once, at the end, so that a GPU waits once a batch and not once a step; a batch
    with such a sentence costs both searches. Use it where that seldom happens: with an alpha that is not
    small against 1/gap (``softsort``, ``lapsum``, ``successive``) or 1/gap^2 (``peaked``), for the gap in
    score between the beam and candidate M.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        lengths: ``[B]`` number of steps of each sentence, >= 0.
        space: what may be emitted, and how it is scored.
        options: beam size, alpha and operator. ``recompute`` concerns the decoder below its output layer; of
            that layer, a step keeps one set of logits, ``B * K * V`` numbers, in any case.
        cost: d(y_t) of each symbol; ``None`` counts nothing.
        observe: called at each step, without gradient (after a fallback: what the dense search shows).
        size: M.
        tolerance: largest ``tail`` that is accepted; 1 never falls back.
        path_cost: cost that depends on the symbols before, too, and is added to the costs alone.

    Raises:
        ValueError: beam larger than the number of symbols or than ``size``, an operator without tail bound,
            or a negative length.
    """
    if options.beam_size > size:
        raise ValueError(f"{size} candidates are too few for a beam of {options.beam_size}")
    if TOP_K_OPERATORS[options.operator].tail_bound is None:
        raise ValueError(f"top-k operator {options.operator!r} has no tail bound: use soft_beam")
    problem = Problem(decoder, lengths, space, options, cost, path_cost)
    found = _search(decoder, problem, state, observe, size)
    # Written so that NaN falls back, too: the dense search names the sentence.
    found.fell_back = ~(found.tail <= tolerance)
    redone = int(found.fell_back.sum())
    if not redone:
        return found
    dense = soft_beam(decoder, state, lengths, space, options, cost, observe, path_cost)
    if redone == len(lengths):
        return TruncatedSoftBeam(**vars(dense), tail=found.tail, fell_back=found.fell_back)
    return _merged(found, dense)


def _merged(found: TruncatedSoftBeam, dense: SoftBeam) -> TruncatedSoftBeam:
    """Of each sentence, the result of the search that was good enough: its batch mates must not decide."""
    redone = found.fell_back[:, None]
    return TruncatedSoftBeam(
        torch.where(redone, dense.scores, found.scores),
        torch.where(redone, dense.costs, found.costs),
        torch.where(redone, dense.words, found.words),
        dense.options,
        dense.observed,
        found.tail,
        found.fell_back,
    )


def _search(
    decoder: LinearStepDecoder, problem: Problem, state: State, observe: Observer | None, size: int
) -> TruncatedSoftBeam:
    """The search without its fallback; ``decoder`` is the problem's."""
    space, options = problem.space, problem.options
    beam, steps = problem.first_beam(state), problem.bounds[1]
    rows = beam.scores.size(0) * (1 + max(steps - 1, 0) * options.beam_size)
    layer = OutputLayer(decoder, rows, _not_predicted(space, decoder.output_weight.size(0)))
    looked_at = min(size + space.most_forbidden, layer.candidates)  # ``size`` of them may come next
    looked_through: list[tuple[Candidates, Tensor]] = []
    observed = []
    light_features = partial(checkpoint, decoder.features, use_reentrant=False)
    for t in range(steps):
        running = space.running(beam.finished, problem.lengths, t)
        if problem.may_stop(running):
            break
        features = light_features if options.recomputes(t) else decoder.features
        hidden, state = features(beam.state, beam.vectors)
        found = best_continuations(problem, layer.predict(hidden, looked_at), beam, t, size)
        found = found._replace(scores=problem.without_held(found.scores, t, running))
        chosen = relaxed_rows(
            found.scores, options.beam_size, options.alpha, options.operator, options.hard_forward
        )
        looked_through.append((found, running))
        choice = _choice(problem, layer, beam, found, chosen, t)
        beam = problem.continued(beam, state, choice, t, running)
        if observe:
            observed.append(observe(Selection(chosen.detach(), beam.scores.detach(), running)))
    dense, tail = problem.result(beam, observed), _largest_tail(looked_through, beam.scores, options)
    return TruncatedSoftBeam(**vars(dense), tail=tail, fell_back=torch.zeros_like(tail, dtype=torch.bool))


def _largest_tail(
    selections: list[tuple[Candidates, Tensor]], scores: Tensor, options: SoftBeamOptions
) -> Tensor:
    """Bound ``[B]`` on what any selection of a running sentence leaves out, computed of all steps together.

    Args:
        selections: what was chosen from at each step, and which sentences were running, ``[B]``.
        scores: ``[B, K]`` of the last beam.
        options: beam size, alpha and operator.
    """
    alike: dict[tuple[int, int], list[tuple[Candidates, Tensor]]] = {}
    for found, running in selections:  # the first step has fewer candidates
        alike.setdefault((found.scores.size(1), found.others), []).append((found, running))
    largest = torch.zeros_like(scores[:, 0], dtype=torch.float64)
    for steps in alike.values():
        first = steps[0][0]
        together = first._replace(
            scores=torch.cat([found.scores.detach() for found, _ in steps]),
            cut=torch.cat([found.cut for found, _ in steps]),
            log_mass=torch.cat([found.log_mass for found, _ in steps]),
        )
        running = torch.stack([running for _, running in steps])
        tails = _tail(together, options).view(running.shape)
        largest = torch.maximum(largest, torch.where(running, tails, 0.0).amax(0))
    return largest


def _tail(found: Candidates, options: SoftBeamOptions) -> Tensor:
    """Bound ``[B]`` on what one selection leaves out.

    It depends on differences of scores alone. Taken relative to the cut, exp of them neither vanishes after
    many steps nor overflows where scores are not log-probabilities.
    """
    cut = found.cut.double()
    level = cut.masked_fill(cut == -torch.inf, 0.0)
    return tail_bound(
        found.scores.detach().double() - level[:, None],
        options.beam_size,
        options.alpha,
        options.operator,
        cut - level,
        found.others,
        (found.log_mass.double() - level).exp(),
    )


def _not_predicted(space: SearchSpace, vocabulary: int) -> Tensor:
    """Ids that are not chosen by log-probability; after an end, PAD is chosen by the degree of ending.

    They are as many as is known: looking for them, a GPU does not wait to be told.
    """
    predicted = space.size if space.eos is None else space.size - 1
    allowed = torch.zeros(vocabulary, dtype=torch.uint8, device=space.symbols.device)
    allowed.index_fill_(0, space.symbols, 1)
    if space.eos is not None:
        allowed[space.padding :][:1].fill_(0)
    return allowed.argsort(stable=True)[: vocabulary - predicted]


def best_continuations(problem: Problem, predicted: Prediction, beam: Beam, t: int, size: int) -> Candidates:
    """Merge the best candidates of each beam element (Algorithm 3, line 5) into those of the sentence.

    Args:
        problem: space, cost and cost weight.
        predicted: candidates of the ``B * J`` elements.
        beam: the J elements.
        t: the step.
        size: M, of which fewer are returned if there are no more.
    """
    space, cost, cost_weight = problem.space, problem.cost, problem.options.cost_weight
    batch, width = beam.scores.shape
    local = predicted.best.view(batch, width, -1)
    symbols = predicted.symbols.view(batch, width, -1)
    start = beam.scores
    if not space.is_normalised:
        start = start + space.beyond_log_probs(predicted.log_z.view(batch, width), beam.finished)
    prefix = absorbed = start
    if beam.finished is not None:
        log_running, log_absorbed = space.log_degrees(beam.finished)
        prefix, absorbed = start + log_running, start + log_absorbed
    scores = space.without_early_end(prefix[..., None] + local, symbols, t)
    if beam.permitted is not None:  # what is left out below gains nothing by it: its bounds stay bounds
        scores = scores + space.log_permitted(beam.permitted.gather(2, space.places(symbols)))
    cut = (
        (prefix + local[..., -1]).detach().amax(1)
        if predicted.outside
        else prefix.new_full((batch,), -torch.inf)
    )
    log_mass = (prefix.detach() + predicted.rest.view(batch, width).log()).logsumexp(1)
    if beam.finished is not None:
        scores = torch.cat([scores, absorbed[..., None]], 2)
        symbols = torch.cat([symbols, torch.full_like(symbols[..., :1], space.padding)], 2)
    if cost_weight:
        of_symbols = step_costs(cost, t, symbols.flatten(1)).to(scores.dtype).view_as(scores)
        scores = scores + cost_weight * of_symbols
        dearest = cost_weight * step_costs(cost, t, space.symbols.expand(batch, -1)).amax(1)
        cut, log_mass = cut + dearest, log_mass + dearest

    each = scores.size(2)
    best, index = scores.flatten(1).topk(min(size, width * each), dim=1)
    dropped = scores.detach().flatten(1).scatter(1, index, -torch.inf)
    return Candidates(
        best,
        index // each,
        symbols.flatten(1).gather(1, index),
        torch.maximum(cut, dropped.amax(1)),
        torch.logaddexp(log_mass, dropped.logsumexp(1)),
        width * (predicted.outside + each) - best.size(1),
    )


def _choice(
    problem: Problem, layer: OutputLayer, beam: Beam, found: Candidates, chosen: Tensor, t: int
) -> Choice:
    """Lines 9 to 13 of Algorithm 3 with the rows ``chosen [B, K, M]``."""
    space = problem.space
    continues = torch.nn.functional.one_hot(found.parents, beam.scores.size(1)).to(chosen.dtype)  # [B, M, J]
    # PAD is no word: it adds nothing to the embedding.
    spoken = chosen if space.pad is None else chosen * (found.symbols != space.padding)[:, None]
    symbol_costs = step_costs(problem.cost, t, found.symbols).to(chosen.dtype)
    costs, memory = torch.einsum("bkm,bm->bk", chosen, symbol_costs), None
    if problem.path_cost is not None:
        paid, memory = problem.paid_on_paths(beam, t, found.parents, found.symbols, chosen)
        costs = costs + paid
    return Choice(
        parents=torch.bmm(chosen, continues),  # line 9
        vectors=layer.mix(found.symbols, spoken).flatten(0, 1),  # line 11
        scores=expected_scores(chosen, found.scores),  # line 13
        costs=costs,  # line 12
        words=space.words(chosen, found.symbols[:, None]),
        finished=space.finish_soft(chosen, found.symbols[:, None]),
        permitted=space.permitted_after_soft(chosen, found.symbols),
        memory=memory,
    )
