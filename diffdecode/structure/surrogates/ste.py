"""The straight-through estimator (Hinton 2012): the Jacobian of argmax is taken to be the identity."""

from dataclasses import dataclass

from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, register


@register("ste")
@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """``dL/ds = dL/dz``."""

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        return g
