"""fairseq's Transformer decoder, step by step.

Mixing cached keys and values is mixing the layers' inputs: both are affine in them, and the weights of a soft
back-pointer sum to one.
"""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from fairseq.models.transformer import TransformerDecoderBase
from torch import Tensor

from fairseq_plugins.decoders.base import DecoderState, FairseqSteps, steps_for


class TransformerSteps(FairseqSteps):
    """State: per layer the keys and values ``[R, heads, t, d]`` of self-attention.

    Those of cross-attention stay those of the B sentences: fairseq's attention spreads them over R rows.
    """

    def features(self, state: DecoderState, vectors: Tensor) -> tuple[Tensor, DecoderState]:
        """Feed ``vectors [R, d]``; the input ``[R, H]`` of the output layer."""
        with _as_many_rows_as_given(self.decoder), _embedding_on(vectors.device, self.decoder):
            return super().features(state, vectors)

    def symbols(self, rows: int, words: int, device: torch.device) -> Tensor:
        """On the CPU: the decoder looks for padding at each step, for which it would wait for a GPU."""
        return super().symbols(rows, words, torch.device("cpu") if self._only_looks_for_padding else device)

    @property
    def _only_looks_for_padding(self) -> bool:
        """Whether the decoder takes nothing else from symbols, but what it embeds."""
        own = type(self.decoder).extract_features_scriptable
        return (
            own is TransformerDecoderBase.extract_features_scriptable
            and not self.decoder.cross_self_attention
        )

    def map_memory(self, memory: dict, change: Callable[[Tensor], Tensor]) -> dict:
        """``change`` keys and values of self-attention, of each row and layer."""
        return {**memory, **dict(self._map_layer(memory, layer, change) for layer in self.decoder.layers)}

    def _map_layer(self, memory, layer, change):
        key = layer.self_attn._get_full_incremental_state_key("attn_state")
        cached = memory[key]
        mask = cached.get("prev_key_padding_mask")
        return key, {
            "prev_key": change(cached["prev_key"]),
            "prev_value": change(cached["prev_value"]),
            # Rows of one sentence have the same mask (that of its source, with cross_self_attention), so
            # that any weights that sum to one give it back.
            "prev_key_padding_mask": None if mask is None else change(mask.float()) > 0.5,
        }


@contextmanager
def _embedding_on(device, decoder):
    """Within the block, symbols and positions are embedded on ``device``, wherever the symbols are.

    Which symbols that is done for does not matter: ``soft_inputs`` takes their place.
    """

    def there(module, arguments):
        symbols, *others = arguments
        return torch.zeros_like(symbols, device=device), *others

    embedding = filter(None, (decoder.embed_tokens, decoder.embed_positions))
    handles = [module.register_forward_pre_hook(there) for module in embedding]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _as_many_rows_as_given(decoder):
    """Within the block, cross-attention takes its sentences as they come.

    fairseq's generator tells BART's cross-attention its beam size, once and for good, and it then takes B
    sentences for B / k sentences with k rows each.
    """
    attentions = [layer.encoder_attn for layer in decoder.layers if layer.encoder_attn is not None]
    sizes = [attention.beam_size for attention in attentions]
    for attention in attentions:
        attention.beam_size = 1
    try:
        yield
    finally:
        for attention, size in zip(attentions, sizes):
            attention.beam_size = size


UNSUPPORTED = {
    "adaptive_input": "adaptive input embeddings (--adaptive-input) cannot be mixed",
    "layerdrop": "--decoder-layerdrop drops other layers at each step, so that their caches disagree",
    "checkpoint_activations": "--checkpoint-activations cannot be recomputed with an incremental state",
    "quant_noise": "--quant-noise-pq changes the weights at each step",
    "base_layers": "--base-layers exchange rows between workers at each step",
}


def _unsupported(cfg, decoder) -> list[str]:
    """Names of the options of this decoder that cannot be run step by step in training."""
    present = {
        "adaptive_input": not hasattr(decoder.embed_tokens, "weight"),
        "layerdrop": decoder.decoder_layerdrop > 0,
        "checkpoint_activations": cfg.checkpoint_activations,
        "quant_noise": cfg.quant_noise.pq > 0,
        "base_layers": cfg.base_layers > 0,
    }
    return [name for name, found in present.items() if found]


@steps_for.register(TransformerDecoderBase)
def _(decoder, model):
    unsupported = _unsupported(decoder.cfg, decoder)
    if unsupported:
        raise ValueError("; ".join(UNSUPPORTED[name] for name in unsupported))
    return TransformerSteps(model)
