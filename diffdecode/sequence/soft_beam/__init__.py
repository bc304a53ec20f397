"""The continuous relaxation of beam search (soft beam search 2018): dense, truncated, and as a decoder."""

from diffdecode.sequence.soft_beam.beam import Selection, SoftBeam, SoftBeamOptions, normalised
from diffdecode.sequence.soft_beam.decode import soft_beam_decode
from diffdecode.sequence.soft_beam.dense import soft_beam
from diffdecode.sequence.soft_beam.truncated import TruncatedSoftBeam, truncated_soft_beam

__all__ = [
    "Selection",
    "SoftBeam",
    "SoftBeamOptions",
    "TruncatedSoftBeam",
    "normalised",
    "soft_beam",
    "soft_beam_decode",
    "truncated_soft_beam",
]
