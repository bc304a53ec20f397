"""SPIGOT from the marginals (Mihaylova, Niculae and Martins, EMNLP 2020, "SPIGOT-CE").

SPIGOT is the gradient of a perceptron loss against the projected target; with a cross-entropy (maximum
likelihood) loss against it, the marginals take the place of the decision.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, register
from diffdecode.structure.surrogates.spigot import Spigot


@register("spigot_ce")
@dataclass(frozen=True)
class SpigotCrossEntropy(Spigot):
    """``dL/ds = mu - proj(mu - eta dL/dz)``.

    Attributes:
        soft: send the marginals forward, so that ``dL/dz`` is taken at ``mu`` as the paper's target step
            does; otherwise the hard decision goes forward and its gradient stands in.
    """

    soft: bool = False

    @property
    def hard(self) -> bool:
        return not self.soft

    def decide(
        self, structure: Structure, scores: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        return (structure.marginals(scores) if self.soft else structure.argmax(scores),)

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        mu = z if self.soft else structure.marginals(scores)
        update = (mu - self.step_size(g) * g).masked_fill(~structure.possible(scores), -float("inf"))
        near = structure.argmax(scores) if self.soft else z
        return mu - structure.project(update, self.polytope, near=near)
