"""Step decoders: fairseq's decoders as seen by the searches of ``diffdecode.sequence``.

To support another decoder: one file with a subclass of ``FairseqSteps``, registered for the decoder's type
with ``steps_for.register``.
"""

from diffdecode.registry import import_members
from fairseq_plugins.decoders.base import DecoderState, FairseqSteps, soft_inputs, step_decoder, steps_for
from fairseq_plugins.decoders.encoding import encode, keep_encoder_output, without_dropout

import_members(__name__, __path__)

__all__ = [
    "DecoderState",
    "FairseqSteps",
    "encode",
    "keep_encoder_output",
    "soft_inputs",
    "step_decoder",
    "steps_for",
    "without_dropout",
]
