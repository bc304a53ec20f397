"""fairseq's LSTM decoder, step by step."""

from collections.abc import Callable
from typing import Any

import torch
from fairseq.models.lstm import LSTMDecoder
from torch import Tensor, nn

from fairseq_plugins.decoders.base import FairseqSteps, steps_for


class LSTMSteps(FairseqSteps):
    """State: hidden and cell ``[layers, R, H]``, and the input feeding ``[R, H]``, which is recurrent too."""

    @property
    def output_layer(self) -> nn.Module:
        """The embedding where the two are shared, else the last linear layer."""
        decoder = self.decoder
        return decoder.embed_tokens if decoder.share_input_output_embed else decoder.fc_out

    def widen(self, encoder_out: Any, rows: int) -> Any:
        """A copy of each sentence for each of its rows: the attention takes as many sentences as rows."""
        sentences = encoder_out[0].size(1)
        if rows == sentences:
            return encoder_out
        order = torch.arange(sentences, device=encoder_out[0].device).repeat_interleave(rows // sentences)
        return self.model.encoder.reorder_encoder_out(encoder_out, order)

    def map_memory(self, memory: dict, change: Callable[[Tensor], Tensor]) -> dict:
        """``change`` hidden, cell and input feeding of each row."""
        key = self.decoder._get_full_incremental_state_key("cached_state")
        cached = memory[key]
        by_layer = {
            name: change(cached[name].transpose(0, 1)).transpose(0, 1)
            for name in ("prev_hiddens", "prev_cells")
        }
        feed = cached["input_feed"]
        return {**memory, key: {**by_layer, "input_feed": None if feed is None else change(feed)}}


@steps_for.register(LSTMDecoder)
def _(decoder, model):
    return LSTMSteps(model)
