"""One pass of the encoder for a loss that decodes by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def keep_encoder_output(model: nn.Module) -> Iterator[list]:
    """Within the block, collect what ``model.encoder`` returns, so that a search need not encode again."""
    collected: list = []
    handle = model.encoder.register_forward_hook(lambda module, arguments, output: collected.append(output))
    try:
        yield collected
    finally:
        handle.remove()


def encode(model: nn.Module, sample: dict) -> Any:
    """What the model's encoder returns for a batch, ``sample["net_input"]`` of B sentences.

    With several workers the model is called as a whole: only then are its gradients exchanged.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        with keep_encoder_output(model) as collected:
            model(**sample["net_input"])
        return collected[0]
    return model.encoder.forward_torchscript(sample["net_input"])


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Within the block, the model is as in evaluation; after it, each module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
