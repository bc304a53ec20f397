"""The fixed-attention tagger's decoder, step by step."""

from collections.abc import Callable

from torch import Tensor

from fairseq_plugins.decoders.base import FairseqSteps, steps_for
from fairseq_plugins.models.fixed_attention_lstm import STATE, FixedAttentionLSTMDecoder


class TaggerSteps(FairseqSteps):
    """State: hidden and cell ``[layers, R, H]``; the decoder itself spreads B sentences over R rows."""

    def map_memory(self, memory: dict, change: Callable[[Tensor], Tensor]) -> dict:
        """``change`` hidden and cell of each row; the number of steps belongs to all."""
        key = self.decoder._get_full_incremental_state_key(STATE)
        cached = memory[key]
        by_layer = {
            name: change(cached[name].transpose(0, 1)).transpose(0, 1).contiguous()
            for name in ("hidden", "cell")
        }
        return {**memory, key: {**cached, **by_layer}}


@steps_for.register(FixedAttentionLSTMDecoder)
def _(decoder, model):
    return TaggerSteps(model)
