"""Structured attention (Kim, Denton, Hoang and Rush, ICLR 2017): marginals instead of a decision."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, register


@register("marginals")
@dataclass(frozen=True)
class Marginals(Surrogate):
    """``mu(s)`` goes forward, its exact gradient ``Sigma dL/dmu`` goes back. Not a hard structure."""

    @property
    def hard(self) -> bool:
        return False

    def decide(
        self, structure: Structure, scores: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        return (structure.marginals(scores),)

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        return structure.covariance_product(scores, g)
