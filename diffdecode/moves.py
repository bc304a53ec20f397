"""Bringing tensors to a GPU without waiting for it, and back with one wait for all."""

from collections.abc import Sequence

import torch
from torch import Tensor

NEEDS_NO_PINNING = ("cpu", "mps", "meta")


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; to a GPU it is copied from pinned memory, and the CPU goes on meanwhile.

    Args:
        tensor: of any shape; one of the CPU may be overwritten at once.
        device: where it is needed.
    """
    if tensor.device.type != "cpu" or device.type in NEEDS_NO_PINNING:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def on_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one dtype and device on the CPU, in one transfer.

    Args:
        tensors: of any shapes.
    """
    if not tensors or tensors[0].device.type == "cpu":
        return list(tensors)
    together = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    parts = together.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors)]
