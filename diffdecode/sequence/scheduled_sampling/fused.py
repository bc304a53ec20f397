"""Scheduled sampling with one set of logits per step for the loss and for the model's own word."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffdecode.categorical import ESTIMATORS, sample
from diffdecode.checks import unchecked
from diffdecode.sequence.output_layer import OutputLayer, Prediction
from diffdecode.sequence.precision import outside_autocast
from diffdecode.sequence.scheduled_sampling.own_word import Feed, OwnWord
from diffdecode.sequence.scheduled_sampling.relaxed import decode_fed
from diffdecode.sequence.step_decoder import LinearStepDecoder, State, first_input


@dataclass
class ScheduledSampling:
    """Scores of the gold words, given the mixed words before them.

    Attributes:
        gold_log_probs: ``[B, T]``; the loss is minus their sum over the words of a sentence.
        discarded: ``[B, T]`` upper bound on the probability that the choice of the word fed to step t + 1 has
            outside the m best; 0 where a gold word was fed and after a sentence's end.
        fell_back: ``[B]`` boolean, True if ``discarded`` was too much anywhere in a sentence, so that its
            ``gold_log_probs`` are of the dense decoder.
    """

    gold_log_probs: Tensor
    discarded: Tensor
    fell_back: Tensor


@outside_autocast
def fused_scheduled_sampling(
    decoder: LinearStepDecoder,
    state: State,
    gold: Tensor,
    lengths: Tensor,
    own_word: OwnWord,
    gold_probability: float = 0.0,
    generator: torch.Generator | None = None,
    m: int = 32,
    tolerance: float = 1e-3,
) -> ScheduledSampling:
    """``relaxed_decode`` and its cross entropy at little more than the cost of cross entropy alone.

    The own word is chosen among the ``m`` best candidates, the loss is over all of V; ``output_layer`` says
    what is shared. A word that is drawn is drawn among all of V, exactly (``race``). A mixture of m words
    discards the mass of the others: a sentence with ``discarded`` above ``tolerance`` anywhere is decoded
    once more without truncation. This is decided once, at the end, so that a GPU waits once a batch and not
    once a step; then the batch costs both. Use the fused step where it seldom happens: at alpha = 1/tau of
    about 2 or more for m = 32, and of 3 with Gumbel noise.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        gold: ``[B, T]`` reference words.
        lengths: ``[B]`` words of each sentence; only ``discarded`` depends on them.
        own_word: its estimator must be ``fusable``.
        gold_probability: probability, per word, of feeding the gold word.
        generator: source of randomness, on the decoder's device.
        m: number of candidates of a choice.
        tolerance: the largest discarded mass that is accepted; 1 never falls back.

    Raises:
        ValueError: the estimator cannot be fused.
    """
    if own_word.alphas is None:
        fusable = ", ".join(name for name, estimator in ESTIMATORS.items() if estimator.fusable)
        raise ValueError(f"estimator {own_word.estimator!r} cannot be fused; these can: {fusable}")
    feed = Feed.toss(gold, gold_probability, own_word, generator)
    with unchecked():
        found = _fused(decoder, state, feed, lengths, m)
    # Written so that NaN falls back, too: the dense choice names the row.
    found.fell_back = ~(found.discarded <= tolerance).all(1) | found.gold_log_probs.isnan().any(1)
    redone = int(found.fell_back.sum())
    if not redone:
        return found
    dense = decode_fed(decoder, state, feed).gather(2, gold[..., None])[..., 0]
    if redone < len(lengths):  # a batch mate's mass must not decide how a sentence is decoded
        dense = torch.where(found.fell_back[:, None], dense, found.gold_log_probs)
    return ScheduledSampling(dense, found.discarded, found.fell_back)


def _fused(
    decoder: LinearStepDecoder, state: State, feed: Feed, lengths: Tensor, m: int
) -> ScheduledSampling:
    """The decoder without its fallback."""
    gold, coins, own_word = feed.gold, feed.coins, feed.own_word
    batch, steps = gold.shape
    banned = None if own_word.allowed is None else (~own_word.allowed).nonzero()[:, 0]
    layer = OutputLayer(decoder, batch * steps, banned)
    m = min(m, layer.candidates) if own_word.alphas else 1
    only_gold, some_gold = feed.fed()
    gold_vectors = layer.embed(gold[:, :-1]).unbind(1) if any(some_gold[:-1]) else ()
    vectors, scores = first_input(decoder, batch), []
    chosen_from: dict[int, Prediction] = {}
    for t in range(steps):
        hidden, state = decoder.features(state, vectors)
        if only_gold[t]:
            found = layer.predict(hidden, 1, gold[:, t])
        else:
            found = layer.predict(hidden, m, gold[:, t], own_word.arrivals, feed.generator)
        assert found.gold is not None  # it was asked for
        scores.append(found.gold)
        if only_gold[t]:
            vectors = gold_vectors[t] if t + 1 < steps else vectors
            continue
        chosen_from[t] = found
        own = layer.mix(found.symbols, choose_among_best(found, own_word, feed.generator)[:, None])[:, 0]
        vectors = torch.where(coins[:, t, None], gold_vectors[t], own) if some_gold[t] else own
    discarded = _discarded(chosen_from, torch.stack(scores, 1), feed, lengths)
    nowhere = torch.zeros(batch, dtype=torch.bool, device=gold.device)
    return ScheduledSampling(torch.stack(scores, 1), discarded, nowhere)


@torch.no_grad()
def _discarded(chosen_from: dict[int, Prediction], scores: Tensor, feed: Feed, lengths: Tensor) -> Tensor:
    """``ScheduledSampling.discarded`` ``[B, T]``, computed of all steps together.

    Args:
        chosen_from: by step, what an own word was chosen from: all in the same shapes.
        scores: ``[B, T]``, for their shape and type.
        feed: which of these words were fed.
        lengths: ``[B]`` words of each sentence.
    """
    if not chosen_from:
        return torch.zeros_like(scores)
    found = list(chosen_from.values())
    parts = (torch.cat(part) if isinstance(part[0], Tensor) else part[0] for part in zip(*found))
    masses = discarded_mass(Prediction._make(parts), feed.own_word).view(len(found), -1)
    nothing, by_step = torch.zeros_like(scores[:, 0]), dict(zip(chosen_from, masses))
    discarded = torch.stack([by_step.get(t, nothing) for t in range(scores.size(1))], 1)
    after = torch.arange(1, scores.size(1), device=scores.device)
    fed = ~feed.coins & (after < lengths[:, None])
    return torch.where(pad(fed, (0, 1)), discarded, 0.0)


def choose_among_best(found: Prediction, own_word: OwnWord, generator: torch.Generator | None) -> Tensor:
    """Weights ``[R, m]`` of the best candidates."""
    if found.best.size(1) == 1:
        return torch.ones_like(found.best)
    return sample(
        found.best, own_word.estimator, own_word.tau, generator=generator, noise=found.noise
    ).one_hot


@torch.no_grad()
def discarded_mass(found: Prediction, own_word: OwnWord) -> Tensor:
    """Upper bound ``[R]`` on what ``softmax(log p / tau)`` has outside those shown, without looking outside.

    With alpha = 1/tau, c the smallest log-probability of the best, N candidates outside with total
    probability ``rest``: each has ``p^alpha = p * p^(alpha - 1) <= p * exp(c (alpha - 1))`` if alpha >= 1,
    and by Jensen ``sum p^alpha <= N^(1 - alpha) * rest^alpha`` if alpha < 1. Each alpha of the choice
    counts. The best alone leaves nothing out, and a word that is drawn is drawn among all.

    Where noise is added to the scores, the softmax is of ``-log T``, T the arrivals of a race, and the
    bound is on the expectation over those that were not drawn. They come after time ``last``, at no more
    than the rate ``rest``: the sum of ``T^-alpha`` is expected to be at most ``rest * last^(1 - alpha) /
    (alpha - 1)``.
    """
    perturbed = ESTIMATORS[own_word.estimator].perturbs and found.noise is not None
    tails = [(_later if perturbed else _tail)(found, alpha) for alpha in own_word.alphas or ()]
    return torch.stack(tails).amax(0) if tails else torch.zeros_like(found.rest)


def _tail(found: Prediction, alpha: float) -> Tensor:
    """Bound on the share of the rest in ``softmax(alpha * log p)``, ``[R]``."""
    kept = (alpha * found.best).logsumexp(1)
    if alpha >= 1:
        rest = found.rest.log() + (alpha - 1) * found.cut
    else:
        rest = alpha * found.rest.log() + (1 - alpha) * math.log(max(found.outside, 1))
    return torch.exp(rest - torch.logaddexp(rest, kept))


def _later(found: Prediction, alpha: float) -> Tensor:
    """Bound on the expected share of later arrivals in ``softmax(alpha * (log p + G))``, ``[R]``."""
    assert found.noise is not None and found.last is not None
    if not found.outside:
        return torch.zeros_like(found.rest)
    if alpha <= 1:
        return torch.ones_like(found.rest)
    kept = (alpha * (found.best - found.noise.log())).logsumexp(1)
    rest = found.rest.log() + (1 - alpha) * found.last.log() - math.log(alpha - 1)
    return torch.exp(rest - torch.logaddexp(rest, kept))
