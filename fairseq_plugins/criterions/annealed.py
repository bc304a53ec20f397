"""What the criterions share whose choices are relaxed, less and less so as training goes on."""

from dataclasses import dataclass

from fairseq.tasks import FairseqTask

from diffdecode.sequence import annealed_alpha
from fairseq_plugins.criterions.stepwise import StepwiseConfig, StepwiseCriterion
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
    """A criterion with an annealed alpha, and its schedule."""

    config: type[AnnealedConfig]
    averaged: tuple[str, ...] = ("alpha",)

    def __init__(self, cfg: AnnealedConfig, task: FairseqTask):
        super().__init__(cfg, task)
        for name in ("alpha", "alpha_growth", "alpha_max"):
            if not getattr(cfg, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(cfg, name)} must be positive")

    def changing_schedules(self) -> dict[str, str]:
        """What changes in training, each with the option that makes it constant."""
        return {"alpha": "--alpha-growth 1"} if self.cfg.alpha_growth != 1 else {}

    @property
    def alpha(self) -> float:
        """Peakedness in this epoch."""
        return annealed_alpha(self.epoch, self.cfg.alpha, self.cfg.alpha_growth, self.cfg.alpha_max)
