"""Bringing tensors of the CPU to a GPU without waiting for it."""

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
