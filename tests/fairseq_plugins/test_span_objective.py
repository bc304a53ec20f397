"""soft_beam with --cost spans: its hard limit, spans as fairseq's scorer counts them, what is refused."""

import pytest
import torch
import toy_corpus
import toy_models
from fairseq.data import Dictionary
from test_soft_beam_criterion import ToyTask, sample_for

from fairseq_plugins.criterions.costs import span_tables
from fairseq_plugins.criterions.soft_beam import SoftBeamConfig, SoftBeamCriterion
from fairseq_plugins.scoring.span_f1 import spans
from fairseq_plugins.search import translation_space
from fairseq_plugins.tasks.tagging.generator import decode

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-ORG"]


def model_and_task(names=NAMES):
    """A toy tagger whose labels have names."""
    model = toy_models.spread(toy_models.tagger(), 2.0)
    labels = Dictionary()
    for name in names:
        labels.add_symbol(name)
    model.decoder.dictionary = labels
    return model, ToyTask(model)


def criterion_for(task, **options):
    return SoftBeamCriterion(SoftBeamConfig(sentence_avg=False, cost="spans", **options), task)


@pytest.mark.parametrize("objective", ["direct", "risk"])
def test_training_loss_becomes_the_validation_loss(objective):
    model, task = model_and_task()
    peaked = {"alpha": 1e9, "alpha_max": 1e9, "alpha_growth": 1.0, "operator": "peaked"}
    criterion = criterion_for(task, objective=objective, **peaked)
    soft, _, _ = criterion.train()(model, sample_for(model), reduce=False)
    hard, _, _ = criterion.eval()(model, sample_for(model), reduce=False)
    torch.testing.assert_close(soft, hard, atol=1e-3, rtol=0)


def test_validation_counts_the_wrong_spans_of_the_decoded_labels():
    model, task = model_and_task()
    sample = sample_for(model)
    loss, _, _ = criterion_for(task).eval()(model, sample, reduce=False)
    best = decode(model, sample["net_input"], task.search_space, 3).symbols[:, 0].tolist()
    wrong = []
    for gold, found in zip(sample["target"].tolist(), best):
        length = sum(label >= 4 for label in gold)
        gold, found = ([task.words[i] for i in ids[:length]] for ids in (gold, found))
        wrong.append(len(spans(gold) ^ spans(found)))
    assert loss.tolist() == wrong and any(wrong)


def test_gradient_reaches_every_parameter_and_is_finite():
    model, task = model_and_task()
    for candidates in (0, 4):
        options = {"alpha": 1.0, "soft_beam_candidates": candidates, "soft_beam_tolerance": 1.0}
        loss, _, _ = criterion_for(task, **options).train()(model, sample_for(model))
        model.zero_grad()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
        assert all((p.grad != 0).any() for p in model.decoder.parameters())


def test_tables_follow_the_names():
    _, task = model_and_task(["B", "O", "I-X", "B-X", "I", "B-Y"])
    inside, begins = span_tables(task.words, task.search_space)
    kinds = [row.nonzero()[:, 0].tolist() for row in inside]
    assert kinds == [[]] * 4 + [[0], [], [1], [1], [0], [2]]
    assert begins.nonzero()[:, 0].tolist() == [4, 7, 9]


def test_what_has_no_spans_is_refused():
    _, task = model_and_task()
    for objective in ("hinge", "global"):
        with pytest.raises(ValueError, match=f"--cost has no meaning for --objective {objective}; remove it"):
            criterion_for(task, objective=objective)
    with pytest.raises(ValueError, match="--wrong-label-costs has no meaning for --cost spans; remove it"):
        criterion_for(task, wrong_label_costs="O=2")
    _, other = model_and_task(["NN", "VB", "O", "DT", "IN", "JJ"])
    with pytest.raises(ValueError, match=r"these are NN, VB, O, DT, IN \.\.\.: use --cost labels"):
        criterion_for(other)
    task.space = translation_space(task.words)
    with pytest.raises(ValueError, match="--cost spans needs --task sequence_tagging"):
        criterion_for(task)


def test_trains_by_the_command_line(tmp_path, caplog):
    """Few wrong spans in the end, counted in validation for each word."""
    caplog.set_level("INFO")
    data = toy_corpus.write_corpus(tmp_path, 12)
    options = ["--criterion", "soft_beam", "--cost", "spans", "--ce-weight", "0.3", "--max-epoch", "2"]
    toy_corpus.train(data, tmp_path / "spans", *toy_corpus.TAGGER, *options, "--no-save")
    losses = [float(log["valid_loss"]) for log in toy_corpus.logged(caplog, "valid")]
    assert len(losses) == 2 and losses[-1] < losses[0]
