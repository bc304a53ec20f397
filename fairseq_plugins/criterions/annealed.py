"""Options of annealed criterions, and the check that somebody tells them the progress of training."""

from dataclasses import dataclass, field

from fairseq.dataclass import FairseqDataclass
from omegaconf import II

from diffdecode.sequence import annealed_alpha
from fairseq_plugins.progress import ScheduledCriterionTask


@dataclass
class AlphaConfig(FairseqDataclass):
    """Peakedness that grows exponentially with the epochs."""

    alpha: float = field(
        default=0.1, metadata={"help": "peakedness in the first epoch: large is close to hard"}
    )
    alpha_growth: float = field(default=1.1, metadata={"help": "factor on alpha after each epoch"})
    alpha_max: float = field(default=100.0, metadata={"help": "upper bound of alpha"})
    sentence_avg: bool = II("optimization.sentence_avg")


def alpha_at(cfg: AlphaConfig, epoch: int) -> float:
    """Alpha in ``epoch``, counted from 1."""
    return annealed_alpha(epoch, cfg.alpha, cfg.alpha_growth, cfg.alpha_max)


def check_schedule(cfg: AlphaConfig, task, more: dict[str, str]) -> None:
    """Refuse schedules that cannot work, before training.

    Args:
        cfg: the criterion's options.
        task: the task that it is built for.
        more: further schedules that change over time, each with the option that makes it constant.

    Raises:
        ValueError: an alpha that is not positive, or a task that tells criterions nothing.
    """
    for name in ("alpha", "alpha_growth", "alpha_max"):
        if not getattr(cfg, name) > 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(cfg, name)} must be positive")
    changing = {"alpha": "--alpha-growth 1"} if cfg.alpha_growth != 1 else {}
    changing.update(more)
    if changing and not isinstance(task, ScheduledCriterionTask):
        raise ValueError(
            f"{type(task).__name__} does not tell criterions the epoch, so that the schedule of "
            f"{' and '.join(changing)} cannot be followed: use --task sequence_tagging or "
            f"direct_loss_translation, or constant values ({', '.join(changing.values())})"
        )
