"""What a decoder is fed in scheduled sampling (Bengio et al. 2015): the gold words or its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.categorical import ESTIMATORS, sample
from diffdecode.moves import moved

# Of the words that are not among the best, how many are shown to a choice as they arrive in a race: the first
# decides which word is drawn, and of a mixture of perturbed scores the next few have a share.
DRAWN, MIXED = 1, 8


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
    def arrivals(self) -> int:
        """How many words beyond the best a fused choice has to know: none, if nothing is drawn."""
        chosen = ESTIMATORS[self.estimator]
        if "noise" not in chosen.options:
            return 0
        return MIXED if chosen.perturbs else DRAWN

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
    return moved(tosses < gold_probability, gold.device)


@dataclass(frozen=True)
class Feed:
    """What is fed at each step of a batch.

    Attributes:
        gold: ``[B, T]`` reference words.
        coins: ``[B, T - 1]`` of ``gold_coins``.
        own_word: choice of the model's own word.
        generator: source of randomness, on the decoder's device.
    """

    gold: Tensor
    coins: Tensor
    own_word: OwnWord
    generator: torch.Generator | None

    @classmethod
    def toss(
        cls, gold: Tensor, gold_probability: float, own_word: OwnWord, generator: torch.Generator | None
    ) -> "Feed":
        """Toss the coins. Raises ``ValueError``: a probability outside [0, 1]."""
        return cls(gold, gold_coins(gold, gold_probability, generator), own_word, generator)

    def fed(self) -> tuple[list[bool], list[bool]]:
        """For each step, whether only gold words are fed after it, and whether any is; a GPU waits once."""
        only_gold, some_gold = torch.stack([self.coins.all(0), self.coins.any(0)]).tolist()
        return [*only_gold, True], [*some_gold, True]
