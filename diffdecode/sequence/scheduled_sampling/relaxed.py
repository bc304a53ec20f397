"""Relaxed decoding: a decoder that is fed a mixture of the gold words and its own, relaxed, words.

Scheduled sampling (Bengio et al. 2015) with a differentiable choice of the model's own word (scheduled
sampling 2017, section 3): soft argmax, Gumbel, or any gradient estimator. ``relaxed_decode`` runs step by
step, as the papers do; ``two_pass_decode`` is for decoders that read all time steps in parallel (Mihaylova
and Martins 2019).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.categorical import ESTIMATORS, sample
from diffdecode.sequence.precision import at_least_float32, outside_autocast
from diffdecode.sequence.step_decoder import State, StepDecoder, first_input


@dataclass(frozen=True)
class OwnWord:
    """How the model's own word is chosen and fed back.

    Attributes:
        estimator: a name in ``diffdecode.categorical.ESTIMATORS``: ``soft`` (section 3.1) or ``gumbel_soft``
            (section 3.2), ``argmax`` or ``sample``, which give the scores no gradient (Bengio et al.), or
            another that chooses one word.
        tau: temperature of the estimator, 1/alpha in the paper's notation; ``None`` is its default.
        allowed: ``[V]`` boolean, the words that may be fed back; ``None`` allows all. Padding should not be.
    """

    estimator: str = "soft"
    tau: float | None = None
    allowed: Tensor | None = None

    def __post_init__(self) -> None:
        chosen = ESTIMATORS[self.estimator]
        if chosen.index_has_k:
            raise ValueError(
                f"estimator {self.estimator!r} draws several words at once; a step can be fed only one"
            )
        if self.tau is not None and "tau" not in chosen.options:
            raise ValueError(f"estimator {self.estimator!r} has no temperature, but tau={self.tau} is given")

    @property
    def gives_gradient(self) -> bool:
        """Whether the scores get a gradient through the choice."""
        return ESTIMATORS[self.estimator].gives_gradient

    @property
    def alphas(self) -> tuple[float, ...] | None:
        """Inverse temperatures of the choice's softmaxes, or ``None`` if it cannot be fused."""
        chosen = ESTIMATORS[self.estimator]
        return None if chosen.alphas is None else chosen.alphas(self.tau or 1.0)

    def vectors(
        self, log_probs: Tensor, embedding: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The chosen embedding, or mixture, ``[..., d]``; ``log_probs [..., V]``, ``embedding [V, d]``."""
        scores = log_probs if self.gives_gradient else log_probs.detach()
        chosen = sample(scores, self.estimator, self.tau, mask=self.allowed, generator=generator).one_hot
        if self.gives_gradient:
            return chosen.to(embedding.dtype) @ embedding
        return embedding[chosen.argmax(-1)]  # looked up, not multiplied: only one row gets a gradient


def gold_coins(gold: Tensor, gold_probability: float, generator: torch.Generator | None = None) -> Tensor:
    """One coin per word, ``[B, T - 1]``: True feeds ``gold[:, t]`` at step t + 1, False the model's own word.

    Drawn before decoding, on the generator's device, so that every mode of decoding tosses the same.

    Args:
        gold: ``[B, T]``.
        gold_probability: 1 is teacher forcing, exactly; 0 never looks at gold, exactly.

    Raises:
        ValueError: the probability is outside [0, 1].
    """
    if not 0 <= gold_probability <= 1:
        raise ValueError(f"gold probability {gold_probability} must be between 0 and 1")
    batch, steps = gold.shape
    device = gold.device if generator is None else generator.device
    tosses = torch.rand(batch, max(steps - 1, 0), generator=generator, device=device)
    return (tosses < gold_probability).to(gold.device)


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
    coins = gold_coins(gold, gold_probability, generator)
    return decode_with_coins(decoder, state, gold, own_word, coins, generator)


@outside_autocast
def decode_with_coins(
    decoder: StepDecoder,
    state: State,
    gold: Tensor,
    own_word: OwnWord,
    coins: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``relaxed_decode`` after the coins ``[B, T - 1]`` have been tossed: True feeds the gold word."""
    all_gold = coins.all(0).tolist()
    vectors, outputs = first_input(decoder, gold.size(0)), []
    for t in range(gold.size(1)):
        log_probs, state = decoder.step(state, vectors)
        outputs.append(log_probs)
        if t + 1 < gold.size(1):
            vectors = decoder.embedding[gold[:, t]]
            if not all_gold[t]:
                own = own_word.vectors(log_probs, decoder.embedding, generator)
                vectors = torch.where(coins[:, t, None], vectors, own)
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
