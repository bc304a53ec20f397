"""Searches compute in full precision: under autocast, only the decoder's own steps run in it."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from diffdecode.sequence.step_decoder import State, StepDecoder

P = ParamSpec("P")
R = TypeVar("R")


def outside_autocast(search: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a search, whose first argument is a step decoder.

    A cumulative score of -60 in half precision cannot tell candidates apart that differ by .03; and a loop
    over steps would cast between the two types at every operation.
    """

    @functools.wraps(search)
    def run(decoder: StepDecoder, *arguments: Any, **options: Any) -> R:
        device = decoder.embedding.device.type
        if not torch.is_autocast_enabled(device):
            return search(decoder, *arguments, **options)  # type: ignore[arg-type]
        decoder = StepsInAutocast(decoder, device, torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False):
            return search(decoder, *arguments, **options)  # type: ignore[arg-type]

    return run  # type: ignore[return-value]


class StepsInAutocast:
    """A step decoder whose steps run in autocast to ``dtype``, and return float32 (or float64)."""

    def __init__(self, decoder: Any, device: str, dtype: torch.dtype):
        self._decoder = decoder
        self._autocast = functools.partial(torch.autocast, device, dtype=dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def step(self, state: State, vectors: Tensor) -> tuple[Tensor, State]:
        """Log-probabilities ``[R, V]`` and the new state."""
        with self._autocast():
            log_probs, state = self._decoder.step(state, vectors)
        return at_least_float32(log_probs), state

    def features(self, state: State, vectors: Tensor) -> tuple[Tensor, State]:
        """The output layer's input ``[R, H]`` and the new state."""
        with self._autocast():
            hidden, state = self._decoder.features(state, vectors)
        return at_least_float32(hidden), state


def full_precision(backward: Callable[P, R]) -> Callable[P, R]:
    """Decorator of an autograd function's backward pass, which may be asked for under autocast."""

    @functools.wraps(backward)
    def run(ctx: Any, *grads: Any) -> R:
        device = next((grad.device.type for grad in grads if grad is not None), "cpu")
        with torch.autocast(device, enabled=False):
            return backward(ctx, *grads)  # type: ignore[call-arg]

    return run  # type: ignore[return-value]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
