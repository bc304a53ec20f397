"""What a task tells its criterion: the model before training, and how far training is."""


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

    def build_model(self, cfg, from_checkpoint=False):  # fairseq looks for this name
        self._built_model = super().build_model(cfg, from_checkpoint)
        return self._built_model

    def build_criterion(self, cfg, *args, **kwargs):
        criterion = super().build_criterion(cfg, *args, **kwargs)
        model, self._built_model = self._built_model, None
        if model is not None and hasattr(criterion, "check_model"):
            criterion.check_model(model)
        return criterion

    def begin_epoch(self, epoch, model):
        super().begin_epoch(epoch, model)
        self.epoch = epoch

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False, **kwargs):
        if hasattr(criterion, "set_progress"):
            criterion.set_progress(self.epoch, update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad, **kwargs)
