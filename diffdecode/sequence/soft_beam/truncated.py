"""The soft beam over the best M candidates of each sentence, with a bound on what that leaves out.

A peaked operator gives next to nothing to a candidate far below the beam, and almost all of the k * V
candidates are far below. Here a step looks at M of them: it never builds a ``[B, K, K * V]`` selection, mixes
M embeddings instead of V, and the output layer's gradient is that of ``diffdecode.sequence.output_layer``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffdecode.categorical import relaxed_rows, tail_bound
from diffdecode.sequence.costs import StepCost, step_costs
from diffdecode.sequence.output_layer import Prediction, Vocabulary
from diffdecode.sequence.search_space import SOFT_FLOOR, SearchSpace
from diffdecode.sequence.soft_beam.dense import (
    Beam,
    SoftBeam,
    SoftBeamOptions,
    expected_scores,
    first_beam,
    soft_beam,
)
from diffdecode.sequence.step_decoder import LinearStepDecoder, State, mix


@dataclass
class TruncatedSoftBeam(SoftBeam):
    """The final beam.

    Attributes:
        tail: ``[B]`` upper bound on the total variation distance of any selection row of any step to the same
            row over all candidates.
        fell_back: True if ``tail`` was too much, so that the beam is that of the dense search.
    """

    tail: Tensor
    fell_back: bool


class Candidates(NamedTuple):
    """The M best continuations of each sentence.

    Attributes:
        scores: ``[B, M]`` cumulative scores.
        parents: ``[B, M]`` the beam element that each continues.
        symbols: ``[B, M]`` ids.
        cut: ``[B]`` no other continuation scores more.
        mass: ``[B]`` sum of exp(score) over all others, rounded up.
        others: how many others there are.
    """

    scores: Tensor
    parents: Tensor
    symbols: Tensor
    cut: Tensor
    mass: Tensor
    others: int


def truncated_soft_beam(
    decoder: LinearStepDecoder,
    state: State,
    lengths: Tensor,
    space: SearchSpace,
    options: SoftBeamOptions,
    cost: StepCost | None = None,
    observe: Callable[[Tensor, Tensor], Any] | None = None,
    size: int = 64,
    tolerance: float = 1e-3,
) -> TruncatedSoftBeam:
    """``soft_beam`` over the best ``size`` candidates; the dense search where that is not enough.

    Whether it is enough is decided once, at the end, so that a GPU waits once a batch and not once a step; a
    batch that falls back costs both searches. Use it where that seldom happens: with an alpha that is not
    small against 1/gap (``softsort``, ``lapsum``, ``successive``) or 1/gap^2 (``peaked``), for the gap in
    score between the beam and candidate M.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        lengths: ``[B]`` number of steps of each sentence, >= 1.
        space: what may be emitted.
        options: beam size, alpha and operator. ``recompute`` concerns the decoder below its output layer; of
            that layer, a step keeps one set of logits, ``B * K * V`` numbers, in any case.
        cost: d(y_t) of each symbol; ``None`` counts nothing.
        observe: called at each step, without gradient, with the selection ``[B, K, M]`` and the new scores
            ``[B, K]`` (after a fallback: with what the dense search shows).
        size: M.
        tolerance: largest ``tail`` that is accepted; 1 never falls back.

    Raises:
        ValueError: beam larger than the number of symbols or than ``size``, or a sentence without steps.
    """
    if options.beam_size > size:
        raise ValueError(f"{size} candidates are too few for a beam of {options.beam_size}")
    found = _search(decoder, state, lengths, space, options, cost, observe, size)
    # Written so that NaN falls back, too: the dense search names the sentence.
    if bool((found.tail <= tolerance).all()):
        return found
    dense = soft_beam(decoder, state, lengths, space, options, cost, observe)
    return TruncatedSoftBeam(**vars(dense), tail=found.tail, fell_back=True)


def _search(
    decoder: LinearStepDecoder,
    state: State,
    lengths: Tensor,
    space: SearchSpace,
    options: SoftBeamOptions,
    cost: StepCost | None,
    observe: Callable[[Tensor, Tensor], Any] | None,
    size: int,
) -> TruncatedSoftBeam:
    beam = first_beam(decoder, state, lengths, space, options)
    batch, steps = lengths.size(0), int(lengths.max())
    rows = batch * (1 + (steps - 1) * options.beam_size)
    vocabulary = Vocabulary(decoder, rows, _not_predicted(space, decoder.output_weight.size(0)))
    tail, observed = torch.zeros_like(beam.scores[:, 0], dtype=torch.float64), []
    light_features = partial(checkpoint, decoder.features, use_reentrant=False)
    for t in range(steps):
        features = light_features if options.recomputes(t) else decoder.features
        hidden, state = features(beam.state, beam.vectors)
        predicted = vocabulary.predict(hidden, min(size, vocabulary.candidates))
        found = best_continuations(predicted, beam, space, cost, t, options.cost_weight, size)
        chosen = relaxed_rows(
            found.scores, options.beam_size, options.alpha, options.operator, options.hard_forward
        )
        active = (t < lengths)[:, None]
        bound = tail_bound(
            found.scores.detach(),
            options.beam_size,
            options.alpha,
            options.operator,
            found.cut,
            found.others,
            found.mass,
        )
        tail = torch.maximum(tail, torch.where(active[:, 0], bound, 0.0))
        beam = _select(vocabulary, decoder, beam._replace(state=state), found, chosen, space, cost, t, active)
        if observe:
            observed.append(observe(chosen.detach(), beam.scores.detach()))
    return TruncatedSoftBeam(beam.scores, beam.costs, beam.words, options, observed, tail, fell_back=False)


def _not_predicted(space: SearchSpace, vocabulary: int) -> Tensor:
    """Ids that are not chosen by log-probability; after an end, PAD is chosen by the degree of ending."""
    allowed = torch.zeros(vocabulary, dtype=torch.bool, device=space.symbols.device)
    allowed[space.symbols] = True
    if space.eos is not None:
        allowed[space.pad] = False
    return (~allowed).nonzero()[:, 0]


def best_continuations(
    predicted: Prediction,
    beam: Beam,
    space: SearchSpace,
    cost: StepCost | None,
    t: int,
    cost_weight: float,
    size: int,
) -> Candidates:
    """Merge the best candidates of each beam element (Algorithm 3, line 5) into those of the sentence."""
    batch, width = beam.scores.shape
    local = predicted.best.view(batch, width, -1)
    symbols = predicted.symbols.view(batch, width, -1)
    prefix = beam.scores
    if beam.finished is not None:
        prefix = prefix + torch.log((1.0 - beam.finished).clamp_min(SOFT_FLOOR))
    scores = space.without_early_end(prefix[..., None] + local, symbols, t)
    cut = (
        (prefix + local[..., -1]).detach().amax(1)
        if predicted.outside
        else prefix.new_full((batch,), -torch.inf)
    )
    log_mass = (prefix.detach() + predicted.rest.view(batch, width).log()).logsumexp(1)
    if beam.finished is not None:
        absorbed = beam.scores + torch.log(beam.finished.clamp_min(SOFT_FLOOR))
        scores = torch.cat([scores, absorbed[..., None]], 2)
        symbols = torch.cat([symbols, torch.full_like(symbols[..., :1], space.pad)], 2)
    if cost_weight:
        scores = scores + cost_weight * step_costs(cost, t, symbols.flatten(1)).to(scores.dtype).view_as(
            scores
        )
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
        torch.logaddexp(log_mass, dropped.logsumexp(1)).exp(),
        width * (predicted.outside + each) - best.size(1),
    )


def _select(
    vocabulary: Vocabulary,
    decoder: LinearStepDecoder,
    beam: Beam,
    found: Candidates,
    chosen: Tensor,
    space: SearchSpace,
    cost: StepCost | None,
    t: int,
    active: Tensor,
) -> Beam:
    """Lines 9 to 17 of Algorithm 3 with the rows ``chosen [B, K, M]``; ``beam.state`` is the new one."""
    continues = torch.nn.functional.one_hot(found.parents, beam.scores.size(1)).to(chosen.dtype)  # [B, M, J]
    parents = torch.bmm(chosen, continues)  # line 9
    # PAD is no word: it adds nothing to the embedding.
    spoken = chosen if space.pad is None else chosen * (found.symbols != space.pad)[:, None]
    vectors = vocabulary.mix(found.symbols, spoken)  # line 11
    symbol_costs = step_costs(cost, t, found.symbols).to(chosen.dtype)
    costs = torch.einsum("bkm,bm->bk", chosen, symbol_costs)  # line 12
    costs = costs + torch.einsum("bkj,bj->bk", parents, beam.costs)  # line 17
    scores = expected_scores(chosen, found.scores)  # line 13
    words = space.words(chosen, found.symbols[:, None]) + torch.einsum("bkj,bj->bk", parents, beam.words)
    return Beam(
        mix(decoder, beam.state, parents),  # line 16
        vectors.flatten(0, 1),
        torch.where(active, scores, beam.scores),
        torch.where(active, costs, beam.costs),
        torch.where(active, words, beam.words),
        space.finish_soft(chosen, found.symbols[:, None]),
    )
