"""What goes wrong in training without an error is said once an epoch, with what helps."""

import logging
from typing import NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class Trouble(NamedTuple):
    """What is watched.

    Attributes:
        limit: a mean over an epoch above this is trouble.
        warning: says so, of ``{epoch}`` and ``{mean}``.
    """

    limit: float
    warning: str


COLLAPSED = Trouble(
    0.99,
    "the beam is collapsed: in epoch {epoch} two of its elements are the same (beam_overlap {mean:.4f}), so "
    "that it searches no more than a smaller one; use a larger --alpha or --alpha-growth, --operator "
    "softsort or lapsum, which tell elements apart at a smaller alpha, or --hard-forward",
)
SEARCHED_TWICE = Trouble(
    0.05,
    "in epoch {epoch}, {mean:.0%} of the sentences are searched twice, the second time over all candidates, "
    "which takes several times as long: at this alpha --soft-beam-candidates are not nearly all of a choice. "
    "Use --soft-beam-tolerance 1, which never searches again (the others are left out), a larger --alpha, or "
    "more candidates; over all candidates alone (--soft-beam-candidates 0) is faster than twice",
)
DECODED_TWICE = Trouble(
    0.05,
    "in epoch {epoch}, {mean:.0%} of the sentences are decoded twice, the second time over all words: at "
    "this alpha --fused-candidates are not nearly all of a choice. Use --fused-tolerance 1, which never "
    "decodes again (the others are left out), a larger --alpha, more candidates, or --fused never",
)


class EpochWatch:
    """The mean of a quantity in one epoch, without waiting for a GPU before its end."""

    def __init__(self, trouble: Trouble):
        self._trouble = trouble
        self._total: Tensor | float = 0.0
        self._batches = 0
        self._warned = False

    def add(self, mean: Tensor) -> None:
        """Count a training batch with its mean."""
        self._total = self._total + mean.detach()
        self._batches += 1

    def look(self, epoch: int) -> None:
        """Warn, unless this has been said in this ``epoch``, if there has been trouble so far in it."""
        if not self._batches or self._warned:
            return
        mean = float(self._total) / self._batches
        if mean > self._trouble.limit:
            self._warned = True
            if _is_first_worker():
                logger.warning(self._trouble.warning.format(epoch=epoch, mean=mean))


def _is_first_worker() -> bool:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0
