"""Cross entropy of whole sequences whose scores are not normalised step by step.

The probability of a sequence is the softmax of its score over all sequences. Their sum cannot be computed: it
is taken over the reference and a hard beam and, where the reference falls off the beam, over the prefixes at
that step (*early update*; Collins and Roark 2004). Andor et al. (2016), "Globally Normalized Transition-Based
Neural Networks", section 2. Search first, without gradient; then score what it found, with one.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffdecode.sequence.hard_beam import hard_beam
from diffdecode.sequence.precision import outside_autocast
from diffdecode.sequence.search_space import SearchSpace
from diffdecode.sequence.step_decoder import State, StepDecoder, first_input, predict, reorder


class Contrast(NamedTuple):
    """What a reference is compared with; nothing in it has a gradient.

    Attributes:
        symbols: ``[B, N, T]`` ids: the reference and then, best first, the hypotheses; N is 1 + K, and fewer
            in a space of fewer sequences. -1 where nothing is scored: at and beyond a sentence's last step,
            and after its end symbol.
        counts: ``[B, N]`` boolean: the reference, and each hypothesis that exists and is not the reference.
        kept: ``[B]`` boolean: the reference is on the beam at the end.
    """

    symbols: Tensor
    counts: Tensor
    kept: Tensor


Scorer = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Log-probabilities ``[B, N, T]`` of ``symbols [B, N, T]``, each given the ones before it, and the logarithms
``[B, N, T]`` of the softmax's normalisers there. Where a symbol is -1, they may be anything finite."""


@torch.no_grad()
def contrast(
    decoder: StepDecoder,
    state: State,
    gold: Tensor,
    lengths: Tensor,
    beam_size: int,
    space: SearchSpace,
    early: bool = True,
) -> Contrast:
    """Search for what the reference is to be told from.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        gold: ``[B, T]`` reference ids; in a space that ends with EOS, with EOS and then PAD.
        lengths: ``[B]`` number of steps of each sentence. Without EOS, the length of its reference.
        beam_size: K.
        space: what may be emitted, and how it is scored.
        early: end at the step at which the reference falls off the beam, and compare what there is by then.
            If not, whole hypotheses are compared with the whole reference: for validation.

    Raises:
        ValueError: a negative length.
        TypeError: a space whose scores the decoder cannot give (``predict``).
    """
    found = hard_beam(decoder, state, lengths, beam_size, space, reference=gold if early else None)
    wide = max(found.symbols.size(2), 0 if early else gold.size(1))
    beam = _written(_widened(found.symbols, wide), space)
    steps = (found.symbols[:, 0] >= 0).sum(1) if early else lengths
    inside = torch.arange(wide, device=gold.device) < steps[:, None]
    reference = _written(_widened(gold, wide), space).masked_fill(~inside, -1)[:, None]
    exists, same = found.scores.isfinite(), (beam == reference).all(2)
    counts = torch.cat([torch.ones_like(exists[:, :1]), exists & ~same], 1)
    return Contrast(torch.cat([reference, beam], 1), counts, (exists & same).any(1))


def _widened(symbols: Tensor, wide: int) -> Tensor:
    """``[..., T]`` as ``[..., wide]``: cut, or with -1 behind."""
    return torch.nn.functional.pad(symbols, (0, wide - symbols.size(-1)), value=-1)


def _written(symbols: Tensor, space: SearchSpace) -> Tensor:
    """-1 for PAD after an end symbol."""
    return symbols.masked_fill(symbols == space.padding, -1)


def global_loss(found: Contrast, scorer: Scorer, space: SearchSpace) -> Tensor:
    """``[B]``: minus the log-probability of each reference among what it is contrasted with.

    With a beam that holds every sequence, this is the loss of the globally normalised model itself.

    Args:
        found: of :func:`contrast`.
        scorer: scores all sequences at once, with a gradient.
        space: of the search; its normaliser weighs what the scorer returns.
    """
    log_probs, log_z = scorer(found.symbols)
    local = log_probs if space.is_normalised else log_probs + space.beyond_log_probs(log_z, finished=None)
    scores = torch.where(found.symbols >= 0, local, 0.0).sum(2)
    return -scores.masked_fill(~found.counts, -torch.inf).log_softmax(1)[:, 0]


@outside_autocast
def score_stepwise(decoder: StepDecoder, state: State, symbols: Tensor) -> tuple[Tensor, Tensor]:
    """A ``Scorer`` for any decoder that shows its output layer: all sequences side by side, step by step.

    Args:
        decoder: the model, a ``LinearStepDecoder``.
        state: its state before the first step, B rows.
        symbols: ``[B, N, T]`` ids, -1 where nothing is to be scored.
    """
    batch, size, steps = symbols.shape
    owners = torch.arange(batch, device=symbols.device).repeat_interleave(size)
    flat, vectors = symbols.flatten(0, 1).clamp(min=0), first_input(decoder, batch)
    log_probs, log_zs = [], []
    for t in range(steps):
        step, log_z, state = predict(decoder, state, vectors, normalised=False)
        assert log_z is not None  # it was asked for
        if t == 0:  # all sequences of a sentence begin alike
            step, log_z, state = step[owners], log_z[owners], reorder(decoder, state, owners)
        log_probs.append(step.gather(1, flat[:, t, None])[:, 0])
        log_zs.append(log_z)
        vectors = decoder.embedding[flat[:, t]]
    if not steps:
        empty = vectors.new_zeros(batch, size, 0)
        return empty, empty
    return torch.stack(log_probs, 1).view_as(symbols), torch.stack(log_zs, 1).view_as(symbols)
