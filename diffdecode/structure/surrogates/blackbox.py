"""Differentiation of blackbox solvers (Vlastelica, Paulus, Musil, Martius and Rolínek, ICLR 2020)."""

from dataclasses import dataclass

from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, register, require_positive


@register("blackbox")
@dataclass(frozen=True)
class Blackbox(Surrogate):
    """``dL/ds = (z - argmax(s - lam dL/dz)) / lam``.

    The paper minimises costs ``w = -s``, so its ``-(z - z(w + lam dL/dz)) / lam`` changes sign here.

    Attributes:
        lam: how far the scores are moved along the gradient.
    """

    lam: float = 10.0

    def __post_init__(self) -> None:
        require_positive("lam", self.lam)

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        return (z - structure.argmax(scores - self.lam * g)) / self.lam
