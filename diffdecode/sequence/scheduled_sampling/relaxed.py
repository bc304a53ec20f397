"""Relaxed decoding: a decoder that is fed a mixture of the gold words and its own, relaxed, words.

Scheduled sampling (Bengio et al. 2015) with a differentiable choice of the model's own word (scheduled
sampling 2017, section 3): soft argmax, Gumbel, or any gradient estimator; step by step, as the papers do.
"""

import torch
from torch import Tensor

from diffdecode.checks import looked_at_once
from diffdecode.sequence.precision import outside_autocast
from diffdecode.sequence.scheduled_sampling.own_word import Feed, OwnWord
from diffdecode.sequence.step_decoder import State, StepDecoder, first_input


@outside_autocast
def relaxed_decode(
    decoder: StepDecoder,
    state: State,
    gold: Tensor,
    own_word: OwnWord,
    gold_probability: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Log-probabilities of each next word, given the mixed words before it.

    Args:
        decoder: the model.
        state: its state before the first step, B rows.
        gold: ``[B, T]`` reference words, any valid id after the end of a sentence. A sentence's steps after
            its end change nothing before.
        own_word: choice of the model's own word.
        gold_probability: probability, per word, of feeding the gold word.
        generator: source of randomness, on the decoder's device.

    Returns:
        ``[B, T, V]`` log-probabilities, for any loss against ``gold``. With ``gold_probability=1`` these are
        the teacher-forced ones.
    """
    return decode_fed(decoder, state, Feed.toss(gold, gold_probability, own_word, generator))


@outside_autocast
def decode_fed(decoder: StepDecoder, state: State, feed: Feed) -> Tensor:
    """``relaxed_decode`` after the coins have been tossed."""
    return looked_at_once(lambda: _decode_fed(decoder, state, feed))


def _decode_fed(decoder: StepDecoder, state: State, feed: Feed) -> Tensor:
    gold, coins = feed.gold, feed.coins
    only_gold, some_gold = feed.fed()
    vectors, outputs = first_input(decoder, gold.size(0)), []
    for t in range(gold.size(1)):
        log_probs, state = decoder.step(state, vectors)
        outputs.append(log_probs)
        if t + 1 == gold.size(1):
            break
        if only_gold[t]:
            vectors = decoder.embedding[gold[:, t]]
            continue
        vectors = feed.own_word.vectors(log_probs, decoder.embedding, feed.generator)
        if some_gold[t]:
            vectors = torch.where(coins[:, t, None], decoder.embedding[gold[:, t]], vectors)
    return torch.stack(outputs, 1)


def relaxed_rollout(
    decoder: StepDecoder,
    state: State,
    batch_size: int,
    steps: int,
    own_word: OwnWord,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``relaxed_decode`` without any gold word: ``[B, steps, V]`` for ``batch_size`` = B sentences."""
    no_gold = torch.zeros(batch_size, steps, dtype=torch.long, device=decoder.embedding.device)
    return relaxed_decode(decoder, state, no_gold, own_word, 0.0, generator)
