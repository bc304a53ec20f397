"""Train through beam search (Goyal, Neubig, Dyer and Berg-Kirkpatrick 2018)."""

# fairseq turns the fields of a config into command-line options and understands only typing.Optional.
# ruff: noqa: UP045

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import NamedTuple, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from diffdecode.categorical import TOP_K_OPERATORS, beam_overlap
from diffdecode.sequence import (
    HammingCost,
    OwnWord,
    SoftBeamOptions,
    SpanCost,
    State,
    contrast,
    expected_risk,
    global_loss,
    hard_beam,
    normalised,
    path_costs,
    relaxed_decode,
    soft_beam,
    truncated_soft_beam,
)
from fairseq_plugins.criterions.annealed import AnnealedConfig, AnnealedCriterion
from fairseq_plugins.criterions.costs import label_costs, span_tables
from fairseq_plugins.criterions.watch import COLLAPSED, SEARCHED_TWICE
from fairseq_plugins.decoders import (
    FairseqSteps,
    encode,
    keep_encoder_output,
    step_decoder,
    without_dropout,
)
from fairseq_plugins.options import old_name, option, option_name
from fairseq_plugins.search import SCORE_NORMALIZER, check_score_normalizer, words_to_feed

# Temperature of the own history: that of the model's own distribution.
OWN_TAU = 1.0

# Options that have no meaning for an objective: the hinge adds costs to scores, symbol by symbol; the global
# objective, of a hard beam, has no costs and no soft search, and its relaxation no costs.
UNUSED_BY = {
    "hinge": ("cost",),
    "global": (
        "hard_forward",
        "margin",
        "cost",
        "wrong_label_costs",
        "soft_beam_candidates",
        "length_penalty",
    ),
    "soft_global": ("margin", "cost", "wrong_label_costs", "length_penalty"),
}
# Objectives that compare the score of the reference with those of a soft beam.
NEED_REFERENCE = ("hinge", "soft_global")

# The weights of a soft search, B * T * K * K * V numbers, up to which activations are kept (some 200 MB)
# instead of computed again in the backward pass: with few labels that would double the time for nothing.
KEPT_WEIGHTS = 2**24


@dataclass
class SoftBeamConfig(AnnealedConfig):
    objective: ChoiceEnum(["direct", "risk", "hinge", "global", "soft_global"]) = option(
        "direct",
        "`direct`: cost of the beam's best; `risk`: expected cost of the whole beam; `hinge`: soft "
        "max-margin; `global`: cross entropy over the reference and the hard beam, for scores that are not "
        "normalised; `soft_global`: the same over the soft beam",
        "soft beam 2018, Eq. 2; ours; 2.5; Andor et al. 2016; Goyal et al. 2019",
    )
    soft_beam_size: int = option(
        3, "beam elements in training, at most the symbols that can be predicted", "2.3"
    )
    alpha: float = option(
        1.0,
        "peakedness in the first epoch, in 1/score; of `peaked`, in 1/score²: candidates closer than about "
        "1/√alpha share a choice, and gradients are heavy-tailed, so that 0.1 to 0.3 is safer",
        "2.2",
    )
    alpha_growth: float = option(1.3, "factor on alpha after each epoch; 1 keeps it constant", "2.3; ours")
    operator: ChoiceEnum(sorted(TOP_K_OPERATORS)) = option(
        "softsort",
        "continuous top-k: `peaked` is the paper's; `softsort`, `lapsum`, `successive` separate near ties at "
        "smaller alpha",
        "Algorithm 2; ours",
    )
    hard_forward: bool = option(
        False, "select hard in the forward pass, with the operator's gradient", "ours"
    )
    ce_weight: float = option(0.0, "w in (1 - w) objective + w cross entropy", "ours")
    ce_history: ChoiceEnum(["gold", "own"]) = option(
        "gold",
        "what that cross entropy feeds the decoder: `gold` words, or its `own` (soft argmax of alpha 1)",
        "ours; scheduled sampling 2017, 3.1",
    )
    cost: ChoiceEnum(["labels", "spans"]) = option(
        "labels",
        "what is counted: wrong `labels` (symbols), or, of BIO labels, wrong `spans`, predicted and missed",
        "2.3; ours",
    )
    margin: float = option(1.0, "hinge only: weight of the cost that is added to the scores", "2.5")
    wrong_label_costs: Optional[str] = option(
        None,
        "`LABEL=COST,...`: cost of predicting LABEL wrongly, others cost 1; `O=2` for named entities; "
        "`GOLD>LABEL=COST`: where GOLD is right",
        "3.1; ours",
    )
    soft_beam_candidates: int = option(
        0,
        "look only at the best M candidates of a sentence; 0: at all of them. Much faster in a large "
        "vocabulary, where alpha is not small",
        "ours",
    )
    soft_beam_tolerance: float = option(
        1e-3,
        "largest share of a choice that the M candidates may miss; else a sentence is done again over all "
        "(`redone` in the log)",
        "ours",
    )
    length_penalty: float = option(
        0.0, "translation: compare the final hypotheses by score / words^p; 0: by score", "ours"
    )
    extra_steps: int = option(
        0,
        "translation: steps of the search beyond the reference; missing and extra symbols cost 1",
        "ours",
    )
    score_normalizer: float = option(*SCORE_NORMALIZER)
    top_k_operator: Optional[str] = old_name("operator")


class Problem(NamedTuple):
    """What is searched for a batch of B sentences.

    Attributes:
        decoder: the model.
        state: its state before the first step.
        target: ``[B, T]`` the references.
        lengths: ``[B]`` steps of the search.
        cost: of each symbol, or ``None``.
        path_cost: of spans, or ``None``.
    """

    decoder: FairseqSteps
    state: State
    target: Tensor
    lengths: Tensor
    cost: HammingCost | None
    path_cost: SpanCost | None


@register_criterion("soft_beam", dataclass=SoftBeamConfig)
class SoftBeamCriterion(AnnealedCriterion):
    """Direct loss or hinge on a soft beam, in validation on the hard beam; or the global loss.

    Losses at different alpha cannot be compared, so validation takes the limit of the same objective: its
    value on the hard beam of the same size. The cost is counted in symbols: unlike cross entropy, it is not a
    number of bits. Alpha is annealed across epochs (section 2.3).

    The global objective searches with the hard beam, without dropout, up to the step at which the reference
    falls off it (early update; to the end in validation), and scores what it found in one pass.
    """

    config = SoftBeamConfig
    averaged = ("alpha", "beam_overlap", "redone", "gold_kept")
    troubles = {"beam_overlap": COLLAPSED, "redone": SEARCHED_TWICE}

    def __init__(self, cfg: SoftBeamConfig, task: FairseqTask):
        super().__init__(cfg, task)
        self.register_buffer("wrong_costs", label_costs(cfg.wrong_label_costs, task.target_dictionary))
        tables = (None, None)
        if cfg.cost == "spans":
            tables = span_tables(task.target_dictionary, self.space)
        for name, table in zip(("inside", "begins"), tables):
            self.register_buffer(name, table)
        self.register_buffer("allowed", words_to_feed(self.space, len(task.target_dictionary)))
        self.space = replace(self.space, score_normalizer=cfg.score_normalizer)
        # Tagging has as many labels as words: no further steps, and lengths that are all the same.
        translates = self.space.eos is not None
        self.extra_steps = cfg.extra_steps if translates else 0
        self.length_penalty = cfg.length_penalty if translates else 0.0

    def check_options(self) -> None:
        """Refuse options that cannot work, before training.

        Raises:
            ValueError: naming the option and what to do.
        """
        cfg, size = self.cfg, self.cfg.soft_beam_size
        if size < 1:
            raise ValueError(f"--soft-beam-size {size} must be at least 1")
        if size > self.space.size and cfg.objective != "global":  # a soft beam grows in one step
            raise ValueError(
                f"--soft-beam-size {size} is more than the {self.space.size} symbols that can be predicted"
            )
        if not 0 <= cfg.ce_weight <= 1:
            raise ValueError(f"--ce-weight {cfg.ce_weight} must be between 0 and 1")
        if cfg.ce_history == "own" and cfg.ce_weight == 0:
            raise ValueError("--ce-history own needs cross entropy: --ce-weight 0.5, for example")
        self._refuse_unused_options()
        if cfg.soft_beam_candidates and cfg.soft_beam_candidates < size:
            raise ValueError(
                f"--soft-beam-candidates {cfg.soft_beam_candidates} must be 0 or at least --soft-beam-size "
                f"{size}"
            )
        if cfg.soft_beam_candidates and TOP_K_OPERATORS[cfg.operator].tail_bound is None:
            bounded = ", ".join(name for name, one in TOP_K_OPERATORS.items() if one.tail_bound is not None)
            raise ValueError(
                f"--soft-beam-candidates needs an operator that can bound what it leaves out, and "
                f"--operator {cfg.operator} cannot: use one of {bounded}, or --soft-beam-candidates 0"
            )
        check_score_normalizer(cfg)
        for name in ("length_penalty", "extra_steps"):
            if getattr(cfg, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(cfg, name)} must not be negative")

    def _refuse_unused_options(self) -> None:
        objective, defaults = str(self.cfg.objective), {one.name: one.default for one in fields(self.config)}
        for name in UNUSED_BY.get(objective, ()):
            if getattr(self.cfg, name) != defaults[name]:
                raise ValueError(f"{option_name(name)} has no meaning for --objective {objective}; remove it")
        if self.cfg.cost == "spans" and self.cfg.wrong_label_costs:
            raise ValueError("--wrong-label-costs has no meaning for --cost spans; remove it")

    def changing_schedules(self) -> dict[str, str]:
        """What changes in training, each with the option that makes it constant."""
        return {} if self.cfg.objective == "global" else super().changing_schedules()

    def forward(self, model: nn.Module, sample: dict, reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Compute the loss of a batch.

        Returns a tuple with three elements:
        1) the loss
        2) the sample size, which is used as the denominator for the gradient
        3) logging outputs to display while training
        """
        encoder_out, target, gold_scores, nll = self._teacher_forcing(model, sample)
        problem = self._problem(model, encoder_out, target)
        if self.cfg.objective == "global" or (self.cfg.objective == "soft_global" and not self.training):
            objective, means = self._global_loss(model, sample, encoder_out, problem)
        elif self.training:
            objective, means = self._soft_objective(problem, gold_scores)
        else:
            objective, means = self._hard_objective(problem, gold_scores), {}
        loss = objective
        if self.cfg.ce_weight:
            own = self.training and self.cfg.ce_history == "own"
            cross_entropy = self._own_history(problem) if own else nll
            loss = torch.lerp(objective, cross_entropy, self.cfg.ce_weight)
        return loss.sum() if reduce else loss, *self.report(sample, target, loss, nll.sum(), **means)

    @property
    def _learns_from_gold(self):
        """Whether the loss has a gradient through the reference's scores."""
        in_cross_entropy = self.cfg.ce_weight > 0 and self.cfg.ce_history == "gold"
        return in_cross_entropy or self.cfg.objective in NEED_REFERENCE

    def _teacher_forcing(self, model, sample):
        """Encoder output, target ``[B, T]``, s(y*) ``[B]``, the reference's score (section 2.5), and its
        negative log-likelihood ``[B]``, which without ``_learns_from_gold`` is for the log alone.
        """
        target = model.get_targets(sample, None)
        outside = target.eq(self.padding_idx)
        if self._learns_from_gold:
            with keep_encoder_output(model) as encoder_outputs:
                net_output = model(**sample["net_input"])
            encoder_out = encoder_outputs[0]
            log_probs = model.get_normalized_probs(net_output, log_probs=True)
            log_probs = log_probs.gather(2, target[..., None]).squeeze(2).masked_fill(outside, 0.0)
            log_z = None if self.space.is_normalised else net_output[0].float().logsumexp(2)
        else:
            encoder_out = encode(model, sample)
            with torch.no_grad():
                scored = step_decoder(model).score(encoder_out, target.masked_fill(outside, -1)[:, None])
            log_probs, log_z = (found[:, 0] for found in scored)
        scores = log_likelihood = log_probs.sum(1)
        if not self.space.is_normalised:
            beyond = self.space.beyond_log_probs(log_z, finished=None)
            scores = log_likelihood + beyond.masked_fill(outside, 0.0).sum(1)
        return encoder_out, target, scores, -log_likelihood

    def _problem(self, model, encoder_out, target):
        self.space = self.space.to(target.device)
        decoder = step_decoder(model)
        lengths = target.ne(self.padding_idx).sum(1) + self.extra_steps
        cost = path_cost = None
        if self.cfg.cost == "spans":
            path_cost = SpanCost(target, self.inside, self.begins)
        else:
            cost = HammingCost(target, self.padding_idx, self.wrong_costs)
        return Problem(decoder, decoder.init_state(encoder_out), target, lengths, cost, path_cost)

    def _global_loss(self, model, sample, encoder_out, problem):
        """``[B]`` minus the reference's log-probability among itself and the beam, and what is logged."""
        decoder, state, target, lengths, *_ = problem
        with without_dropout(model), torch.no_grad():
            if self.training:
                state = decoder.init_state(model.encoder.forward_torchscript(sample["net_input"]))
            size = self.cfg.soft_beam_size
            found = contrast(decoder, state, target, lengths, size, self.space, early=self.training)
        loss = global_loss(found, partial(decoder.score, encoder_out), self.space)
        return loss, {"gold_kept": found.kept.float().mean()}

    def _own_history(self, problem):
        """``[B]`` cross entropy of a decoder that is fed its own soft argmax."""
        decoder, state, target, *_ = problem
        log_probs = relaxed_decode(decoder, state, target, OwnWord("soft", OWN_TAU, self.allowed))
        nll = -log_probs.gather(2, target[..., None]).squeeze(2)
        return nll.masked_fill(target.eq(self.padding_idx), 0.0).sum(1)

    def _soft_objective(self, problem, gold_scores):
        """``[B]`` the objective on the soft beam, and what is logged."""
        decoder, state, target, lengths, cost, path_cost = problem
        options = SoftBeamOptions(
            self.cfg.soft_beam_size,
            self.alpha,
            self.cfg.operator,
            self.cfg.hard_forward,
            cost_weight=self._cost_weight,
            length_penalty=self.length_penalty,
            recompute=self._recompute(decoder, target),
        )
        search = soft_beam
        if self.cfg.soft_beam_candidates:
            search = partial(
                truncated_soft_beam,
                size=self.cfg.soft_beam_candidates,
                tolerance=self.cfg.soft_beam_tolerance,
            )
        found = search(decoder, state, lengths, self.space, options, cost, _overlap, path_cost=path_cost)
        overlap, seen = torch.stack(found.observed).sum(0)
        overlap = overlap / seen
        means = {"alpha": self.alpha, "beam_overlap": overlap}
        if self.cfg.soft_beam_candidates:
            means["redone"] = found.fell_back.float().mean()
        self.watch(means)
        if self.cfg.objective == "soft_global":
            return found.global_loss(gold_scores), means
        if self.cfg.objective == "hinge":
            return self._hinge(found.max_score(), gold_scores, target), means
        return found.risk() if self.cfg.objective == "risk" else found.direct_loss(), means

    def _recompute(self, decoder, target):
        """The share of the steps whose activations are computed again in the backward pass."""
        if decoder.rereads:
            return 1.0
        if self.cfg.soft_beam_candidates:  # no weights over all words; what is left is the decoder's own
            return 0.5
        weights = target.numel() * self.cfg.soft_beam_size**2 * self.space.size
        return float(weights > KEPT_WEIGHTS)

    def _hard_objective(self, problem, gold_scores):
        """``[B]`` its limit, on the hard beam."""
        decoder, state, target, lengths, cost, path_cost = problem
        size, weight = self.cfg.soft_beam_size, self._cost_weight
        found = hard_beam(decoder, state, lengths, size, self.space, cost, weight)
        costs = found.costs if path_cost is None else path_costs(path_cost, found.symbols)
        ranking = normalised(found.scores, self.space.lengths(found.symbols), self.length_penalty)
        best, index = ranking.max(1, keepdim=True)
        if self.cfg.objective == "hinge":
            return self._hinge(best[:, 0], gold_scores, target)
        if self.cfg.objective == "risk":
            return expected_risk(ranking, costs, 1.0)
        return costs.gather(1, index)[:, 0]

    @property
    def _cost_weight(self):
        return self.cfg.margin if self.cfg.objective == "hinge" else 0.0

    def _hinge(self, max_score, gold_scores, target):
        """``[B]``: ``max(0, s_max - s(y*))`` (section 2.5)."""
        words = target.ne(self.padding_idx).sum(1)
        return torch.relu(max_score - normalised(gold_scores, words, self.length_penalty))


def _overlap(selection):
    """Sum of the overlaps (0 distinct, 1 all the same) of a selection's running sentences, and how many."""
    overlaps = beam_overlap(selection.weights.flatten(2))
    return torch.stack([(overlaps * selection.running).sum(), selection.running.sum()])
