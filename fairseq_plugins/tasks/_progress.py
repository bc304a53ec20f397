"""How a task tells its criterion how far training is."""


class ScheduledCriterionTask:
    """Mixin for tasks: call ``criterion.set_progress(epoch, num_updates)`` before every training step.

    fairseq tells a criterion neither the epoch nor the update. Both are restored when a run is resumed, so a
    schedule that is a pure function of them continues exactly where it stopped. Criterions without the method
    are left alone.
    """

    epoch = 1

    def begin_epoch(self, epoch, model):
        super().begin_epoch(epoch, model)
        self.epoch = epoch

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False, **kwargs):
        if hasattr(criterion, "set_progress"):
            criterion.set_progress(self.epoch, update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad, **kwargs)
