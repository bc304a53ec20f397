"""fairseq's Transformer decoder, step by step; ``lineage`` says how its self-attention remembers."""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from fairseq.models.transformer import TransformerDecoderBase
from torch import Tensor, nn

from fairseq_plugins.decoders.base import DecoderState, FairseqSteps, steps_for
from fairseq_plugins.decoders.lineage import Past, attending_to

# Where the memory has the past of self-attention, beside what fairseq's own modules put there.
PAST = "past"


class TransformerSteps(FairseqSteps):
    """State: the past of self-attention, whose lineages belong to R rows.

    Keys and values of cross-attention stay those of the B sentences: fairseq spreads them over R rows.
    """

    rereads = True

    def features(self, state: DecoderState, vectors: Tensor) -> tuple[Tensor, DecoderState]:
        """Feed ``vectors [R, d]``; the input ``[R, H]`` of the output layer."""
        layers, sentences = self.decoder.layers, state.encoder_out["encoder_out"][0].size(1)
        past = state.memory.get(PAST, {}).get(PAST, Past(()))
        with (
            _as_many_rows_as_given(self.decoder),
            _embedding_on(vectors.device, self.decoder),
            attending_to(past, layers, vectors.size(0), sentences) as attending,
        ):
            features, state = super().features(state, vectors)
        now = attending.after()
        # With cross-self-attention a layer takes a cached key for the sign that the source has been read.
        read = {_cache_of(layer): {"prev_key": now.lineage} for layer in layers}
        return features, state._replace(memory={**state.memory, **read, PAST: {PAST: now}})

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
        """``change`` the lineage of each row."""
        return {**memory, PAST: {PAST: memory[PAST][PAST].mapped(change)}}


def _cache_of(layer: nn.Module) -> str:
    """The key under which fairseq's incremental state has what a layer's self-attention remembers."""
    return layer.self_attn._get_full_incremental_state_key("attn_state")


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
