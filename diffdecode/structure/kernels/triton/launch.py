"""Where kernels are launched: on the device that their tensors lie on, whichever is the current one."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Inside the ``with`` block, kernels go to this tensor's device, and to its current stream."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
