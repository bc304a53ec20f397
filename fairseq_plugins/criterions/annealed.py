"""What the criterions share whose choices are relaxed, less and less so as training goes on."""

from dataclasses import dataclass

from fairseq.tasks import FairseqTask
from torch import Tensor

from diffdecode.sequence import annealed_alpha
from fairseq_plugins.criterions.stepwise import StepwiseConfig, StepwiseCriterion
from fairseq_plugins.criterions.watch import EpochWatch, Trouble
from fairseq_plugins.options import option


@dataclass
class AnnealedConfig(StepwiseConfig):
    """Peakedness that grows exponentially with the epochs."""

    alpha: float = option(0.1, "peakedness in the first epoch: large is close to hard", "ours")
    alpha_growth: float = option(
        1.1,
        "factor on alpha after each epoch; 1 keeps it constant",
        'soft beam 2018, 2.3 and scheduled sampling 2017, 5, "annealing"',
    )
    alpha_max: float = option(100.0, "upper bound of alpha", "ours")


class AnnealedCriterion(StepwiseCriterion):
    """A criterion with an annealed alpha, its schedule, and an eye on what a wrong alpha does.

    Attributes:
        troubles: by names of what is logged, what is warned of, once an epoch.
    """

    config: type[AnnealedConfig]
    averaged: tuple[str, ...] = ("alpha",)
    troubles: dict[str, Trouble] = {}

    def __init__(self, cfg: AnnealedConfig, task: FairseqTask):
        super().__init__(cfg, task)
        self._begin_watch()
        for name in ("alpha", "alpha_growth", "alpha_max"):
            if not getattr(cfg, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(cfg, name)} must be positive")

    def _begin_watch(self) -> None:
        self._watches = {name: EpochWatch(trouble) for name, trouble in self.troubles.items()}

    def watch(self, means: dict[str, Tensor | float]) -> None:
        """Take note of the means of a training batch that can show trouble."""
        for name, watch in self._watches.items():
            if name in means:
                watch.add(means[name])

    def _look(self) -> None:
        for watch in self._watches.values():
            watch.look(self.epoch)

    def set_progress(self, epoch: int, num_updates: int) -> None:
        """Called by tasks before each training step; alpha is a function of the epoch."""
        if epoch != self.epoch:
            self._look()
            self._begin_watch()
        super().set_progress(epoch, num_updates)

    def train(self, mode: bool = True) -> "AnnealedCriterion":
        """Training or validation, before which the epoch so far is looked at."""
        if not mode and self.training:
            self._look()
        return super().train(mode)

    def changing_schedules(self) -> dict[str, str]:
        """What changes in training, each with the option that makes it constant."""
        return {"alpha": "--alpha-growth 1"} if self.cfg.alpha_growth != 1 else {}

    @property
    def alpha(self) -> float:
        """Peakedness in this epoch."""
        return annealed_alpha(self.epoch, self.cfg.alpha, self.cfg.alpha_growth, self.cfg.alpha_max)
