"""Decoding with the soft beam (soft beam search 2018, section 2.4): hard back-pointers of a soft search."""

from dataclasses import replace

import torch
from torch import Tensor

from diffdecode.sequence.hard_beam import Hypotheses, append_step
from diffdecode.sequence.search_space import SearchSpace
from diffdecode.sequence.soft_beam.beam import Selection, SoftBeamOptions
from diffdecode.sequence.soft_beam.dense import soft_beam
from diffdecode.sequence.step_decoder import State, StepDecoder


class _Follow:
    """The most likely (back-pointer, symbol) ``[B, K]`` of each element, the scores, who is running.

    What an element mixes may permit a symbol that its most likely symbol does not: here the latter counts.
    """

    def __init__(self, space: SearchSpace):
        self.space = space
        self.last: Tensor | None = None  # places [B, J] of the elements' symbols

    def __call__(self, seen: Selection) -> tuple[Tensor, Tensor, Tensor]:
        weights, transitions = seen.weights, self.space.transitions
        if transitions is not None:
            permitted = transitions[-1] if self.last is None else transitions[self.last][:, None]
            weights = weights.masked_fill(~permitted, -1.0)
        best = weights.flatten(2).argmax(2)
        self.last = best % self.space.size
        return best, seen.scores, seen.running[:, None]


@torch.no_grad()
def soft_beam_decode(
    decoder: StepDecoder, state: State, lengths: Tensor, space: SearchSpace, options: SoftBeamOptions
) -> Hypotheses:
    """Follow the most likely back-pointer and symbol of every soft choice.

    The choices themselves stay soft: scores, states and inputs are those of the relaxed search, which is why
    the result differs from the hard beam's at small alpha. Two elements of a soft beam may spell the same
    hypothesis.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        lengths: ``[B]`` number of steps of each sentence, >= 0.
        space: what may be emitted, and how it is scored.
        options: beam size, alpha and operator; costs are not used.

    Returns:
        The K hypotheses of each sentence by falling soft score s_T; ``step_scores`` are the growth of the
        soft score from the parent to the element.

    Raises:
        ValueError: as ``soft_beam``.
        TypeError: as ``soft_beam``.
    """
    found = soft_beam(
        decoder,
        state,
        lengths,
        space,
        replace(options, cost_weight=0.0),
        observe=_Follow(space),
    )
    batch, k = found.scores.shape
    symbols = torch.zeros(batch, 1, 0, dtype=torch.long, device=lengths.device)
    step_scores = found.scores.new_zeros(batch, 1, 0)
    scores = found.scores.new_zeros(batch, 1)
    keep = torch.arange(k, device=lengths.device).expand(batch, -1)
    for best, new_scores, running in found.observed:
        parent = torch.where(running, best // space.size, keep.clamp(max=scores.size(1) - 1))
        emitted = torch.where(running, space.symbols[best % space.size], -1)
        growth = torch.where(running, new_scores - scores.gather(1, parent), 0.0)
        symbols = append_step(symbols, parent, emitted)
        step_scores = append_step(step_scores, parent, growth)
        scores = new_scores
    if not found.observed:  # nothing but empty sentences
        symbols, step_scores = symbols.expand(-1, k, -1), step_scores.expand(-1, k, -1)
    order = found.scores.argsort(dim=1, descending=True, stable=True)
    zeros = torch.zeros_like(found.scores)
    return Hypotheses(
        _sorted(symbols, order), found.scores.gather(1, order), _sorted(step_scores, order), costs=zeros
    )


def _sorted(history: Tensor, order: Tensor) -> Tensor:
    return history.gather(1, order[..., None].expand(-1, -1, history.size(2)))
