"""ReinMax (Liu et al., NeurIPS 2023) for structures: second-order accurate gradients from one sample.

For p(z) ∝ exp <s, z> with mean mu and covariance Sigma, and a sample z with g = dL/dz::

    dL/ds = 1/2 [ Sigma g + (z - mu) <z - mu, g> ]

The gradient of E L is E_{z, z'} (z - mu)(L(z) - L(z')); the trapezoidal rule turns the difference into
<z - z', g(z) + g(z')> / 2, exactly so for every quadratic L, and averaging over the other sample gives the
formula. ``z`` has to be an exact sample: with the best structure in its place nothing of this holds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, inner, register


@register("structured_reinmax")
@dataclass(frozen=True)
class StructuredReinMax(Surrogate):
    """Unbiased for quadratic losses. Its variance grows with the length of the sentence."""

    def decide(
        self, structure: Structure, scores: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        return (structure.sample(scores, generator),)

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        deviation = z - structure.marginals(scores)
        return (structure.covariance_product(scores, g) + deviation * inner(deviation, g)) / 2
