"""Surrogate gradients of structured decisions, one idea a file, each known by a name."""

from diffdecode.registry import import_members
from diffdecode.structure.surrogates.base import (
    SURROGATES,
    Structure,
    Surrogate,
    make_surrogate,
    noise,
    register,
    structured_argmax,
)
from diffdecode.structure.surrogates.blackbox import Blackbox
from diffdecode.structure.surrogates.block_reinmax import BlockReinMax
from diffdecode.structure.surrogates.imle import ImplicitMaximumLikelihood
from diffdecode.structure.surrogates.marginals import Marginals
from diffdecode.structure.surrogates.perturbed import Perturbed
from diffdecode.structure.surrogates.pipeline import Pipeline
from diffdecode.structure.surrogates.spigot import ExactSpigot, Spigot
from diffdecode.structure.surrogates.spigot_ce import SpigotCrossEntropy
from diffdecode.structure.surrogates.spigot_eg import SpigotExponentiatedGradient
from diffdecode.structure.surrogates.ste import StraightThrough
from diffdecode.structure.surrogates.structured_reinmax import StructuredReinMax
from diffdecode.structure.surrogates.structured_st import StructuredStraightThrough

import_members(__name__, __path__)

__all__ = [
    "SURROGATES",
    "Blackbox",
    "BlockReinMax",
    "ExactSpigot",
    "ImplicitMaximumLikelihood",
    "Marginals",
    "Perturbed",
    "Pipeline",
    "Spigot",
    "SpigotCrossEntropy",
    "SpigotExponentiatedGradient",
    "StraightThrough",
    "Structure",
    "StructuredReinMax",
    "StructuredStraightThrough",
    "Surrogate",
    "make_surrogate",
    "noise",
    "register",
    "structured_argmax",
]
