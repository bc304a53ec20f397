"""What the criterions share that run a decoder step by step: which models, progress, what is logged."""

import math
from dataclasses import dataclass

from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from omegaconf import II
from torch import Tensor, nn

from fairseq_plugins.decoders import step_decoder
from fairseq_plugins.options import follow_old_names
from fairseq_plugins.progress import ScheduledCriterionTask
from fairseq_plugins.search import search_space


@dataclass
class StepwiseConfig(FairseqDataclass):
    """fairseq's own options that every criterion here reads."""

    sentence_avg: bool = II("optimization.sentence_avg")


class StepwiseCriterion(FairseqCriterion):
    """A criterion over a step decoder: which models it can train, how far training is, what it logs.

    Subclasses refuse options that cannot work in ``check_options`` and, once built, compute a loss in
    ``forward``, which ends with ``self.report(...)``.

    Attributes:
        config: the class of its options.
        loss_unit: what a logged loss is divided by: ``log 2`` makes nats bits.
        averaged: names of what is logged as a mean over sentences.
        epoch: the current epoch, from 1.
        num_updates: updates so far.
    """

    config: type[StepwiseConfig]
    loss_unit: float = 1.0
    averaged: tuple[str, ...] = ()

    def __init__(self, cfg: StepwiseConfig, task: FairseqTask):
        super().__init__(task)
        follow_old_names(cfg, self.config)
        self.cfg = cfg
        self.epoch, self.num_updates = 1, 0
        self.space = search_space(task)
        self.check_options()
        self._check_progress(task)

    def check_options(self) -> None:
        """Refuse options that cannot work, before training.

        Raises:
            ValueError: naming the option and what to do.
        """

    def changing_schedules(self) -> dict[str, str]:
        """What changes in training, each with the option that makes it constant."""
        return {}

    def _check_progress(self, task: FairseqTask) -> None:
        changing = self.changing_schedules()
        if changing and not isinstance(task, ScheduledCriterionTask):
            raise ValueError(
                f"{type(task).__name__} does not tell criterions the epoch, so that the schedule of "
                f"{' and '.join(changing)} cannot be followed: use --task sequence_tagging or "
                f"direct_loss_translation, or constant values ({', '.join(changing.values())})"
            )

    def check_model(self, model: nn.Module) -> None:
        """Called by tasks before training: refuse a decoder that cannot be run step by step."""
        step_decoder(model)

    def set_progress(self, epoch: int, num_updates: int) -> None:
        """Called by tasks before each training step: schedules are functions of it."""
        self.epoch, self.num_updates = epoch, num_updates

    def report(
        self, sample: dict, target: Tensor, loss: Tensor, nll: Tensor, **means: float | Tensor
    ) -> tuple[int, dict]:
        """What ``forward`` returns beside the loss.

        Args:
            sample: the batch.
            target: ``[B, T]``.
            loss: summed, or one for each of the B sentences or B * T positions.
            nll: summed negative log-likelihood in nats.
            means: by names of ``averaged``, means over the sentences of this batch.

        Returns:
            The sample size, by which fairseq divides the gradient, and the logging outputs, all sums.
        """
        sentences = target.size(0)
        sample_size = sentences if self.cfg.sentence_avg else sample["ntokens"]
        return sample_size, {
            "loss": loss.sum().data,
            "nll_loss": nll.data,
            "ntokens": sample["ntokens"],
            "nsentences": sentences,
            "sample_size": sample_size,
            **{name: mean * sentences for name, mean in means.items()},
        }

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict]) -> None:
        """Aggregate logging outputs from data parallel training."""

        def total(name):
            return sum(log.get(name, 0) for log in logging_outputs)

        sample_size, ntokens = total("sample_size"), total("ntokens")
        metrics.log_scalar("loss", total("loss") / sample_size / cls.loss_unit, sample_size, round=3)
        metrics.log_scalar("nll_loss", total("nll_loss") / ntokens / math.log(2), ntokens, round=3)
        for name in cls.averaged:
            if any(name in log for log in logging_outputs):
                sentences = total("nsentences")
                metrics.log_scalar(name, total(name) / sentences, weight=sentences, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Everything logged is a sum over sentences."""
        return True
