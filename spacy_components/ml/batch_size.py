"""How large a padded batch of segments may be: for a CPU's cache, or for a GPU's memory."""

import torch
from torch import nn

from spacy_components.ml.segments import ARCS_PER_BATCH

SHARE = 8
"""A batch of a GPU may take one part in so many of its memory."""
ARCS_PER_GPU_BATCH = 4_000_000
"""Where a GPU does not say how much memory it has."""
NUMBERS_PER_ARC = 24
"""Float32 numbers an arc that scores, decisions, losses and their gradients hold in training, about."""


def arcs_per_batch(scorer: nn.Module | None) -> int:
    """The most arcs that a batch may have, padding included.

    On a GPU each batch costs some sixty kernels whatever its size, so there are as few as its memory allows.

    Args:
        scorer: what scores the arcs; it can say how many ``numbers_per_arc`` it holds on top. None where it
            is not built yet, and nothing can be scored.
    """
    device = torch.device("cpu") if scorer is None else next(scorer.parameters()).device
    if device.type == "cpu":
        return ARCS_PER_BATCH
    if device.type != "cuda":
        return ARCS_PER_GPU_BATCH
    numbers = NUMBERS_PER_ARC + getattr(scorer, "numbers_per_arc", 0)
    return torch.cuda.get_device_properties(device).total_memory // (SHARE * 4 * numbers)
