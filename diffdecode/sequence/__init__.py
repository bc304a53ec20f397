"""Searches over left-to-right decoders: hard, soft and relaxed."""

from diffdecode.sequence.cost import HammingCost, StepCost
from diffdecode.sequence.fused import FUSED_METHODS, ScheduledSampling, fused_scheduled_sampling
from diffdecode.sequence.hard_beam import Hypotheses, hard_beam
from diffdecode.sequence.relaxed import (
    HARD_METHODS,
    OwnWord,
    decode_with_coins,
    gold_coins,
    relaxed_decode,
    relaxed_rollout,
    two_pass_decode,
)
from diffdecode.sequence.schedules import MIXING_SCHEDULES, annealed_alpha, gold_probability
from diffdecode.sequence.search_space import SearchSpace
from diffdecode.sequence.soft_beam import SoftBeam, SoftBeamOptions, normalised, soft_beam
from diffdecode.sequence.soft_beam_decode import soft_beam_decode
from diffdecode.sequence.step_decoder import LinearStepDecoder, State, StepDecoder, first_input, mix, reorder
from diffdecode.sequence.truncated_beam import TruncatedSoftBeam, truncated_soft_beam
from diffdecode.sequence.vocabulary import Prediction, Vocabulary

__all__ = [
    "FUSED_METHODS",
    "HARD_METHODS",
    "MIXING_SCHEDULES",
    "HammingCost",
    "Hypotheses",
    "LinearStepDecoder",
    "OwnWord",
    "Prediction",
    "ScheduledSampling",
    "SearchSpace",
    "SoftBeam",
    "SoftBeamOptions",
    "State",
    "StepCost",
    "StepDecoder",
    "TruncatedSoftBeam",
    "Vocabulary",
    "annealed_alpha",
    "decode_with_coins",
    "first_input",
    "fused_scheduled_sampling",
    "gold_coins",
    "gold_probability",
    "hard_beam",
    "mix",
    "normalised",
    "relaxed_decode",
    "relaxed_rollout",
    "reorder",
    "soft_beam",
    "soft_beam_decode",
    "truncated_soft_beam",
    "two_pass_decode",
]
