"""A beam whose elements have become the same is a beam of one: said once an epoch, with what helps."""

import logging

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

COLLAPSED = 0.99


class CollapseWatch:
    """Mean overlap of the beam in one epoch, without waiting for a GPU before its end."""

    def __init__(self):
        self._overlap: Tensor | float = 0.0
        self._batches = 0
        self._warned = False

    def add(self, overlap: Tensor) -> None:
        """Count a training batch; ``overlap`` is its mean (``diffdecode.categorical.beam_overlap``)."""
        self._overlap = self._overlap + overlap.detach()
        self._batches += 1

    def look(self, epoch: int) -> None:
        """Warn, unless this has been said in this ``epoch``, if the beam has been collapsed so far in it."""
        if not self._batches or self._warned:
            return
        mean = float(self._overlap) / self._batches
        if mean > COLLAPSED:
            self._warned = True
            if _is_first_worker():
                logger.warning(
                    "the beam is collapsed: in epoch %d two of its elements are the same (beam_overlap "
                    "%.4f), so that it searches no more than a smaller one; use a larger --alpha or "
                    "--alpha-growth, --operator softsort or lapsum, which tell elements apart at a smaller "
                    "alpha, or --hard-forward",
                    epoch,
                    mean,
                )


def _is_first_worker() -> bool:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0
