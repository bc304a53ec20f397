"""Step decoders: fairseq's decoders as seen by the searches of ``diffdecode.sequence``.

To support another decoder: one file with a subclass of ``FairseqSteps``, registered for the decoder's type
with ``steps_for.register``, imported here.
"""

from fairseq_plugins.decoders import lstm, tagger, transformer  # noqa: F401
from fairseq_plugins.decoders.base import DecoderState, FairseqSteps, soft_inputs, step_decoder, steps_for
from fairseq_plugins.decoders.encoding import encode, keep_encoder_output

__all__ = [
    "DecoderState",
    "FairseqSteps",
    "encode",
    "keep_encoder_output",
    "soft_inputs",
    "step_decoder",
    "steps_for",
]
