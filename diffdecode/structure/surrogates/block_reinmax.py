"""Block ReinMax: the second-order term of structured ReinMax within each word's candidate heads only."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, register


@register("block_reinmax")
@dataclass(frozen=True)
class BlockReinMax(Surrogate):
    """``dL/ds = Sigma g + 1/2 blk[(z - mu)(z - mu)' - Sigma] g``, for trees; ``g = dL/dz``.

    blk keeps the covariances among the candidate heads of one word. Unbiased for linear losses; of a
    quadratic one it corrects what happens within a word. Its variance hardly grows with the sentence.
    """

    trees_only: ClassVar[bool] = True

    def decide(
        self, structure: Structure, scores: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        return (structure.sample(scores, generator),)

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        mu = structure.marginals(scores)
        deviation = z - mu
        # A word has one head, so its block of Sigma is diag(mu) - mu mu'.
        within = mu * (g - (mu * g).sum(-1, keepdim=True))
        sampled = deviation * (deviation * g).sum(-1, keepdim=True)
        return structure.covariance_product(scores, g) + (sampled - within) / 2
