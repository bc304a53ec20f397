"""Perturbed optimizers (Berthet et al., NeurIPS 2020): the smoothed argmax, differentiated by Monte Carlo."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.surrogates.base import (
    Structure,
    Surrogate,
    inner,
    noise,
    register,
    require_positive,
)


@register("perturbed")
@dataclass(frozen=True)
class Perturbed(Surrogate):
    """Gradient of the mean of argmax(s + sigma e), e standard normal, from M perturbations::

        dL/ds = 1 / (sigma (M - 1)) sum_m <y_m - mean y, dL/dz> e_m

    Dividing by M - 1 makes it unbiased: the mean serves as baseline and holds ``y_m`` itself.

    Attributes:
        samples: M, at least 2.
        sigma: standard deviation of the noise.
        soft: send the mean of the ``y_m`` forward, as in the paper, instead of argmax(s).
    """

    samples: int = 4
    sigma: float = 1.0
    soft: bool = False

    @property
    def hard(self) -> bool:
        return not self.soft

    def __post_init__(self) -> None:
        require_positive("sigma", self.sigma)
        if self.samples < 2:
            raise ValueError(f"perturbed needs at least 2 samples, got {self.samples}")

    def decide(
        self, structure: Structure, scores: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        shape = (self.samples, *scores.shape)
        noises = noise(torch.randn, shape, scores, generator)
        perturbed = torch.stack([structure.argmax(scores + self.sigma * e) for e in noises])
        return perturbed.mean(0) if self.soft else structure.argmax(scores), perturbed, noises

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        perturbed, noises = kept
        deviation = perturbed - perturbed.mean(0)
        total = sum(inner(y, g) * e for y, e in zip(deviation, noises))
        return total / (self.sigma * (self.samples - 1))
