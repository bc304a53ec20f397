"""Fault: a misspelt ``--best-checkpoint-metric`` is a ``KeyError`` of one word, after a whole epoch.

Which metrics there are depends on task, criterion and options, and only a validation knows: before training,
it is made of one batch. It changes no weight, and every training step sets its own seed.
"""

import difflib
import functools
import weakref

from fairseq import metrics
from fairseq.trainer import Trainer


def fix() -> bool:
    """Refuse a metric that validation does not compute, and name the nearest."""
    begin, checked = Trainer.begin_epoch, weakref.WeakSet()

    @functools.wraps(begin)
    def begin_epoch(trainer, epoch):
        begin(trainer, epoch)
        if trainer not in checked:
            checked.add(trainer)
            _refuse_unknown(trainer)

    Trainer.begin_epoch = begin_epoch
    return True


def _refuse_unknown(trainer):
    metric = trainer.cfg.checkpoint.best_checkpoint_metric
    if metric == "loss":  # every criterion has it
        return
    if trainer.cfg.dataset.disable_validation:  # nobody will read it
        return
    known = _metrics(trainer)
    if metric not in known:
        near = difflib.get_close_matches(metric, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"--best-checkpoint-metric {metric}: validation computes no such metric; {hint}"
            f"there are {', '.join(known)}"
        )


def _metrics(trainer):
    subset = trainer.cfg.dataset.valid_subset.split(",")[0]
    batch = trainer.get_valid_iterator(subset).first_batch
    with metrics.aggregate(new_root=True) as found:
        trainer.valid_step(batch)
    metrics.reset_meters("valid")
    return sorted(found.get_smoothed_values())
