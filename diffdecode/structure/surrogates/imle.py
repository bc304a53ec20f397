"""Implicit maximum likelihood estimation (Niepert, Minervini and Franceschi, NeurIPS 2021)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, noise, register, require_positive


@register("imle")
@dataclass(frozen=True)
class ImplicitMaximumLikelihood(Surrogate):
    """``z = argmax(s + e)`` goes forward, ``(z - argmax(s + e - lam dL/dz)) / lam`` goes back.

    Perturb-and-MAP with Gumbel noise ``e``, the same in both. Like the paper, and unlike its released code,
    the difference is divided by ``lam``, so that the size of the gradient does not depend on it.

    Attributes:
        lam: the step from the distribution to its target.
        temperature: scale of the noise; 0 gives the differentiation of a blackbox solver.
    """

    lam: float = 10.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_positive("lam", self.lam)
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 or more, got {self.temperature!r}")

    def decide(
        self, structure: Structure, scores: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        uniform = noise(torch.rand, scores.shape, scores, generator)
        exponential = -torch.log1p(-uniform)  # 1 - uniform is never 0
        gumbel = -exponential.clamp(min=torch.finfo(scores.dtype).tiny).log()
        perturbed = scores + self.temperature * gumbel
        return structure.argmax(perturbed), perturbed

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        (perturbed,) = kept
        return (z - structure.argmax(perturbed - self.lam * g)) / self.lam
