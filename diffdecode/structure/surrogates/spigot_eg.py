"""SPIGOT with exponentiated gradient (Mihaylova, Niculae and Martins, EMNLP 2020, "SPIGOT-EG").

A gradient step in the geometry of the distribution stays inside the polytope by itself: it is a step on the
scores, and nothing has to be projected.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, register, require_positive


@register("spigot_eg")
@dataclass(frozen=True)
class SpigotExponentiatedGradient(Surrogate):
    """``dL/ds = mu(s) - mu(s - eta dL/dz)``.

    Attributes:
        eta: the step size.
        soft: send the marginals forward; see :class:`~.spigot_ce.SpigotCrossEntropy`.
    """

    eta: float = 1.0
    soft: bool = False

    @property
    def hard(self) -> bool:
        return not self.soft

    def __post_init__(self) -> None:
        require_positive("eta", self.eta)

    def decide(
        self, structure: Structure, scores: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        return (structure.marginals(scores) if self.soft else structure.argmax(scores),)

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        mu = z if self.soft else structure.marginals(scores)
        return mu - structure.marginals(scores - self.eta * g)
