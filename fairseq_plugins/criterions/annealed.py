"""What the criterions share whose choices are relaxed, less and less so as training goes on."""

import math
from dataclasses import dataclass

from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from omegaconf import II
from torch import Tensor, nn

from diffdecode.sequence import annealed_alpha
from fairseq_plugins.decoders import step_decoder
from fairseq_plugins.options import follow_old_names, option
from fairseq_plugins.progress import ScheduledCriterionTask
from fairseq_plugins.search import search_space


@dataclass
class AnnealedConfig(FairseqDataclass):
    """Peakedness that grows exponentially with the epochs."""

    alpha: float = option(0.1, "peakedness in the first epoch: large is close to hard", "ours")
    alpha_growth: float = option(
        1.1,
        "factor on alpha after each epoch; 1 keeps it constant",
        'soft beam 2018, 2.3 and scheduled sampling 2017, 5, "annealing"',
    )
    alpha_max: float = option(100.0, "upper bound of alpha", "ours")
    sentence_avg: bool = II("optimization.sentence_avg")


class AnnealedCriterion(FairseqCriterion):
    """A criterion with an annealed alpha: its schedule, what it logs, and which models it can train.

    Subclasses refuse options that cannot work in ``check_options`` and, once built, compute a loss in
    ``forward``, which ends with ``self.report(...)``.

    Attributes:
        config: the class of its options.
        loss_unit: what a logged loss is divided by: ``log 2`` makes nats bits.
        averaged: names of what is logged as a mean over sentences.
        epoch: the current epoch, from 1.
        num_updates: updates so far.
    """

    config: type[AnnealedConfig]
    loss_unit: float = 1.0
    averaged: tuple[str, ...] = ("alpha",)

    def __init__(self, cfg: AnnealedConfig, task: FairseqTask):
        super().__init__(task)
        follow_old_names(cfg, self.config)
        self.cfg = cfg
        self.epoch, self.num_updates = 1, 0
        self.space = search_space(task)
        self.check_options()
        self._check_schedules(task)

    def check_options(self) -> None:
        """Refuse options that cannot work, before training.

        Raises:
            ValueError: naming the option and what to do.
        """

    def changing_schedules(self) -> dict[str, str]:
        """What changes in training, each with the option that makes it constant."""
        return {"alpha": "--alpha-growth 1"} if self.cfg.alpha_growth != 1 else {}

    def _check_schedules(self, task: FairseqTask) -> None:
        for name in ("alpha", "alpha_growth", "alpha_max"):
            if not getattr(self.cfg, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self.cfg, name)} must be positive")
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

    @property
    def alpha(self) -> float:
        """Peakedness in this epoch."""
        return annealed_alpha(self.epoch, self.cfg.alpha, self.cfg.alpha_growth, self.cfg.alpha_max)

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
                metrics.log_scalar(name, total(name) / total("nsentences"), weight=0, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Everything logged is a sum over sentences."""
        return True
