"""Train through beam search (Goyal, Neubig, Dyer and Berg-Kirkpatrick 2018)."""

# fairseq turns the fields of a config into command-line options and understands only typing.Optional.
# ruff: noqa: UP045

import math
from dataclasses import dataclass, field, replace
from typing import Optional

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics

from diffdecode.categorical import TOP_K_OPERATORS, beam_overlap
from diffdecode.sequence import (
    HammingCost,
    SoftBeamOptions,
    hard_beam,
    normalised,
    soft_beam,
    truncated_soft_beam,
)
from fairseq_plugins.criterions._search import keep_encoder_output, label_costs, search_space
from fairseq_plugins.criterions.annealed import AlphaConfig, alpha_at, check_schedule
from fairseq_plugins.decoders import step_decoder

# The weights of a soft search, B * T * K * K * V numbers, up to which activations are kept (some 200 MB)
# instead of computed again in the backward pass: with few labels that would double the time for nothing.
KEPT_WEIGHTS = 2**24


@dataclass
class SoftBeamConfig(AlphaConfig):
    objective: ChoiceEnum(["direct", "hinge"]) = field(
        default="direct",
        metadata={"help": "direct: expected cost of the beam's best (Eq. 2); hinge: soft max-margin (2.5)"},
    )
    soft_beam_size: int = field(default=3, metadata={"help": "beam elements in training"})
    top_k_operator: ChoiceEnum(sorted(TOP_K_OPERATORS)) = field(
        default="peaked", metadata={"help": "relaxation of the top-k; peaked is the paper's Algorithm 2"}
    )
    hard_forward: bool = field(
        default=False, metadata={"help": "select hard in the forward pass, soft in the backward pass"}
    )
    ce_weight: float = field(
        default=0.0, metadata={"help": "w in (1 - w) * objective + w * cross entropy, from 0 to 1"}
    )
    margin: float = field(default=1.0, metadata={"help": "hinge only: weight of the cost in the search"})
    wrong_label_costs: Optional[str] = field(
        default=None, metadata={"help": "LABEL=COST,...: cost of predicting LABEL wrongly; others cost 1"}
    )
    soft_beam_candidates: int = field(
        default=0,
        metadata={
            "help": "look at the best M candidates of a sentence only (0: at all): faster, where enough"
        },
    )
    soft_beam_tolerance: float = field(
        default=1e-3,
        metadata={"help": "largest share of a choice that the candidates may miss; else the batch is redone"},
    )
    length_penalty: float = field(
        default=0.0,
        metadata={"help": "translation only: compare the final hypotheses by score / words^p; 0: by score"},
    )
    extra_steps: int = field(
        default=0, metadata={"help": "translation only: steps of the search beyond the reference"}
    )


@register_criterion("soft_beam", dataclass=SoftBeamConfig)
class SoftBeamCriterion(FairseqCriterion):
    """Direct loss or hinge on a soft beam in training, and on the hard beam in validation.

    Losses at different alpha cannot be compared, so validation takes the limit of the same objective: its
    value on the hard beam of the same size.
    """

    def __init__(self, cfg: SoftBeamConfig, task):
        super().__init__(task)
        _check(cfg, task)
        self.cfg = cfg
        self.epoch = 1
        self.register_buffer("wrong_costs", label_costs(cfg.wrong_label_costs, task.target_dictionary))
        self._space = search_space(task)
        if cfg.soft_beam_size > self._space.size:
            raise ValueError(
                f"--soft-beam-size {cfg.soft_beam_size} is more than the {self._space.size} symbols that can "
                "be predicted"
            )
        # Tagging has as many labels as words: no further steps, and lengths that are all the same.
        translates = self._space.eos is not None
        self.extra_steps = cfg.extra_steps if translates else 0
        self.length_penalty = cfg.length_penalty if translates else 0.0

    def check_model(self, model) -> None:
        """Called by tasks before training: refuse a decoder that cannot be run step by step."""
        step_decoder(model)

    def set_progress(self, epoch: int, num_updates: int) -> None:
        """Called by tasks before each training step; alpha is a function of the epoch."""
        self.epoch = epoch

    @property
    def alpha(self) -> float:
        """Peakedness in this epoch (section 2.3: annealed across epochs)."""
        return alpha_at(self.cfg, self.epoch)

    def forward(self, model, sample, reduce=True):
        """Compute the loss of a batch.

        Returns a tuple with three elements:
        1) the loss
        2) the sample size, which is used as the denominator for the gradient
        3) logging outputs to display while training
        """
        encoder_out, target, gold_scores = self._teacher_forcing(model, sample)
        search = self._soft_search if self.training else self._hard_search
        objective, extra_logs = search(model, encoder_out, target, gold_scores)
        nll = -gold_scores
        loss = torch.lerp(objective, nll, self.cfg.ce_weight) if self.cfg.ce_weight else objective
        sample_size = target.size(0) if self.cfg.sentence_avg else sample["ntokens"]
        logs = {
            "loss": loss.sum().data,
            "nll_loss": nll.sum().data,
            "ntokens": sample["ntokens"],
            "nsentences": target.size(0),
            "sample_size": sample_size,
            **extra_logs,
        }
        return loss.sum() if reduce else loss, sample_size, logs

    def _teacher_forcing(self, model, sample):
        """Encoder output, target ``[B, T]`` and s(y*) ``[B]``, the reference's score (section 2.5).

        The model is called as a whole even where the loss needs no reference: only then does
        DistributedDataParallel send the gradients of the search.
        """
        with keep_encoder_output(model) as encoder_outputs:
            net_output = model(**sample["net_input"])
        target = model.get_targets(sample, net_output)
        log_probs = model.get_normalized_probs(net_output, log_probs=True)
        scores = log_probs.gather(2, target[..., None]).squeeze(2)
        scores = scores.masked_fill(target.eq(self.padding_idx), 0.0).sum(1)
        in_loss = self.cfg.ce_weight > 0 or self.cfg.objective == "hinge"
        # Detached, the scores over the vocabulary need not be kept for the backward pass.
        return encoder_outputs[0], target, scores if in_loss else scores.detach()

    def _problem(self, model, encoder_out, target):
        """Decoder, its first state, lengths ``[B]``, candidates and cost of a batch."""
        space = self._space
        if space.symbols.device != target.device:
            space = self._space = replace(space, symbols=space.symbols.to(target.device))
        decoder = step_decoder(model)
        lengths = target.ne(self.padding_idx).sum(1) + self.extra_steps
        cost = HammingCost(target, self.padding_idx, self.wrong_costs)
        return decoder, decoder.init_state(encoder_out), lengths, space, cost

    def _soft_search(self, model, encoder_out, target, gold_scores):
        decoder, state, lengths, space, cost = self._problem(model, encoder_out, target)
        options = SoftBeamOptions(
            self.cfg.soft_beam_size,
            self.alpha,
            self.cfg.top_k_operator,
            self.cfg.hard_forward,
            cost_weight=self._cost_weight,
            length_penalty=self.length_penalty,
            recompute=target.numel() * self.cfg.soft_beam_size**2 * space.size > KEPT_WEIGHTS,
        )
        problem = (decoder, state, lengths, space, options, cost, _mean_overlap)
        sentences, logs = target.size(0), {}
        if self.cfg.soft_beam_candidates:
            limits = self.cfg.soft_beam_candidates, self.cfg.soft_beam_tolerance
            found = truncated_soft_beam(*problem, *limits)
            logs["redone"] = found.fell_back * sentences
        else:
            found = soft_beam(*problem)
        logs["alpha"] = self.alpha * sentences
        logs["beam_overlap"] = torch.stack(found.observed).mean() * sentences
        return self._objective(found.direct_loss(), found.max_score(), gold_scores, target), logs

    def _hard_search(self, model, encoder_out, target, gold_scores):
        decoder, state, lengths, space, cost = self._problem(model, encoder_out, target)
        found = hard_beam(decoder, state, lengths, self.cfg.soft_beam_size, space, cost, self._cost_weight)
        ranking = normalised(found.scores, space.lengths(found.symbols), self.length_penalty)
        best, index = ranking.max(1, keepdim=True)
        return self._objective(found.costs.gather(1, index)[:, 0], best[:, 0], gold_scores, target), {}

    @property
    def _cost_weight(self):
        return self.cfg.margin if self.cfg.objective == "hinge" else 0.0

    def _objective(self, cost, max_score, gold_scores, target):
        """``[B]``: the cost (Eq. 2), or ``max(0, s_max - s(y*))`` (section 2.5)."""
        if self.cfg.objective == "direct":
            return cost
        words = target.ne(self.padding_idx).sum(1)
        return torch.relu(max_score - normalised(gold_scores, words, self.length_penalty))

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        """Aggregate logging outputs from data parallel training."""

        def total(name):
            return sum(log.get(name, 0) for log in logging_outputs)

        sample_size, ntokens = total("sample_size"), total("ntokens")
        # The cost is counted in symbols: unlike cross entropy, it is not a number of bits.
        metrics.log_scalar("loss", total("loss") / sample_size, sample_size, round=3)
        metrics.log_scalar("nll_loss", total("nll_loss") / ntokens / math.log(2), ntokens, round=3)
        for name in ("alpha", "beam_overlap", "redone"):
            if any(name in log for log in logging_outputs):
                metrics.log_scalar(name, total(name) / total("nsentences"), weight=0, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Everything logged is a sum over sentences."""
        return True


def _mean_overlap(chosen, scores):
    """Mean overlap of the rows of a selection ``[B, K, J, C]``: 0 distinct, 1 all the same."""
    return beam_overlap(chosen.flatten(2)).mean()


def _check(cfg: SoftBeamConfig, task) -> None:
    """Refuse options that cannot work, before training.

    Raises:
        ValueError: naming the option and what to do.
    """
    if cfg.soft_beam_size < 1:
        raise ValueError(f"--soft-beam-size {cfg.soft_beam_size} must be at least 1")
    if not 0 <= cfg.ce_weight <= 1:
        raise ValueError(f"--ce-weight {cfg.ce_weight} must be between 0 and 1")
    if cfg.soft_beam_candidates and cfg.soft_beam_candidates < cfg.soft_beam_size:
        raise ValueError(
            f"--soft-beam-candidates {cfg.soft_beam_candidates} must be 0 or at least --soft-beam-size "
            f"{cfg.soft_beam_size}"
        )
    if cfg.length_penalty < 0:
        raise ValueError(f"--length-penalty {cfg.length_penalty} must not be negative")
    if cfg.extra_steps < 0:
        raise ValueError(f"--extra-steps {cfg.extra_steps} must not be negative")
    check_schedule(cfg, task, more={})
