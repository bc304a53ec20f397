"""The criterion differentiable_scheduled_sampling against cross entropy, greedy rollouts and itself."""

import logging
from argparse import Namespace

import pytest
import torch
import toy_corpus
import toy_models
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.tasks.fairseq_task import FairseqTask

from diffdecode.sequence import gold_probability
from fairseq_plugins.criterions.scheduled_sampling import (
    CHOICES,
    ScheduledSamplingConfig,
    ScheduledSamplingCriterion,
)
from fairseq_plugins.decoders import step_decoder
from fairseq_plugins.progress import ScheduledCriterionTask

MODELS = {
    "tagger": toy_models.tagger,
    "lstm": toy_models.lstm,
    "lstm shared": lambda: toy_models.lstm(share_all_embeddings=True),
    "transformer": toy_models.transformer,
}


class ToyTask(ScheduledCriterionTask, FairseqTask):
    """The target dictionary of a toy model, and nothing else."""

    def __init__(self, model):
        super().__init__(Namespace())
        self.words = model.decoder.dictionary

    @property
    def target_dictionary(self):
        return self.words


@pytest.fixture(params=MODELS)
def model(request):
    return toy_models.spread(MODELS[request.param](), 1.0 if request.param == "transformer" else 2.0)


def criterion_for(model, **options):
    options = {"gold_schedule": "never", "sentence_avg": False, **options}
    return ScheduledSamplingCriterion(ScheduledSamplingConfig(**options), ToyTask(model)).train()


def sample_for(model):
    sources, lengths, targets, previous = toy_models.batch(model)
    outside = torch.arange(targets.size(1)) >= lengths[:, None]
    targets = targets.masked_fill(outside, model.decoder.dictionary.pad())
    net_input = {"src_tokens": sources, "src_lengths": lengths, "prev_output_tokens": previous}
    return {"net_input": net_input, "target": targets, "ntokens": int((~outside).sum())}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rollout", ["stepwise", "two_pass"])
def test_only_gold_words_is_cross_entropy(model, smoothing, rollout):
    sample, task = sample_for(model), ToyTask(model)
    theirs = LabelSmoothedCrossEntropyCriterion(task, False, smoothing) if smoothing else None
    theirs = theirs or CrossEntropyCriterion(task, False)
    expected, size, _ = theirs(model, sample)
    ours = criterion_for(model, gold_schedule="always", label_smoothing=smoothing, rollout=rollout)
    loss, our_size, logs = ours(model, sample)
    assert torch.equal(loss, expected) and size == our_size
    assert logs["gold_prob"] == sample["target"].size(0)
    assert torch.equal(criterion_for(model, label_smoothing=smoothing).eval()(model, sample)[0], expected)


def greedy_words(model, sample):
    """What the model writes, fed with its own best words (specials but EOS and UNK are never chosen)."""
    words, steps = model.decoder.dictionary, step_decoder(model)
    with torch.no_grad():
        state = steps.init_state(model.encoder.forward_torchscript(sample["net_input"]))
    vectors, found = steps.embedding[steps.start].expand(sample["target"].size(0), -1), []
    for _ in range(sample["target"].size(1)):
        with torch.no_grad():
            log_probs, state = steps.step(state, vectors)
        log_probs[:, [words.bos(), words.pad()]] = -torch.inf
        found.append(log_probs.argmax(1))
        vectors = steps.embedding[found[-1]].detach()
    return torch.stack(found, 1)


@pytest.mark.parametrize("estimator", ["argmax", "soft", "argmax_st"])
def test_hard_and_peaked_rollouts_are_teacher_forcing_of_greedy_words(model, estimator):
    sample = sample_for(model)
    written = greedy_words(model, sample)
    previous = torch.cat([sample["net_input"]["prev_output_tokens"][:, :1], written[:, :-1]], 1)
    log_probs = model.get_normalized_probs(
        model(**{**sample["net_input"], "prev_output_tokens": previous}), log_probs=True
    )
    inside = sample["target"].ne(1)
    expected = -log_probs.gather(2, sample["target"][..., None])[..., 0][inside].sum()
    loss, _, _ = criterion_for(model, estimator=estimator, alpha=1e7, alpha_max=1e7)(model, sample)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rollout", ["stepwise", "two_pass"])
@pytest.mark.parametrize("estimator", CHOICES)
def test_every_estimator_trains(model, estimator, rollout):
    torch.manual_seed(0)
    criterion = criterion_for(model, estimator=estimator, rollout=rollout)
    loss, _, logs = criterion(model, sample_for(model))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert (model.decoder.embed_tokens.weight.grad[model.decoder.dictionary.pad()] == 0).all() or (
        model.decoder.embed_tokens is model.encoder.embed_tokens
    )
    assert ("alpha" in logs) == (estimator in ("soft", "gumbel_soft"))


@pytest.mark.parametrize("estimator", ["soft", "argmax", "argmax_st"])
def test_fused_step_is_the_same_loss_and_gradient(model, estimator, monkeypatch):
    monkeypatch.setattr("fairseq_plugins.criterions.scheduled_sampling.FUSED_FROM_VOCABULARY", 1)
    sample = sample_for(model)
    results = []
    for fused in ("cpu", "never"):
        tau = {"tau": 0.25} if estimator == "argmax_st" else {}
        criterion = criterion_for(model, estimator=estimator, alpha=4.0, fused=fused, **tau)
        model.zero_grad()
        loss, _, logs = criterion(model, sample)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((loss, gradient))
        assert ("redone" in logs) == (fused == "cpu")
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-4)
    scale = results[1][1].abs().max()
    assert (results[0][1] - results[1][1]).abs().max() <= 1e-5 * scale


@pytest.mark.parametrize("fused, on", [("cpu", {"cpu"}), ("always", {"cpu", "cuda"}), ("never", set())])
def test_the_step_is_fused_where_that_is_wanted(model, fused, on, monkeypatch):
    monkeypatch.setattr("fairseq_plugins.criterions.scheduled_sampling.FUSED_FROM_VOCABULARY", 1)
    criterion = criterion_for(model, alpha=4.0, fused=fused)
    assert {name for name in ("cpu", "cuda") if criterion._is_fused(torch.device(name))} == on


def test_schedules_count_epochs_or_updates():
    model = toy_models.tagger()
    by_epoch = criterion_for(model, gold_schedule="inverse_sigmoid", gold_decay=3.0)
    by_epoch.set_progress(4, 1000)
    assert by_epoch.p_gold == gold_probability("inverse_sigmoid", 4, 3.0)
    by_update = criterion_for(model, gold_schedule="linear", gold_decay=100.0, gold_unit="update")
    by_update.set_progress(4, 50)
    assert by_update.p_gold == 0.5
    assert by_update.alpha == pytest.approx(1.1**3)


def test_stopped_and_resumed_is_uninterrupted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    data = toy_corpus.write_corpus(tmp_path)
    options = [*toy_corpus.TAGGER, "--criterion", "differentiable_scheduled_sampling"]
    options += ["--estimator", "gumbel_soft", "--gold-schedule", "linear", "--gold-decay", "4"]
    toy_corpus.train(data, tmp_path / "whole", *options, "--max-epoch", "4")
    whole = toy_corpus.logged(caplog, "train")
    caplog.clear()
    toy_corpus.train(data, tmp_path / "parts", *options, "--max-epoch", "2")
    toy_corpus.train(data, tmp_path / "parts", *options, "--max-epoch", "4")
    parts = toy_corpus.logged(caplog, "train")
    assert [float(log["train_gold_prob"]) for log in parts] == [1.0, 0.75, 0.5, 0.25]
    for name in ("train_loss", "train_alpha", "train_gnorm"):
        assert [log[name] for log in parts] == [log[name] for log in whole]


REFUSED = {
    "tau": ({"estimator": "soft", "tau": 1.0}, "--tau is not used by --estimator soft"),
    "negative tau": ({"estimator": "reinmax", "tau": -1.0}, "--tau -1.0 must be positive"),
    "decay": ({"gold_decay": 0.0}, "--gold-decay 0.0 must be positive"),
    "alpha": ({"alpha": 0.0}, "--alpha 0.0 must be positive"),
    "smoothing": ({"label_smoothing": 1.0}, "--label-smoothing 1.0 must be"),
    "candidates": ({"fused_candidates": 0}, "--fused-candidates 0 must be at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_work_are_refused(name):
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        criterion_for(toy_models.tagger(), **options)


def test_stock_tasks_take_constant_schedules_only():
    class Stock(FairseqTask):
        target_dictionary = toy_models.dictionary()

    task = Stock(Namespace())
    constant = {"alpha_growth": 1.0, "gold_schedule": "never", "sentence_avg": False}
    ScheduledSamplingCriterion(ScheduledSamplingConfig(**constant), task)
    with pytest.raises(ValueError, match=r"Stock does not tell .* alpha .*--alpha-growth 1"):
        ScheduledSamplingCriterion(ScheduledSamplingConfig(**{**constant, "alpha_growth": 1.1}), task)
    with pytest.raises(ValueError, match=r"Stock does not tell .* the gold probability"):
        ScheduledSamplingCriterion(ScheduledSamplingConfig(**{**constant, "gold_schedule": "linear"}), task)
