"""No gradient: the modular pipeline that every other surrogate is compared with."""

from dataclasses import dataclass

import torch

from diffdecode.structure.surrogates.base import Surrogate, register


@register("pipeline")
@dataclass(frozen=True)
class Pipeline(Surrogate):
    """``dL/ds = 0``: the end task does not train the parser."""

    def gradient(self, structure, scores, z, g):
        return torch.zeros_like(g)
