"""Ancestral sampling of whole sequences from a step decoder."""

import torch
from torch import Tensor

from diffdecode.sequence.hard_beam import append_step
from diffdecode.sequence.precision import outside_autocast
from diffdecode.sequence.search_space import SearchSpace, length_bounds
from diffdecode.sequence.step_decoder import State, StepDecoder, first_input, reorder


@torch.no_grad()
@outside_autocast
def sample_sequences(
    decoder: StepDecoder, state: State, lengths: Tensor, noise: Tensor, space: SearchSpace
) -> Tensor:
    """Independent samples of the decoder's distribution over the sequences of a search space.

    The noise is given, not drawn: a sentence with the same noise has the same samples, whatever its batch.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        lengths: ``[B]`` largest number of symbols of a sample, EOS included, >= 0.
        noise: ``[B, n, T]`` uniform in [0, 1), T at least the largest length: one number a symbol.
        space: what may be emitted, and whether an end symbol ends a sample. Samples are of the softmax, over
            the symbols of the space that may come next, whatever its ``score_normalizer``.

    Returns:
        ``[B, n, T']`` ids, T' the number of steps taken. Positions at or beyond a sentence's length, and
        those after all its samples have ended, hold ``-1``; a sample that ends before others of its sentence
        is continued by PAD.

    Raises:
        ValueError: a negative length, or less noise than there are symbols.
    """
    (batch, samples, steps), device = noise.shape, lengths.device
    longest = length_bounds(lengths)[1]
    if longest > steps:
        raise ValueError(f"noise for {steps} steps, and samples of up to {longest} symbols")
    symbols = torch.zeros(batch, 1, 0, dtype=torch.long, device=device)
    nothing = torch.zeros(batch, 1, device=device)
    finished, permitted = space.none_finished(nothing), space.first_permitted(nothing)
    vectors = first_input(decoder, batch)
    for t in range(longest):
        running = space.running(finished, lengths, t)[:, None]
        if not bool(running.any()):
            break
        width = symbols.size(1)
        log_probs, state = decoder.step(state, vectors)
        local = space.local_scores(log_probs.view(batch, width, -1), finished, 0.0, permitted=permitted)
        local = space.without_early_end(local, space.symbols, t)
        choice = _inverse_cdf(local.softmax(2).expand(-1, samples, -1), noise[:, :, t])
        emitted = torch.where(running, space.symbols[choice], -1)
        # One row of each sentence takes the first step for all of its samples.
        parent = torch.arange(samples, device=device).clamp(max=width - 1).expand(batch, -1)
        finished = space.finish_hard(finished, parent, emitted)
        permitted = space.permitted_after(choice, nothing.dtype)
        symbols = append_step(symbols, parent, emitted)
        if width < samples:
            rows = torch.arange(batch, device=device).repeat_interleave(samples)
            state = reorder(decoder, state, rows)
        vectors = decoder.embedding[emitted.clamp(min=0).flatten()]
    return symbols.expand(-1, samples, -1)


def _inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """Indices ``[...]`` drawn from ``probs [..., C]`` with one number ``[...]`` each; 0 is never drawn.

    In float64: a sum of 32,000 float32 probabilities is wrong by more than many of them.
    """
    cumulative = probs.double().cumsum(-1)
    threshold = uniform[..., None].double() * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[..., 0].clamp(max=probs.size(-1) - 1)
