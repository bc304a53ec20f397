"""The structured straight-through estimator: a structure goes forward, the marginals' gradient goes back.

For a single choice it is the straight-through estimator of softmax (Bengio, Leonard and Courville 2013).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, register


@register("structured_st")
@dataclass(frozen=True)
class StructuredStraightThrough(Surrogate):
    """``dL/ds = Sigma dL/dz``. With samples, exact in expectation for losses linear in ``z``.

    Attributes:
        sample: draw ``z`` instead of taking the best structure.
    """

    sample: bool = False

    def decide(
        self, structure: Structure, scores: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        return (structure.sample(scores, generator) if self.sample else structure.argmax(scores),)

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        return structure.covariance_product(scores, g)
