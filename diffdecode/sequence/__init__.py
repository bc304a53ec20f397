"""Searches over left-to-right decoders: hard, soft and relaxed."""

from diffdecode.sequence.cost import HammingCost, StepCost
from diffdecode.sequence.hard_beam import Hypotheses, hard_beam
from diffdecode.sequence.schedules import MIXING_SCHEDULES, annealed_alpha, gold_probability
from diffdecode.sequence.search_space import SearchSpace
from diffdecode.sequence.soft_beam import SoftBeam, SoftBeamOptions, soft_beam
from diffdecode.sequence.soft_beam_decode import soft_beam_decode
from diffdecode.sequence.step_decoder import State, StepDecoder, first_input, mix, reorder

__all__ = [
    "MIXING_SCHEDULES",
    "HammingCost",
    "Hypotheses",
    "SearchSpace",
    "SoftBeam",
    "SoftBeamOptions",
    "State",
    "StepCost",
    "StepDecoder",
    "annealed_alpha",
    "first_input",
    "gold_probability",
    "hard_beam",
    "mix",
    "reorder",
    "soft_beam",
    "soft_beam_decode",
]
