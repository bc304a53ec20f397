"""Experiments with spaCy: from a generated language to tables, and again from what is finished."""

import json

import numpy as np
import pytest
import spacy

from examples._shared.toy_corpus import corpus
from examples.papers import _spacy, sentiment, syntax_semantics, tree_sentiment
from spacy_components.training.corpus import make_example

EXPERIMENTS = [module.EXPERIMENT for module in (syntax_semantics, sentiment, tree_sentiment)]


def never(*_, **__):
    raise AssertionError("a finished training was run again")


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_what_is_declared_is_there(experiment):
    names = {system.name for system in experiment.systems}
    assert len(names) == len(experiment.systems) and set(experiment.quick_systems) <= names
    assert {name for pair in experiment.pairs for name in pair} <= names
    headings = set(experiment.scores.values())
    assert set(experiment.paper) <= names and all(set(row) <= headings for row in experiment.paper.values())


def test_syntax_and_semantics(tmp_path, monkeypatch, capsys):
    command = ["--quick", "--out", str(tmp_path), "--steps", "3"]
    syntax_semantics.main(command)
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["rows"]) == {"no syntax", "pipeline", "structured attention", "structured_st"}
    assert "UAS" not in found["rows"]["no syntax"] and "UAS" in found["rows"]["pipeline"]
    assert "| no syntax" in (tmp_path / "table.md").read_text()
    changed = " ".join((tmp_path / "syntax.md").read_text().split())
    for system in ("structured attention", "structured_st"):
        assert changed.count(f"| {system} | SAME") == 2 and changed.count(f"| {system} | DIFF") == 2
        assert (tmp_path / f"changed_trees-{system.replace(' ', '_')}.html").exists()
    assert "structured_st - pipeline: " in capsys.readouterr().out

    monkeypatch.setattr(_spacy, "train_from_scratch", never)
    syntax_semantics.EXPERIMENT.main_program(command)
    assert json.loads((tmp_path / "results.json").read_text()) == found


def test_sentiment_begins_with_one_parser_of_a_seed(tmp_path, monkeypatch):
    command = ["--quick", "--out", str(tmp_path), "--steps", "3", "--start-steps", "2"]
    starts = []
    train = _spacy.train_from_scratch

    def seen(config, folder, settings, start=None, wanted="model-best"):
        starts.append((settings.get("nlp.pipeline", "both"), start or {}))
        return train(config, folder, settings, start, wanted)

    monkeypatch.setattr(_spacy, "train_from_scratch", seen)
    sentiment.main([*command, "--systems", "BiLSTM", "spigot", "--grad-factors", "0.2", "0.3"])
    (parser,) = (tmp_path / "seed0").glob("start-*")
    assert starts == [
        (["textcat"], {}),
        (["spigot_sdp"], {}),
        ("both", {"spigot_sdp": parser / "model-last"}),
    ]
    given = tmp_path / "given.tsv"
    docs = corpus(spacy.blank("en").vocab, 12, 9, trees=False, classes=True)
    lines = [f"{max(doc.cats, key=doc.cats.get)}\t{doc.text.strip()}\n" for doc in docs]
    given.write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr(_spacy, "train_from_scratch", never)
    sentiment.main([*command, "--systems", "BiLSTM", "spigot", "--grad-factors", "0.2", "--test", str(given)])
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["measures"] == {"accuracy": 1, "DM LF": 1, "test: accuracy": 1}
    assert set(record["systems"]["BiLSTM"]) == {"accuracy", "test: accuracy"}


def test_trees_and_sentiment(tmp_path):
    """As many reviews without trees, in fewer steps."""
    command = ["--quick", "--out", str(tmp_path), "--steps", "5", "--start-steps", "2"]
    tree_sentiment.main([*command, "--systems", "BiLSTM", "structured_st"])
    record = json.loads((tmp_path / "record.json").read_text())
    assert set(record["systems"]["BiLSTM"]) == {"accuracy"}
    assert set(record["systems"]["structured_st"]) == {"accuracy", "UAS", "LAS"}
    steps = {}
    for folder in (tmp_path / "seed0").iterdir():
        steps[folder.name.partition("-")[0]] = spacy.util.load_config(folder / "model-last/config.cfg")[
            "training"
        ]
    assert {name: training["max_steps"] for name, training in steps.items()} == {
        "start": 2,
        "BiLSTM": 4,
        "structured_st": 5,
    }


def test_counts_have_the_score():
    nlp = spacy.blank("en")
    (doc,) = corpus(nlp.vocab, 1, 0, trees=False, classes=True)
    example = make_example(nlp, doc, gold_tokens=True)
    example.predicted.cats = dict(doc.cats)
    assert sentiment.counts(example) == (1, 1)
    assert syntax_semantics.f1(np.array([[2, 2, 1], [0, 0, 0]])).tolist() == [50, 0]
    assert sentiment.accuracy(np.array([3, 4])) == 75
