"""The criterion soft_beam: its hard limit, its gradient, its schedule after a resume, its errors."""

import dataclasses
import logging
from argparse import Namespace

import pytest
import torch
import toy_corpus
import toy_models
from fairseq.tasks.fairseq_task import FairseqTask

from diffdecode.categorical import TOP_K_OPERATORS
from diffdecode.sequence import (
    HammingCost,
    SearchSpace,
    SoftBeamOptions,
    annealed_alpha,
    hard_beam,
    soft_beam,
)
from fairseq_plugins.criterions.costs import label_costs
from fairseq_plugins.criterions.soft_beam import SoftBeamConfig, SoftBeamCriterion
from fairseq_plugins.decoders import step_decoder
from fairseq_plugins.progress import ScheduledCriterionTask
from fairseq_plugins.search import translation_space


class ToyTask(ScheduledCriterionTask, FairseqTask):
    """Tagging with the labels of a toy model."""

    def __init__(self, model, tagging=True):
        super().__init__(Namespace())
        self.words = model.decoder.dictionary
        tags = SearchSpace(torch.arange(4, len(self.words)))
        self.space = tags if tagging else translation_space(self.words)

    @property
    def search_space(self):
        return self.space

    @property
    def target_dictionary(self):
        return self.words


class StockTask(FairseqTask):
    """Tells criterions nothing."""

    def __init__(self, dictionary):
        super().__init__(Namespace())
        self.target_dictionary = dictionary

    target_dictionary = None


MODELS = {"tagger": toy_models.tagger, "lstm": toy_models.lstm, "transformer": toy_models.transformer}


@pytest.fixture(params=MODELS)
def model(request):
    return toy_models.spread(MODELS[request.param](), 1.0 if request.param == "transformer" else 2.0)


def criterion_for(model, **options):
    task = ToyTask(
        model, tagging=not hasattr(model.decoder, "attention") and not hasattr(model.decoder, "cfg")
    )
    return SoftBeamCriterion(SoftBeamConfig(sentence_avg=False, **options), task)


def sample_for(model):
    sources, lengths, targets, previous = toy_models.batch(
        model, padded=hasattr(model.encoder, "output_units")
    )
    pad, eos = model.decoder.dictionary.pad(), model.decoder.dictionary.eos()
    outside = torch.arange(targets.size(1)) >= lengths[:, None]
    if not hasattr(model.encoder, "output_units"):
        targets[:, -1] = eos
    targets = targets.masked_fill(outside, pad)
    net_input = {"src_tokens": sources, "src_lengths": lengths, "prev_output_tokens": previous}
    return {"net_input": net_input, "target": targets, "ntokens": int((~outside).sum())}


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("objective", ["direct", "risk", "hinge"])
@pytest.mark.parametrize("normalizer", [0.3, 1.0])
def test_training_loss_becomes_the_validation_loss(model, objective, length_penalty, normalizer):
    criterion = criterion_for(
        model,
        objective=objective,
        alpha=1e9,
        alpha_max=1e9,
        alpha_growth=1.0,
        extra_steps=1,
        length_penalty=length_penalty,
        score_normalizer=normalizer,
    )
    sample = sample_for(model)
    criterion.train()
    soft, size, logs = criterion(model, sample, reduce=False)
    criterion.eval()
    hard, _, hard_logs = criterion(model, sample, reduce=False)
    torch.testing.assert_close(soft, hard, atol=1e-3, rtol=0)
    assert size == sample["ntokens"]
    assert set(logs) - set(hard_logs) == {"alpha", "beam_overlap"}


def test_gradient_reaches_every_parameter_and_is_finite(model):
    criterion = criterion_for(model, alpha=1.0).train()
    loss, _, _ = criterion(model, sample_for(model))
    loss.backward()
    pad = model.decoder.dictionary.pad()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert sum((p.grad != 0).any().item() for p in model.parameters()) >= len(list(model.parameters())) - 1
    assert (model.decoder.embed_tokens.weight.grad[pad] == 0).all()


@pytest.mark.parametrize("candidates", [0, 4])
def test_a_tagger_that_does_not_see_labels_trains(candidates):
    model = toy_models.tagger(no_label_history=True)
    criterion = criterion_for(model, operator="softsort", soft_beam_candidates=candidates).train()
    criterion(model, sample_for(model))[0].backward()
    assert model.decoder.embed_tokens.weight.grad is None
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    assert model.encoder.embed_tokens.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("hard_forward", [False, True])
@pytest.mark.parametrize("operator", sorted(TOP_K_OPERATORS))
def test_every_operator_trains(model, operator, hard_forward):
    criterion = criterion_for(model, alpha=1.0, operator=operator, hard_forward=hard_forward).train()
    loss, _, logs = criterion(model, sample_for(model))
    loss.backward()
    assert torch.isfinite(loss) and 0 <= float(logs["beam_overlap"]) <= logs["nsentences"] * (1 + 1e-5)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert any((p.grad != 0).any() for p in model.parameters() if p.grad is not None)


def test_gradient_through_the_model_equals_finite_differences():
    """In float64; fairseq's own log-probabilities are float32, so that the test takes the logits."""
    model = toy_models.spread(toy_models.tagger(), 2.0).double()
    sample = sample_for(model)
    steps = step_decoder(model)

    def double_step(state, vectors):
        logits, state = steps.logits(state, vectors)
        return torch.log_softmax(logits, -1), state

    steps.step = double_step
    net_input = sample["net_input"]

    def loss():
        state = steps.init_state(model.encoder(net_input["src_tokens"], net_input["src_lengths"]))
        space, cost = SearchSpace(torch.arange(4, 10)), HammingCost(sample["target"], 1)
        return (
            soft_beam(steps, state, net_input["src_lengths"], space, SoftBeamOptions(3, 1.0), cost)
            .direct_loss()
            .sum()
        )

    parameters = list(model.parameters())
    found = torch.autograd.grad(loss(), parameters)
    direction = [torch.randn_like(parameter) for parameter in parameters]
    values = []
    for shift in (1e-6, -2e-6):
        for parameter, step in zip(parameters, direction):
            parameter.data.add_(step, alpha=shift)
        values.append(loss().item())
    slope = sum((gradient * step).sum().item() for gradient, step in zip(found, direction))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_batch_mates_change_nothing():
    model = toy_models.spread(toy_models.tagger(), 2.0)
    criterion, sample = criterion_for(model, alpha=1.0).train(), sample_for(model)
    together, _, _ = criterion(model, sample, reduce=False)
    for row, length in enumerate(sample["net_input"]["src_lengths"].tolist()):
        alone = {
            "net_input": {
                # the toy batch is padded on the left
                "src_tokens": sample["net_input"]["src_tokens"][row : row + 1, -length:],
                "src_lengths": torch.tensor([length]),
                "prev_output_tokens": sample["net_input"]["prev_output_tokens"][row : row + 1, :length],
            },
            "target": sample["target"][row : row + 1, :length],
            "ntokens": length,
        }
        loss, _, _ = criterion(model, alone)
        torch.testing.assert_close(loss, together[row], atol=1e-5, rtol=0)


def test_cross_entropy_weight_interpolates():
    model = toy_models.spread(toy_models.tagger(), 2.0)
    sample = sample_for(model)
    losses = {
        weight: criterion_for(model, alpha=1.0, ce_weight=weight).train()(model, sample)[0]
        for weight in (0, 0.25, 1)
    }
    torch.testing.assert_close(losses[0.25], 0.75 * losses[0] + 0.25 * losses[1])
    logs = criterion_for(model, alpha=1.0).train()(model, sample)[2]
    torch.testing.assert_close(losses[1], logs["nll_loss"])


@pytest.mark.parametrize("objective", ["direct", "hinge"])
def test_as_many_candidates_as_there_are_change_nothing(model, objective):
    sample, results = sample_for(model), []
    for candidates in (0, 100):
        criterion = criterion_for(
            model, objective=objective, alpha=1.0, soft_beam_candidates=candidates
        ).train()
        model.zero_grad()
        loss, _, logs = criterion(model, sample)
        loss.backward()
        results.append(
            (loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        )
        assert logs.get("redone", 0) == 0
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-4)
    assert (results[1][1] - results[0][1]).abs().max() <= 1e-3 * results[0][1].abs().max()


@pytest.mark.parametrize("normalizer", [0.0, 0.5, 1.0])
def test_the_reference_is_scored_as_the_hypotheses_are(model, normalizer):
    sample = sample_for(model)
    criterion = criterion_for(model, objective="hinge", margin=0.0, score_normalizer=normalizer).eval()
    loss, _, _ = criterion(model, sample, reduce=False)
    with torch.no_grad():
        logits = model(**sample["net_input"])[0]
        steps = step_decoder(model)
        state = steps.init_state(model.encoder.forward_torchscript(sample["net_input"]))
    inside = sample["target"] != 1
    gold = logits.gather(2, sample["target"][..., None])[..., 0] - normalizer * logits.logsumexp(2)
    space = dataclasses.replace(criterion.space, score_normalizer=normalizer)
    best = hard_beam(steps, state, inside.sum(1), 3, space).scores[:, 0]
    expected = torch.relu(best - (gold * inside).sum(1))
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=1e-4)


def test_cross_entropy_beside_scores_that_are_not_normalised_is_cross_entropy():
    model = toy_models.spread(toy_models.tagger(), 2.0)
    losses = [
        criterion_for(model, ce_weight=1.0, score_normalizer=normalizer).train()(model, sample_for(model))[0]
        for normalizer in (0.0, 1.0)
    ]
    assert torch.equal(*losses)


def test_wrong_label_costs():
    words = toy_models.dictionary(4)
    assert label_costs("w1=2,w3=0.5", words).tolist() == [1, 1, 1, 1, 1, 2, 1, 0.5]
    assert label_costs(None, words) is None
    assert label_costs("w1=2,w0>w1=3,w2>w3=0", words)[4:, 4:].tolist() == [
        [1, 3, 1, 1],
        [1, 2, 1, 1],
        [1, 2, 1, 0],
        [1, 2, 1, 1],
    ]
    words.add_symbol("a>b")
    assert label_costs("a>b=4,w0>a>b=5", words)[4:6, -1].tolist() == [5, 4]
    words.add_symbol("B=C")
    assert label_costs("B=C=3", words).tolist()[-1] == 3


def test_stopped_and_resumed_is_uninterrupted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    data = toy_corpus.write_corpus(tmp_path)
    options = [*toy_corpus.TAGGER, "--criterion", "soft_beam", "--alpha", "0.5", "--alpha-growth", "1.5"]
    toy_corpus.train(data, tmp_path / "whole", *options, "--max-epoch", "4")
    whole = toy_corpus.logged(caplog, "train")
    caplog.clear()
    toy_corpus.train(data, tmp_path / "parts", *options, "--max-epoch", "2")
    toy_corpus.train(data, tmp_path / "parts", *options, "--max-epoch", "4")
    parts = toy_corpus.logged(caplog, "train")
    for name in ("train_alpha", "train_loss", "train_gnorm", "train_num_updates", "train_beam_overlap"):
        assert [log[name] for log in parts] == [log[name] for log in whole]
    expected = [annealed_alpha(epoch, 0.5, 1.5, 100.0) for epoch in (1, 2, 3, 4)]
    assert [float(log["train_alpha"]) for log in parts] == pytest.approx(expected, abs=1e-4)
    states = [
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=True)["model"]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("normalizer", ["0", "1"])
def test_validation_is_comparable_over_epochs_and_warm_start_works(tmp_path, caplog, normalizer):
    """Validation loss is the share of wrong labels of the hard beam: at most 1, whatever alpha is. Criterion
    and task search with the same scores: the option is both's."""
    caplog.set_level(logging.INFO)
    data = toy_corpus.write_corpus(tmp_path)
    toy_corpus.train(
        data, tmp_path / "ce", *toy_corpus.TAGGER, "--criterion", "cross_entropy", "--max-epoch", "3"
    )
    caplog.clear()
    toy_corpus.train(
        data, tmp_path / "direct", *toy_corpus.TAGGER, "--criterion", "soft_beam", "--max-epoch", "2",
        "--finetune-from-model", tmp_path / "ce/checkpoint_best.pt", "--eval-beam", "3",
        "--alpha-growth", "100", "--alpha-max", "1e4", "--score-normalizer", normalizer,
    )  # fmt: skip
    cfg = torch.load(tmp_path / "direct/checkpoint_last.pt", weights_only=True)["cfg"]
    assert cfg["task"]["score_normalizer"] == cfg["criterion"]["score_normalizer"] == float(normalizer)
    valid = toy_corpus.logged(caplog, "valid")
    assert len(valid) == 2
    for log in valid:
        errors = 100 * float(log["valid_loss"])
        assert errors == pytest.approx(100 - float(log["valid_accuracy"]), abs=0.1)
        assert "valid_alpha" not in log


REFUSED = {
    "unknown label": ({"wrong_label_costs": "w1=2,O=2"}, "the label 'O' is not in the target dictionary"),
    "unknown gold label": ({"wrong_label_costs": "O>w1=2"}, "the label 'O' is not in the target dictionary"),
    "no cost": ({"wrong_label_costs": "w1"}, "'w1' is not of the form LABEL=COST"),
    "no number": ({"wrong_label_costs": "w1=x"}, "the cost 'x' of w1 is not a number"),
    "negative cost": ({"wrong_label_costs": "w1=-1"}, "must not be negative"),
    "wide beam": ({"soft_beam_size": 7}, "--soft-beam-size 7 is more than the 6 symbols"),
    "no beam": ({"soft_beam_size": 0}, "--soft-beam-size 0 must be at least 1"),
    "alpha": ({"alpha": 0.0}, "--alpha 0.0 must be positive"),
    "growth": ({"alpha_growth": -1.0}, "--alpha-growth -1.0 must be positive"),
    "mixing": ({"ce_weight": 1.5}, "--ce-weight 1.5 must be between 0 and 1"),
    "candidates": ({"soft_beam_candidates": 2}, "--soft-beam-candidates 2 must be 0 or at least"),
    "length": ({"length_penalty": -1.0}, "--length-penalty -1.0 must not be negative"),
    "normalizer": ({"score_normalizer": -1.0}, "--score-normalizer -1.0 must be a number of at least 0"),
    "steps": ({"extra_steps": -1}, "--extra-steps -1 must not be negative"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_work_are_refused(name):
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        criterion_for(toy_models.tagger(), **options)


def test_an_operator_without_a_tail_bound_searches_all_candidates(monkeypatch):
    unbounded = dataclasses.replace(TOP_K_OPERATORS["softsort"], tail_bound=None)
    monkeypatch.setitem(TOP_K_OPERATORS._members, "softsort", unbounded)
    criterion_for(toy_models.tagger(), operator="softsort")
    with pytest.raises(ValueError, match=r"--operator softsort cannot: use one of .*lapsum.*, peaked"):
        criterion_for(toy_models.tagger(), operator="softsort", soft_beam_candidates=4)


@pytest.fixture
def warnings_of_three_epochs(caplog):
    """What training for three epochs, of which the second has no validation, warns of."""
    model = toy_models.spread(toy_models.tagger(), 2.0)
    sample = sample_for(model)

    def run(**options):
        caplog.clear()
        criterion = criterion_for(model, alpha_growth=1.0, **options)
        for epoch in (1, 2, 3):
            criterion.train()
            for update in range(2):
                criterion.set_progress(epoch, 2 * epoch + update)
                criterion(model, sample)
            if epoch != 2:
                for _ in range(2):
                    criterion.eval()
                    criterion(model, sample)
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    return run


def test_a_collapsed_beam_is_a_warning_once_an_epoch(warnings_of_three_epochs):
    """At a very small alpha all elements are the same mixture; at a large one they are distinct."""
    found = warnings_of_three_epochs(alpha=1e-6)
    assert [f"in epoch {epoch} " in message for epoch, message in zip((1, 2, 3), found, strict=True)] == [
        True
    ] * 3
    assert all("use a larger --alpha" in message for message in found)
    assert warnings_of_three_epochs(alpha=1e6, alpha_max=1e6) == []
    assert warnings_of_three_epochs(alpha=1e-6, soft_beam_size=1) == []


def test_a_search_done_twice_is_a_warning_once_an_epoch(warnings_of_three_epochs):
    few = {"soft_beam_candidates": 3, "alpha": 0.3}
    found = [message for message in warnings_of_three_epochs(**few) if "searched twice" in message]
    for epoch, message in zip((1, 2, 3), found, strict=True):
        assert f"in epoch {epoch}, 100% of the sentences" in message and "--soft-beam-tolerance 1" in message
    assert not any("twice" in message for message in warnings_of_three_epochs(**few, soft_beam_tolerance=1.0))


def test_annealing_needs_a_task_that_tells_the_epoch():
    task = StockTask(toy_models.dictionary())
    with pytest.raises(ValueError, match="StockTask does not tell criterions the epoch"):
        SoftBeamCriterion(SoftBeamConfig(sentence_avg=False), task)
    SoftBeamCriterion(SoftBeamConfig(sentence_avg=False, alpha_growth=1.0), task)


def test_models_are_refused_before_training():
    criterion = criterion_for(toy_models.tagger())
    with pytest.raises(ValueError, match="adaptive softmax"):
        criterion.check_model(toy_models.transformer(adaptive_softmax_cutoff="8,16"))
    with pytest.raises(TypeError, match="no step decoder for Linear"):
        criterion.check_model(Namespace(decoder=torch.nn.Linear(1, 1)))


@pytest.mark.parametrize("arch", ["tagger", "lstm"])
def test_unsupported_models_end_the_run_before_the_first_epoch(tmp_path, caplog, arch):
    caplog.set_level(logging.INFO)
    data = toy_corpus.write_corpus(tmp_path, sentences=10)
    options = ["--criterion", "soft_beam", "--alpha-growth", "1", "--max-epoch", "1"]
    if arch == "tagger":
        options += ["--task", "sequence_tagging", "--arch", "lightconv_iwslt_de_en"]
        error, message = TypeError, "no step decoder for LightConvDecoder"
    else:
        options += [*toy_corpus.SMALL_LSTM, "--alpha-growth", "2"]
        error, message = ValueError, "TranslationTask does not tell criterions the epoch"
    with pytest.raises(error, match=message):
        toy_corpus.train(data, tmp_path / "run", *options)
    assert not toy_corpus.logged(caplog, "train")
