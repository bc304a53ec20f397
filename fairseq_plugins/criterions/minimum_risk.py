"""Minimum risk training (Shen et al. 2016): expected risk over candidates that the model itself proposes."""

# fairseq turns the fields of a config into command-line options and understands only typing.Optional.
# ruff: noqa: UP045

import zlib
from argparse import Namespace
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.data import encoders
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from omegaconf import II
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from diffdecode.sequence import expected_risk, first_occurrences, hard_beam, sample_sequences
from fairseq_plugins.criterions.risks import OF_TAGS, OF_TEXTS, RISKS
from fairseq_plugins.criterions.stepwise import StepwiseConfig, StepwiseCriterion
from fairseq_plugins.decoders import keep_encoder_output, step_decoder, without_dropout
from fairseq_plugins.options import option

# What stands for an unknown word, so that it is never right (fairseq's translation task does the same).
UNKNOWN = {True: "UNKNOWNTOKENINREF", False: "UNKNOWNTOKENINHYP"}


@dataclass
class MinimumRiskConfig(StepwiseConfig):
    risk: ChoiceEnum(list(RISKS)) = option(
        "gleu",
        "1 - the sentence's `gleu` (the smaller of n-gram precision and recall), `bleu` or `chrf` "
        "(sacrebleu's); `edit`: distance / words; of tags `edit`, `hamming` or `span` (1 - F1 of BIO spans)",
        "Shen et al. 2016, 3.1; Wu et al. 2016, 5.2",
    )
    candidates: ChoiceEnum(["sample", "beam"]) = option(
        "sample",
        "`sample`: drawn from the model; `beam`: the n best of a hard beam search; both without dropout",
        "3.3",
    )
    num_candidates: int = option(
        4,
        "samples, or size of the beam; equal ones count once (`distinct` in the log)",
        "3.3; ours (paper: 100)",
    )
    include_reference: bool = option(
        False, "the reference is a candidate, too, of risk 0", "3.3, Algorithm 1"
    )
    sharpness: float = option(
        0.1, "a in Q(y), proportional to p(y)^a, the weights of the candidates", "3.3; ours (paper: 0.005)"
    )
    ce_weight: float = option(0.5, "w in (1 - w) risk / sharpness + w cross entropy", "ours (paper: 0)")
    candidate_length: float = option(
        2.0, "translation: longest candidate, in lengths of the reference (EOS counts)", "ours"
    )
    risk_remove_bpe: Optional[str] = option(
        None,
        "how units become words before the risk is taken: `sentencepiece`, `subword_nmt`, ... as "
        "`--eval-bleu-remove-bpe`; none: each unit is a word",
        "fairseq",
    )
    risk_detok: str = option(
        "space", "and how words become text: `space` leaves them, `moses` detokenises", "fairseq"
    )
    seed: int = II("common.seed")


class Reference(NamedTuple):
    """What one teacher-forced call of the model says about the references of B sentences.

    Attributes:
        encoder_out: what the encoder returned.
        target: ``[B, T]``.
        scores: ``[B]`` log p(reference).
    """

    encoder_out: Any
    target: Tensor
    scores: Tensor


class Candidates(NamedTuple):
    """Up to n candidates of each of B sentences, the reference not among them.

    Attributes:
        symbols: ``[B, n, T]`` ids, PAD after the end.
        there: ``[B, n]`` boolean: a candidate, and not one of those before.
        length: ``[B]`` mean number of symbols, EOS included, of all that the model proposed, equal ones too.
    """

    symbols: Tensor
    there: Tensor
    length: Tensor


@register_criterion("minimum_risk", dataclass=MinimumRiskConfig)
class MinimumRiskCriterion(StepwiseCriterion):
    """Expected risk of the model's own candidates in training, risk of the best of its beam in validation.

    The risk is divided by the sharpness, so that its gradient keeps its size at any sharpness. Samples are a
    function of seed, epoch and sentence: batches and processes do not matter to them, nor does a resumed run.
    """

    config = MinimumRiskConfig
    averaged = ("risk", "distinct")

    def __init__(self, cfg: MinimumRiskConfig, task: FairseqTask):
        super().__init__(cfg, task)
        self.dictionary = task.target_dictionary
        self.risk = RISKS[str(cfg.risk)]
        language = getattr(getattr(task, "cfg", None), "target_lang", None) or "en"
        detokeniser = Namespace(tokenizer=cfg.risk_detok, source_lang=language, target_lang=language)
        self.detokenise = encoders.build_tokenizer(detokeniser).decode

    @property
    def translates(self) -> bool:
        """Whether hypotheses end by themselves; tags are as many as words."""
        return self.space.eos is not None

    def check_options(self) -> None:
        """Refuse options that cannot work, before training.

        Raises:
            ValueError: naming the option and what to do.
        """
        cfg, allowed = self.cfg, OF_TEXTS if self.translates else OF_TAGS
        if str(cfg.risk) not in allowed:
            raise ValueError(
                f"--risk {cfg.risk} is for {'tagging' if self.translates else 'translation'}: use one of "
                f"{', '.join(allowed)}"
            )
        if cfg.num_candidates < 1:
            raise ValueError(f"--num-candidates {cfg.num_candidates} must be at least 1")
        if cfg.num_candidates == 1 and not cfg.include_reference:
            raise ValueError(
                "--num-candidates 1 leaves nothing to choose between: take more, or --include-reference"
            )
        if not cfg.sharpness > 0:
            raise ValueError(f"--sharpness {cfg.sharpness} must be positive")
        if not 0 <= cfg.ce_weight <= 1:
            raise ValueError(f"--ce-weight {cfg.ce_weight} must be between 0 and 1")
        if not cfg.candidate_length >= 1:
            raise ValueError(f"--candidate-length {cfg.candidate_length} must be at least 1")
        if not self.translates and (cfg.risk_remove_bpe or cfg.risk_detok != "space"):
            raise ValueError("--risk-remove-bpe and --risk-detok have no meaning for tags; remove them")

    def changing_schedules(self) -> dict[str, str]:
        """Samples change with the epoch."""
        return {"the samples": "--candidates beam"} if self.cfg.candidates == "sample" else {}

    def forward(self, model: nn.Module, sample: dict, reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Compute the loss of a batch.

        Returns a tuple with three elements:
        1) the loss
        2) the sample size, which is used as the denominator for the gradient
        3) logging outputs to display while training
        """
        reference = self._teacher_forcing(model, sample)
        candidates = self._candidates(model, sample, reference.target)
        risks = self._risks(candidates, reference.target)
        if self.training:
            scores = self._rescored(model, reference.encoder_out, candidates)
            if self.cfg.include_reference:
                scores = torch.cat([scores, reference.scores[:, None]], 1)
                risks = torch.cat([risks, torch.zeros_like(risks[:, :1])], 1)
            risk = expected_risk(scores, risks, self.cfg.sharpness)
        else:
            risk = risks[:, 0]
        nll = -reference.scores
        loss = torch.lerp(risk / self.cfg.sharpness, nll, self.cfg.ce_weight)
        means = {"risk": risk.detach().mean(), "distinct": candidates.there.sum(1).float().mean()}
        size, logs = self.report(sample, reference.target, loss, nll.sum(), **means)
        logs["candidate_words"] = candidates.length.sum()
        logs["reference_words"] = reference.target.ne(self.padding_idx).sum()
        return loss.sum() if reduce else loss, size, logs

    def _teacher_forcing(self, model, sample):
        """The references under the model.

        It is called as a whole even where the loss needs no reference: only then does
        DistributedDataParallel send the gradients of the candidates.
        """
        with keep_encoder_output(model) as encoder_outputs:
            net_output = model(**sample["net_input"])
        target = model.get_targets(sample, net_output)
        scores = self._log_likelihood(model, net_output, target)
        if not self.cfg.include_reference and self.cfg.ce_weight == 0:
            scores = scores.detach()  # so that nothing over the vocabulary is kept for the backward pass
        return Reference(encoder_outputs[0], target, scores)

    def _log_likelihood(self, model, net_output, symbols):
        """log p ``[R]`` of ``symbols [R, T]``, which PAD continues."""
        log_probs = model.get_normalized_probs(net_output, log_probs=True)
        scores = log_probs.gather(2, symbols[..., None]).squeeze(2)
        return scores.masked_fill(symbols.eq(self.padding_idx), 0.0).sum(1)

    @torch.no_grad()
    def _candidates(self, model, sample, target):
        """In training those that the options ask for; in validation the best of the hard beam alone."""
        size, lengths = self.cfg.num_candidates, target.ne(self.padding_idx).sum(1)
        if self.translates:
            lengths = (lengths * self.cfg.candidate_length).ceil().long()
        self.space = self.space.to(target.device)
        with without_dropout(model):
            steps = step_decoder(model)
            state = steps.init_state(model.encoder.forward_torchscript(sample["net_input"]))
            if self.training and self.cfg.candidates == "sample":
                noise = sentence_noise(self.cfg.seed, self.epoch, sample["id"], lengths, size)
                found = sample_sequences(steps, state, lengths, noise, self.space)
                there = torch.ones_like(found[:, :, 0], dtype=torch.bool)
            else:
                beam = hard_beam(steps, state, lengths, size, self.space)
                found, there = beam.symbols, ~beam.scores.isneginf()
        if not self.training:
            found, there = found[:, :1], there[:, :1]
        found = found.masked_fill(found < 0, self.padding_idx)
        length = (found.ne(self.padding_idx).sum(2) * there).sum(1) / there.sum(1)
        there = there & first_occurrences(found)
        if self.cfg.include_reference and self.training:
            there = there & ~_same(found, target, self.padding_idx)
        return Candidates(found, there, length)

    def _risks(self, candidates, target):
        """``[B, n]``, 0 where there is no candidate."""
        references = [self._text(row, is_reference=True) for row in target.tolist()]
        risks = torch.zeros(candidates.there.shape)
        symbols = candidates.symbols.cpu()
        for b, k in candidates.there.nonzero().tolist():
            risks[b, k] = self.risk(self._text(symbols[b, k].tolist()), references[b])
        return risks.to(target.device)

    def _text(self, ids, is_reference=False):
        """What a reader would see of ``ids`` (a list), in which PAD stands for nothing."""
        words = torch.tensor([symbol for symbol in ids if symbol != self.padding_idx])
        text = self.dictionary.string(words, self.cfg.risk_remove_bpe, unk_string=UNKNOWN[is_reference])
        return self.detokenise(text)

    def _rescored(self, model, encoder_out, candidates):
        """log p ``[B, n]`` of all candidates in one teacher-forced pass; ``-inf`` where there is none."""
        symbols, there = candidates.symbols, candidates.there
        scored = symbols.ne(self.padding_idx) & there[..., None]
        log_probs, _ = step_decoder(model).score(encoder_out, symbols.masked_fill(~scored, -1))
        return log_probs.sum(2).masked_fill(~there, -torch.inf)

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict]) -> None:
        """Aggregate logging outputs from data parallel training."""
        super().reduce_metrics(logging_outputs)
        found = sum(log.get("candidate_words", 0) for log in logging_outputs)
        wanted = sum(log.get("reference_words", 0) for log in logging_outputs)
        metrics.log_scalar("length_ratio", found / wanted, weight=wanted, round=4)


def sentence_noise(seed: int, epoch: int, ids: Tensor, lengths: Tensor, samples: int) -> Tensor:
    """Uniform numbers ``[B, samples, T]`` that depend on seed, epoch and sentence alone; 0 beyond a length.

    Args:
        seed: of the run.
        epoch: of the training.
        ids: ``[B]`` numbers of the sentences in the data.
        lengths: ``[B]``; T is the largest.
        samples: of each sentence.
    """
    generator = torch.Generator()

    def of_one(sentence, length):
        generator.manual_seed(zlib.crc32(f"{seed} {epoch} {sentence}".encode()))
        return torch.rand(length, samples, generator=generator)

    noise = [of_one(*pair) for pair in zip(ids.tolist(), lengths.tolist(), strict=True)]
    return pad_sequence(noise, batch_first=True).transpose(1, 2).to(lengths.device)


def _same(found, target, padding):
    """``[B, n]`` whether ``found [B, n, T]`` are ``target [B, T']``, both continued by padding."""
    longest = max(found.size(2), target.size(1))
    found = pad(found, (0, longest - found.size(2)), value=padding)
    return (found == pad(target, (0, longest - target.size(1)), value=padding)[:, None]).all(2)
