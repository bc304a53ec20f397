"""The devices that tests of the GPU's paths run on: a CUDA device, and without one its stand-in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from standin_card import DEVICE, Card, CardGenerator, standin_card
from torch import Tensor
from torch.utils._pytree import tree_map

from benchmarks.gpu.card import waits_for_cuda


class Accelerator(ABC):
    """A device, and what tests ask about it.

    Attributes:
        device: where tensors are.
        is_real: whether it is a card; otherwise tests keep to few and small sizes.
    """

    device: torch.device
    is_real: bool

    def moved(self, values):
        """Tensors, in any nesting, as new ones on the device."""
        return tree_map(lambda leaf: leaf.to(self.device) if isinstance(leaf, Tensor) else leaf, values)

    @abstractmethod
    def generator(self, seed: int) -> torch.Generator:
        """Random numbers of the device's own."""

    @abstractmethod
    def waits(self, step: Callable[..., object], *arguments, **options) -> list[str]:
        """One entry for each time that ``step(*arguments, **options)`` waits for the device."""

    def copies(self, step: Callable[..., object], *arguments) -> list[str]:
        """What ``step(*arguments)`` brings to the device or back; a card does not tell."""
        return []

    def sizes(self, small: list, all_sizes: list) -> list:
        """Those that are tried."""
        return all_sizes if self.is_real else small


class StandIn(Accelerator):
    """The stand-in; also counts kernels."""

    is_real = False

    def __init__(self, card: Card):
        self.card = card
        self.device = DEVICE

    def generator(self, seed):
        return CardGenerator().manual_seed(seed)

    def waits(self, step, *arguments, **options):
        self.card.reset()
        step(*arguments, **options)
        return list(self.card.waits)

    def copies(self, step, *arguments):
        self.card.reset()
        step(*arguments)
        return list(self.card.copies)

    def kernels(self, step: Callable[..., object], *arguments) -> int:
        """How many kernels ``step(*arguments)`` starts."""
        self.card.reset()
        step(*arguments)
        return self.card.kernels


class Cuda(Accelerator):
    """The card that is there."""

    is_real = True
    device = torch.device("cuda:0")

    def generator(self, seed):
        return torch.Generator(self.device).manual_seed(seed)

    def waits(self, step, *arguments, **options):
        return waits_for_cuda(partial(step, *arguments, **options))


@contextmanager
def full_precision() -> Iterator[None]:
    """cuDNN's LSTMs multiply in float32, which is compared with a CPU's, and not in TF32 as they would."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def accelerator_named(name: str) -> Iterator[Accelerator]:
    """``standin`` or ``cuda``; skips the test where there is none."""
    if name == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        with full_precision():
            yield Cuda()
    else:
        with standin_card() as card:
            yield StandIn(card)
