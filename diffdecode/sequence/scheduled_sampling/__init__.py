"""Decoders fed a mixture of the gold words and their own (differentiable scheduled sampling 2017)."""

from diffdecode.sequence.scheduled_sampling.fused import ScheduledSampling, fused_scheduled_sampling
from diffdecode.sequence.scheduled_sampling.own_word import OwnWord, gold_coins
from diffdecode.sequence.scheduled_sampling.relaxed import relaxed_decode, relaxed_rollout
from diffdecode.sequence.scheduled_sampling.two_pass import two_pass_decode

__all__ = [
    "OwnWord",
    "ScheduledSampling",
    "fused_scheduled_sampling",
    "gold_coins",
    "relaxed_decode",
    "relaxed_rollout",
    "two_pass_decode",
]
