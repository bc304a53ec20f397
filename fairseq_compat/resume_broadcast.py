"""Fault: ``Unsupported global: omegaconf.dictconfig.DictConfig`` on resuming with two or more processes.

Rank 0 reads the checkpoint and sends its content to the other ranks by ``torch.save`` and ``torch.load``,
which torch >= 2.6 restricts to weights. The sender is a process of the same job, and rank 0 has already read
the file itself with ``weights_only=True``; so this one call unpickles in full, as it always did.
"""

import functools
import inspect

import torch
from fairseq.distributed import utils

from fairseq_compat.overlay import Overlay


def fix() -> bool:
    """Let ``torch.load`` inside ``fairseq.distributed.utils`` (its only use there) read any object."""
    if "weights_only" in inspect.getsource(utils) or not hasattr(torch.serialization, "add_safe_globals"):
        return False
    utils.torch = Overlay(torch, load=functools.partial(torch.load, weights_only=False))
    return True
