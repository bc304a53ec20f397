"""What all step decoders over fairseq's own decoders have in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffdecode.sequence.repeated_layers import RepeatedLayers


class Widened(NamedTuple):
    """Encoder outputs spread over rows.

    Attributes:
        source: those of B sentences.
        rows: R.
        encoder_out: those of R rows.
    """

    source: Any
    rows: int
    encoder_out: Any


class DecoderState(NamedTuple):
    """A step decoder's state.

    Attributes:
        encoder_out: what the encoder returned, B sentences.
        memory: fairseq's incremental state, R rows.
        time: number of steps taken.
        layers: the decoder's linear layers, for this search.
        widened: the encoder outputs that the last step used: they are spread once, and not at each step.
    """

    encoder_out: Any
    memory: dict
    time: int
    layers: RepeatedLayers
    widened: Widened | None = None


@contextmanager
def soft_inputs(decoder: nn.Module, vectors: Tensor) -> Iterator[None]:
    """Within the block, the decoder embeds any symbols that it is fed as ``vectors [R, T, d]``.

    Scaling, positions, normalisation and dropout of the decoder apply to them as to any embedding.
    """
    handle = decoder.embed_tokens.register_forward_hook(
        lambda module, arguments, output: vectors.to(output.dtype)
    )
    try:
        yield
    finally:
        handle.remove()


class FairseqSteps:
    """A fairseq encoder-decoder as a ``diffdecode.sequence.StepDecoder``.

    Subclasses say where the recurrent tensors are (``map_memory``) and, if the decoder cannot do it by
    itself, how encoder outputs of B sentences are spread over R rows (``widen``).

    Attributes:
        rereads: whether a step reads what all steps before have left, so that what it keeps for the backward
            pass grows with their number, and is better computed again.
    """

    rereads = False

    def __init__(self, model: nn.Module):
        self.model = model
        self.decoder = model.decoder
        self.start = model.decoder.dictionary.eos()

    @property
    def embedding(self) -> Tensor:
        """``[V, d]``, before any scaling by the decoder."""
        return self.decoder.embed_tokens.weight

    def init_state(self, encoder_out: Any) -> DecoderState:
        """The state before the first step; ``encoder_out`` is what ``model.encoder`` returned."""
        return DecoderState(encoder_out, {}, 0, RepeatedLayers(self.decoder))

    def step(self, state: DecoderState, vectors: Tensor) -> tuple[Tensor, DecoderState]:
        """Feed ``vectors [R, d]``; log-probabilities ``[R, V]`` in float32."""
        logits, state = self.logits(state, vectors)
        return self.model.get_normalized_probs((logits, None), log_probs=True), state

    def logits(self, state: DecoderState, vectors: Tensor) -> tuple[Tensor, DecoderState]:
        """Feed ``vectors [R, d]``; unnormalised scores ``[R, V]``."""
        features, state = self.features(state, vectors)
        with state.layers.running():
            return self.decoder.output_layer(features), state

    def features(self, state: DecoderState, vectors: Tensor) -> tuple[Tensor, DecoderState]:
        """Feed ``vectors [R, d]``; the input ``[R, H]`` of the output layer."""
        rows = vectors.size(0)
        # fairseq changes its incremental state in place; a step may be run twice, so it gets its own.
        memory = {key: dict(tensors) for key, tensors in state.memory.items()}
        symbols = self.symbols(rows, state.time + 1, vectors.device)
        source, widened = state.encoder_out, state.widened
        if widened is None or widened.source is not source or widened.rows != rows:
            widened = Widened(source, rows, self.widen(source, rows))
        with soft_inputs(self.decoder, vectors[:, None]), state.layers.running():
            features, _ = self.decoder.extract_features(
                symbols, encoder_out=widened.encoder_out, incremental_state=memory
            )
        return features[:, -1], state._replace(memory=memory, time=state.time + 1, widened=widened)

    def symbols(self, rows: int, words: int, device: torch.device) -> Tensor:
        """``[rows, words]`` ids for the decoder, on whose ``device`` they are embedded.

        It reads off their shape and their padding: any symbol but padding will do.
        """
        return torch.full((rows, words), self.start, device=device)

    def all_steps(self, encoder_out: Any, previous: Tensor, vectors: Tensor) -> Tensor:
        """All steps at once, fed ``vectors [B, T, d]``: log-probabilities ``[B, T, V]``.

        ``previous [B, T]`` are the symbols in whose places the vectors stand: they mark padding.
        """
        with soft_inputs(self.decoder, vectors):
            net_output = self.decoder(previous, encoder_out=encoder_out)
        return self.model.get_normalized_probs(net_output, log_probs=True)

    def score(self, encoder_out: Any, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Score N sequences for each of B sentences in one pass (``diffdecode.sequence.Scorer``).

        Args:
            encoder_out: what ``model.encoder`` returned, B sentences.
            symbols: ``[B, N, T]`` ids; -1 where nothing is to be scored, which costs no output layer, and
                where that is a whole sequence, no decoder.

        Returns:
            Log-probabilities ``[B, N, T]``, each given the symbols before it, and the logarithms of the
            softmax's normalisers there, in float32; 0 where nothing is scored.
        """
        if symbols.size(1) == 1 and symbols.device.type != "cpu":
            return self._score_all(encoder_out, symbols[:, 0])
        size = symbols.size(1)
        rows = (symbols >= 0).any(2).flatten().nonzero()[:, 0]
        if not rows.numel():
            nothing = torch.zeros(symbols.shape, device=symbols.device)
            return nothing, nothing
        flat = symbols.flatten(0, 1)[rows]
        encoder_out = self.model.encoder.reorder_encoder_out(encoder_out, rows // size)
        features, _ = self.decoder.extract_features(self.previous(flat), encoder_out=encoder_out)
        scored = flat >= 0
        found = self._scores_of(features[scored], flat[scored])
        nothing = torch.zeros(symbols.shape, dtype=found[0].dtype, device=symbols.device)
        return tuple(nothing.masked_scatter(symbols >= 0, scores) for scores in found)

    def _score_all(self, encoder_out: Any, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """``score`` of one sequence a sentence, ``symbols [B, T]``, also where nothing is to be scored.

        A GPU would wait to know where that is, and of references it is little.
        """
        features, _ = self.decoder.extract_features(self.previous(symbols), encoder_out=encoder_out)
        found = self._scores_of(features, symbols.clamp(min=0))
        return tuple(torch.where(symbols >= 0, scores, 0.0)[:, None] for scores in found)

    def previous(self, symbols: Tensor) -> Tensor:
        """What the decoder is fed to score ``symbols [B, T]``: the start, and all but the last of them."""
        ids = symbols.clamp(min=0)
        return torch.cat([torch.full_like(ids[:, :1], self.start), ids[:, :-1]], 1)

    def _scores_of(self, features: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of ``ids [...]`` and log-normalisers, given the output layer's input [..., H]."""
        logits = self.decoder.output_layer(features)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log_z = logits.logsumexp(-1)
        return logits.gather(-1, ids[..., None])[..., 0] - log_z, log_z

    @property
    def output_weight(self) -> Tensor:
        """``[V, H]``, the linear output layer; may be the embedding itself."""
        return self.output_layer.weight

    @property
    def output_bias(self) -> Tensor | None:
        """``[V]``, or ``None`` where the output layer has none."""
        return getattr(self.output_layer, "bias", None)

    @property
    def output_layer(self) -> nn.Module:
        """The module that holds the output weight: a linear layer, or the embedding if the two are shared."""
        return self.decoder.output_projection

    def map_state(self, state: DecoderState, change: Callable[[Tensor], Tensor]) -> DecoderState:
        """Apply ``change`` to every recurrent tensor, rows first."""
        return state._replace(memory=self.map_memory(state.memory, change))

    def widen(self, encoder_out: Any, rows: int) -> Any:
        """Encoder outputs for ``rows`` decoder rows; by default the decoder takes those of B sentences."""
        return encoder_out

    def map_memory(self, memory: dict, change: Callable[[Tensor], Tensor]) -> dict:
        """``change`` every tensor of fairseq's incremental state that belongs to rows."""
        raise NotImplementedError


@singledispatch
def steps_for(decoder: nn.Module, model: nn.Module) -> FairseqSteps:
    """The step decoder for ``model``, chosen by the type of its decoder."""
    supported = ", ".join(sorted(kind.__name__ for kind in steps_for.registry if kind is not object))
    raise TypeError(
        f"no step decoder for {type(decoder).__name__}: relaxed and beam decoding in training work with "
        f"{supported} and their subclasses"
    )


def step_decoder(model: nn.Module) -> FairseqSteps:
    """The step decoder of a fairseq model.

    Raises:
        TypeError: its decoder is of no supported type.
        ValueError: its decoder has an option that cannot be run, or differentiated, step by step.
    """
    decoder = getattr(model, "decoder", None)
    if getattr(decoder, "adaptive_softmax", None) is not None:
        raise ValueError(
            "adaptive softmax (--adaptive-softmax-cutoff) has no differentiable log-probabilities of single "
            "steps: train with an ordinary output layer"
        )
    return steps_for(decoder, model)
