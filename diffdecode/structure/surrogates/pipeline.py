"""No gradient: the modular pipeline that every other surrogate is compared with."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, register


@register("pipeline")
@dataclass(frozen=True)
class Pipeline(Surrogate):
    """``dL/ds = 0``: the end task does not train the parser."""

    gives_gradient: ClassVar[bool] = False

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        return torch.zeros_like(g)
