"""Scheduled sampling for decoders that read all time steps in parallel (Mihaylova and Martins 2019)."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffdecode.sequence.precision import at_least_float32
from diffdecode.sequence.scheduled_sampling.own_word import OwnWord, gold_coins


def two_pass_decode(
    run: Callable[[Tensor], Tensor],
    embedding: Tensor,
    start: int,
    gold: Tensor,
    own_word: OwnWord,
    gold_probability: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Scheduled sampling for parallel decoders: the own words come from a teacher-forced first pass.

    Args:
        run: the decoder on all time steps at once: inputs ``[B, T, d]`` -> log-probabilities ``[B, T, V]``.
        embedding: ``[V, d]``.
        start: the symbol whose embedding is the first input.
        gold: ``[B, T]`` reference words.
        own_word: choice of the model's own word.
        gold_probability: probability, per word, of feeding the gold word.
        generator: source of randomness, on the decoder's device.

    Returns:
        ``[B, T, V]`` log-probabilities of the second pass, or of the only one if every coin shows gold. The
        gradient flows through both passes, except that a hard choice needs none in the first.
    """
    coins = gold_coins(gold, gold_probability, generator)
    inputs = embedding[torch.cat([torch.full_like(gold[:, :1], start), gold[:, :-1]], 1)]
    if bool(coins.all()):
        return run(inputs)
    with torch.set_grad_enabled(torch.is_grad_enabled() and own_word.gives_gradient):
        first = run(inputs)
    with torch.autocast(embedding.device.type, enabled=False):
        own = own_word.vectors(at_least_float32(first[:, :-1]), embedding, generator)
    mixed = torch.where(coins[..., None], inputs[:, 1:], own)
    return run(torch.cat([inputs[:, :1], mixed], 1))
