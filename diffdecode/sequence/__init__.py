"""Searches over left-to-right decoders: hard, soft and relaxed."""

from diffdecode.sequence.costs import HammingCost, PathCost, SpanCost, StepCost, path_costs
from diffdecode.sequence.global_loss import Contrast, Scorer, contrast, global_loss, score_stepwise
from diffdecode.sequence.hard_beam import HardBeam, Hypotheses, first_beam, hard_beam, next_beam
from diffdecode.sequence.output_layer import OutputLayer, Prediction
from diffdecode.sequence.risk import candidate_weights, expected_risk, first_occurrences
from diffdecode.sequence.sampling import sample_sequences
from diffdecode.sequence.scheduled_sampling import (
    OwnWord,
    ScheduledSampling,
    fused_scheduled_sampling,
    gold_coins,
    relaxed_decode,
    relaxed_rollout,
    two_pass_decode,
)
from diffdecode.sequence.schedules import MIXING_SCHEDULES, annealed_alpha, gold_probability
from diffdecode.sequence.search_space import SearchSpace
from diffdecode.sequence.soft_beam import (
    Selection,
    SoftBeam,
    SoftBeamOptions,
    TruncatedSoftBeam,
    normalised,
    soft_beam,
    soft_beam_decode,
    truncated_soft_beam,
)
from diffdecode.sequence.step_decoder import LinearStepDecoder, State, StepDecoder, first_input, mix, reorder

__all__ = [
    "MIXING_SCHEDULES",
    "Contrast",
    "HammingCost",
    "HardBeam",
    "Hypotheses",
    "LinearStepDecoder",
    "OutputLayer",
    "OwnWord",
    "PathCost",
    "Prediction",
    "ScheduledSampling",
    "Scorer",
    "SearchSpace",
    "Selection",
    "SoftBeam",
    "SoftBeamOptions",
    "SpanCost",
    "State",
    "StepCost",
    "StepDecoder",
    "TruncatedSoftBeam",
    "annealed_alpha",
    "candidate_weights",
    "contrast",
    "expected_risk",
    "first_beam",
    "first_input",
    "first_occurrences",
    "fused_scheduled_sampling",
    "global_loss",
    "gold_coins",
    "gold_probability",
    "hard_beam",
    "mix",
    "next_beam",
    "normalised",
    "path_costs",
    "relaxed_decode",
    "relaxed_rollout",
    "reorder",
    "sample_sequences",
    "score_stepwise",
    "soft_beam",
    "soft_beam_decode",
    "truncated_soft_beam",
    "two_pass_decode",
]
