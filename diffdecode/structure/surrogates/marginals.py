"""Structured attention (Kim, Denton, Hoang and Rush, ICLR 2017): marginals instead of a decision."""

from dataclasses import dataclass
from typing import ClassVar

from diffdecode.structure.surrogates.base import Surrogate, register


@register("marginals")
@dataclass(frozen=True)
class Marginals(Surrogate):
    """``mu(s)`` goes forward, its exact gradient ``Sigma dL/dmu`` goes back. Not a hard structure."""

    hard: ClassVar[bool] = False

    def decide(self, structure, scores, generator):
        return (structure.marginals(scores),)

    def gradient(self, structure, scores, z, g):
        return structure.covariance_product(scores, g)
