"""The one view of a left-to-right decoder that every search here needs.

A state holds the recurrent memory of R rows; row ``b * K + j`` is beam element ``j`` of sentence ``b``.
``mix`` and ``reorder`` are the soft and the hard back-pointer, written once over ``map_state``.
"""

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

State = Any


class StepDecoder(Protocol):
    """A decoder that is fed embedding vectors, one step at a time.

    ``step`` must not change the state that it is given: a step may be run twice (activation checkpointing).

    Attributes:
        embedding: ``[V, d]`` rows that a soft choice mixes.
        start: the symbol whose embedding is the first input.
    """

    embedding: Tensor
    start: int

    def init_state(self, encoder_out: Any) -> State:
        """The state before the first step, with R = B rows."""

    def step(self, state: State, vectors: Tensor) -> tuple[Tensor, State]:
        """Feed ``vectors [R, d]``; return log-probabilities ``[R, V]`` (at least float32), new state."""

    def map_state(self, state: State, change: Callable[[Tensor], Tensor]) -> State:
        """A new state with ``change`` applied to every recurrent tensor, rows first."""


class LinearStepDecoder(StepDecoder, Protocol):
    """A step decoder that shows its linear output layer: what a search needs that shares work over V.

    ``step`` is ``log_softmax(features @ output_weight.T + output_bias)``.

    Attributes:
        output_weight: ``[V, H]``; may be the embedding itself.
        output_bias: ``[V]`` or ``None``.
    """

    output_weight: Tensor
    output_bias: Tensor | None

    def features(self, state: State, vectors: Tensor) -> tuple[Tensor, State]:
        """Feed ``vectors [R, d]``; return the output layer's input ``[R, H]`` and the new state."""


def predict(
    decoder: StepDecoder, state: State, vectors: Tensor, normalised: bool
) -> tuple[Tensor, Tensor | None, State]:
    """One step of a search: log-probabilities ``[R, V]``, their log-normalisers ``[R]``, the new state.

    Args:
        decoder: the model.
        state: its state, R rows.
        vectors: ``[R, d]`` inputs.
        normalised: whether log-probabilities are all that is asked for; then the normalisers are ``None``,
            and any decoder will do.

    Raises:
        TypeError: normalisers of a decoder that does not show its linear output layer.
    """
    if normalised:
        log_probs, state = decoder.step(state, vectors)
        return log_probs, None, state
    if not hasattr(decoder, "output_weight"):
        raise TypeError(
            "a score_normalizer other than 1 needs logits, and the step decoder does not show its linear "
            "output layer: give it features, output_weight and output_bias (LinearStepDecoder)"
        )
    linear = cast(LinearStepDecoder, decoder)
    hidden, state = linear.features(state, vectors)
    weight = linear.output_weight
    logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, linear.output_bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_z = logits.logsumexp(1)
    return logits - log_z[:, None], log_z, state


def first_input(decoder: StepDecoder, batch_size: int) -> Tensor:
    """Embeddings ``[B, d]`` of the start symbol."""
    return decoder.embedding[decoder.start].expand(batch_size, -1)


def mix(decoder: StepDecoder, state: State, weights: Tensor) -> State:
    """Soft back-pointers: a new row is a weighted sum of old rows (soft beam search 2018, Alg. 3, line 16).

    Args:
        decoder: the owner of the state.
        state: ``B * K_in`` rows.
        weights: ``[B, K_out, K_in]``, rows sum to one. K_out may differ from K_in: the beam may grow.

    Returns:
        A state of ``B * K_out`` rows.
    """
    batch, k_out, k_in = weights.shape

    def combine(memory: Tensor) -> Tensor:
        rows = memory.reshape(batch, k_in, -1)
        return torch.bmm(weights.to(rows.dtype), rows).reshape(batch * k_out, *memory.shape[1:])

    return decoder.map_state(state, combine)


def reorder(decoder: StepDecoder, state: State, index: Tensor) -> State:
    """Hard back-pointers: new row r is old row ``index[r]`` (``index [R_out]``)."""
    return decoder.map_state(state, lambda memory: memory.index_select(0, index))
