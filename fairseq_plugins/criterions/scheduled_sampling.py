"""Differentiable scheduled sampling (Goyal, Dyer and Berg-Kirkpatrick 2017)."""

# fairseq turns the fields of a config into command-line options and understands only typing.Optional.
# ruff: noqa: UP045

import math
from dataclasses import dataclass
from typing import Optional

from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor, nn
from torch.nn import functional as F

from diffdecode.categorical import ESTIMATORS
from diffdecode.sequence import (
    MIXING_SCHEDULES,
    OwnWord,
    fused_scheduled_sampling,
    gold_probability,
    relaxed_decode,
    two_pass_decode,
)
from fairseq_plugins.criterions.annealed import AnnealedConfig, AnnealedCriterion
from fairseq_plugins.criterions.watch import DECODED_TWICE
from fairseq_plugins.decoders import encode, step_decoder
from fairseq_plugins.options import old_name, old_switch, option
from fairseq_plugins.search import words_to_feed

# A step is fed one word, or one mixture of words.
CHOICES = tuple(name for name, one in ESTIMATORS.items() if not one.index_has_k)
WITH_GRADIENT = tuple(name for name in CHOICES if ESTIMATORS[name].hard and ESTIMATORS[name].gives_gradient)

# When the m best candidates are enough for a choice, and from which vocabulary on they are cheaper.
FUSED_FROM_ALPHA = 2.0
PERTURBED_FROM_ALPHA = 3.0  # noise lifts some of many words of small probability
FUSED_FROM_VOCABULARY = 1000


@dataclass
class ScheduledSamplingConfig(AnnealedConfig):
    estimator: ChoiceEnum(CHOICES) = option(
        "soft",
        "how the model's own word is fed back: `soft` (soft argmax), `gumbel_soft`; `argmax`, `sample`: "
        f"hard, no gradient; or any of {', '.join(f'`{name}`' for name in WITH_GRADIENT)}",
        "scheduled sampling 2017, 3.1, 3.2; Bengio et al. 2015; ReinMax 2023",
    )
    alpha: float = option(1.0, "peakedness of `soft` and `gumbel_soft` in the first epoch, in 1/score", "3.1")
    tau: Optional[float] = option(
        None, "temperature of another estimator; none: the estimator's own", "ReinMax 2023"
    )
    gold_schedule: ChoiceEnum(MIXING_SCHEDULES) = option(
        "inverse_sigmoid",
        "p_gold: `always` 1, `never` 0, `linear` max(0, 1 - (i - 1)/k), `inverse_sigmoid` k/(k + exp(i/k)), "
        "1 at i = 1",
        "5; Bengio et al. 2015, 2.4",
    )
    gold_decay: float = option(
        10.0,
        "k of the schedule; the paper's best, 100, is nearly cross entropy (p_gold ≥ .984 for 50 epochs)",
        "5, Table 2",
    )
    gold_unit: ChoiceEnum(["epoch", "update"]) = option("epoch", "what i counts: `epoch` or `update`", "5")
    rollout: ChoiceEnum(["stepwise", "two_pass"]) = option(
        "stepwise",
        "`stepwise`: each word is fed back before the next is computed; `two_pass`: own words from a "
        "teacher-forced first pass, for Transformers",
        "3.3; Mihaylova and Martins 2019",
    )
    label_smoothing: float = option(0.0, "epsilon, as in fairseq's label_smoothed_cross_entropy", "fairseq")
    fused: ChoiceEnum(["cpu", "always", "never"]) = option(
        "cpu",
        "where loss and choice share one set of logits (for V ≥ 1000, alpha ≥ 2 or, with noise, 3; "
        "stepwise): `cpu`: there it is faster; `always`: it takes less memory; `never`",
        "ours",
    )
    fused_candidates: int = option(32, "candidates of a fused choice", "ours")
    fused_tolerance: float = option(
        1e-3,
        "largest probability outside them; else a sentence is done again over all (`redone` in the log)",
        "ours",
    )
    no_fused: bool = old_switch("fused", "never")
    relaxation: Optional[str] = old_name("estimator", {"soft_argmax": "soft"})


@register_criterion("differentiable_scheduled_sampling", dataclass=ScheduledSamplingConfig)
class ScheduledSamplingCriterion(AnnealedCriterion):
    """Cross entropy of a decoder that is fed gold words and its own, relaxed, words.

    Validation is teacher-forced cross entropy: comparable over epochs and with cross-entropy training.
    """

    config = ScheduledSamplingConfig
    loss_unit = math.log(2)
    averaged = ("alpha", "gold_prob", "redone")
    troubles = {"redone": DECODED_TWICE}

    def __init__(self, cfg: ScheduledSamplingConfig, task: FairseqTask):
        super().__init__(cfg, task)
        self.register_buffer("allowed", words_to_feed(self.space, len(task.target_dictionary)))

    def check_options(self) -> None:
        """Refuse options that cannot work, before training.

        Raises:
            ValueError: naming the option and what to do.
        """
        cfg = self.cfg
        if not 0 <= cfg.label_smoothing < 1:
            raise ValueError(f"--label-smoothing {cfg.label_smoothing} must be at least 0 and less than 1")
        if not cfg.gold_decay > 0:
            raise ValueError(f"--gold-decay {cfg.gold_decay} must be positive")
        if cfg.tau is not None and not cfg.tau > 0:
            raise ValueError(f"--tau {cfg.tau} must be positive")
        if cfg.tau is not None and self._mixes_words:
            raise ValueError(f"--tau is not used by --estimator {cfg.estimator}; its peakedness is --alpha")
        if cfg.tau is not None and "tau" not in ESTIMATORS[cfg.estimator].options:
            raise ValueError(f"--estimator {cfg.estimator} has no temperature; remove --tau")
        if cfg.fused_candidates < 1:
            raise ValueError(f"--fused-candidates {cfg.fused_candidates} must be at least 1")

    def changing_schedules(self) -> dict[str, str]:
        """What changes in training, each with the option that makes it constant."""
        changing = super().changing_schedules()
        if self.cfg.gold_schedule in ("linear", "inverse_sigmoid"):
            changing["the gold probability"] = "--gold-schedule always or never"
        return changing

    @property
    def _mixes_words(self) -> bool:
        """Whether a mixture of words is fed back, whose peakedness is alpha."""
        return not ESTIMATORS[self.cfg.estimator].hard

    @property
    def p_gold(self) -> float:
        """Probability of feeding the gold word now."""
        progress = self.epoch if self.cfg.gold_unit == "epoch" else self.num_updates + 1
        return gold_probability(self.cfg.gold_schedule, progress, self.cfg.gold_decay)

    @property
    def own_word(self) -> OwnWord:
        """How the model's own word is chosen now."""
        tau = 1.0 / self.alpha if self._mixes_words else self.cfg.tau
        return OwnWord(str(self.cfg.estimator), tau, self.allowed)

    def forward(self, model: nn.Module, sample: dict, reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Compute the loss of a batch.

        Returns a tuple with three elements:
        1) the loss
        2) the sample size, which is used as the denominator for the gradient
        3) logging outputs to display while training
        """
        target = model.get_targets(sample, None)
        means = {}
        if not self.training or self.p_gold == 1:
            log_probs = model.get_normalized_probs(model(**sample["net_input"]), log_probs=True)
            loss, nll = self._cross_entropy(log_probs, target, reduce)
        elif self.cfg.rollout == "stepwise" and self._is_fused(target.device):
            loss, nll, means["redone"] = self._fused(model, sample, target, reduce)
            self.watch(means)
        else:
            decode = self._two_passes if self.cfg.rollout == "two_pass" else self._stepwise
            loss, nll = self._cross_entropy(decode(model, sample, target), target, reduce)
        if self.training:
            means["gold_prob"] = self.p_gold
            if self._mixes_words:
                means["alpha"] = self.alpha
        return loss, *self.report(sample, target, loss, nll, **means)

    def _cross_entropy(self, log_probs, target, reduce):
        """Loss with label smoothing, and the sum of negative log-likelihoods."""
        flat, gold, epsilon = log_probs.flatten(0, 1), target.flatten(), self.cfg.label_smoothing
        if epsilon == 0:  # to the bit what --criterion cross_entropy computes
            loss = F.nll_loss(
                flat, gold, ignore_index=self.padding_idx, reduction="sum" if reduce else "none"
            )
            return loss, loss.sum()
        loss, nll = label_smoothed_nll_loss(flat, gold[:, None], epsilon, self.padding_idx, reduce)
        return loss, nll.sum()

    def _stepwise(self, model, sample, target):
        """``[B, T, V]`` log-probabilities, each step fed before the next is computed (section 3.3)."""
        steps = step_decoder(model)
        state = steps.init_state(encode(model, sample))
        return relaxed_decode(steps, state, target, self.own_word, self.p_gold)

    def _two_passes(self, model, sample, target):
        """``[B, T, V]`` log-probabilities of a pass fed with the choices of a teacher-forced one."""
        steps, encoder_out = step_decoder(model), encode(model, sample)
        previous = sample["net_input"]["prev_output_tokens"]
        return two_pass_decode(
            lambda vectors: steps.all_steps(encoder_out, previous, vectors),
            steps.embedding,
            steps.start,
            target,
            self.own_word,
            self.p_gold,
        )

    def _is_fused(self, device):
        """Whether loss and choice share their logits: where it pays, and the best candidates are enough."""
        own = self.own_word
        noisy = ESTIMATORS[own.estimator].perturbs
        smallest = PERTURBED_FROM_ALPHA if noisy else FUSED_FROM_ALPHA
        return (
            str(self.cfg.fused) in ("always", device.type)
            and self.cfg.label_smoothing == 0
            and own.alphas is not None
            and all(alpha >= smallest for alpha in own.alphas)
            and len(self.allowed) >= FUSED_FROM_VOCABULARY
        )

    def _fused(self, model, sample, target, reduce):
        """The same loss with one set of logits for loss and choice."""
        steps, inside = step_decoder(model), target.ne(self.padding_idx)
        found = fused_scheduled_sampling(
            steps,
            steps.init_state(encode(model, sample)),
            target,
            inside.sum(1),
            self.own_word,
            self.p_gold,
            m=self.cfg.fused_candidates,
            tolerance=self.cfg.fused_tolerance,
        )
        nll = -found.gold_log_probs.masked_fill(~inside, 0.0)
        return nll.sum() if reduce else nll.flatten(), nll.sum(), found.fell_back.float().mean()

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict]) -> None:
        """Aggregate logging outputs from data parallel training."""
        super().reduce_metrics(logging_outputs)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))
