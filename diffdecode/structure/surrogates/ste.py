"""The straight-through estimator (Hinton 2012): the Jacobian of argmax is taken to be the identity."""

from dataclasses import dataclass

from diffdecode.structure.surrogates.base import Surrogate, register


@register("ste")
@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """``dL/ds = dL/dz``."""

    def gradient(self, structure, scores, z, g):
        return g
