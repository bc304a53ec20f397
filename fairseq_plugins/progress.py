"""What a task tells its criterion: the model before training, and how far training is."""

from typing import Any

from torch import nn


class ScheduledCriterionTask:
    """Mixin for tasks: tell the criterion the model and the progress. Other criterions are left alone.

    ``criterion.check_model(model)`` is called once, before training, so that a model that the criterion
    cannot train is refused early.

    ``criterion.set_progress(epoch, num_updates)`` is called before every training step. fairseq tells a
    criterion neither the epoch nor the update. Both are restored when a run is resumed, so a schedule that is
    a pure function of them continues exactly where it stopped.
    """

    epoch = 1
    _built_model = None

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> nn.Module:  # fairseq asks for this name
        """The model, remembered until the criterion is built."""
        self._built_model = super().build_model(cfg, from_checkpoint)
        return self._built_model

    def build_criterion(self, cfg: Any, *args, **kwargs) -> nn.Module:
        """The criterion, which is shown the model if it asks for it."""
        criterion = super().build_criterion(cfg, *args, **kwargs)
        model, self._built_model = self._built_model, None
        if model is not None and hasattr(criterion, "check_model"):
            criterion.check_model(model)
        return criterion

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        """Remember the epoch."""
        super().begin_epoch(epoch, model)
        self.epoch = epoch

    def train_step(
        self,
        sample: dict,
        model: nn.Module,
        criterion: nn.Module,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
        **kwargs,
    ) -> tuple:
        """fairseq's training step, before which the criterion is told the progress."""
        if hasattr(criterion, "set_progress"):
            criterion.set_progress(self.epoch, update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad, **kwargs)
