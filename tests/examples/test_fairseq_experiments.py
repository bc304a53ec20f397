"""Experiments with fairseq: what they declare, the grid, and from sentences to the report."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("fairseq")

import sacrebleu
from fairseq.options import get_training_parser, parse_args_and_arch
from rich.console import Console

from examples.papers import (
    _fairseq,
    _tagging,
    incremental_tagging,
    ner,
    supertagging,
    translation,
    word_ordering,
)
from examples.papers._fairseq import START, Comparison

EXPERIMENTS = [
    module.EXPERIMENT for module in (supertagging, ner, incremental_tagging, translation, word_ordering)
]
SMALL = ["--quick", "--sentences", "30", "--aside", "8", "--hidden", "8"]


def comparison(experiment, *argv):
    return Comparison(experiment, experiment.arguments(list(argv)), Console(quiet=True))


def all_finished(runs, console, at_once):
    assert all(run.finished for run in runs)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_what_is_declared_is_there(experiment, tmp_path):
    names = [system.name for system in experiment.systems]
    folders = {system.folder for system in experiment.systems}
    assert len(set(names)) == len(folders) == len(names) and set(experiment.quick) <= folders
    assert all(" - " not in name for name in names)
    for place, system in enumerate(experiment.systems):
        assert system.after in (None, *names[:place])
    assert {name for pair in experiment.pairs for name in pair} <= set(names)
    headings = {search.heading for search in experiment.searches}
    assert experiment.main in headings and set(experiment.paper) <= set(names)
    assert all(set(figures) <= headings for figures in experiment.paper.values())


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_fairseq_knows_every_option_and_each_learning_rate_decays_to_0(experiment, tmp_path):
    found = comparison(experiment, "--out", str(tmp_path))
    found.updates_per_epoch = 70
    start = found.training_run(found.args.systems[0], (0.01, 0.2), None, 1)
    of_criterion = {}
    for system in experiment.systems:
        run = found.training_run(system, (0.01, 0.2), start if system.after else None, 1)
        of_criterion.setdefault(system.options.split()[1], run.arguments).extend(system.options.split())
        given = dict(zip(run.arguments, run.arguments[1:]))
        assert int(given["--total-num-update"]) == int(given["--max-update"]) == 70 * system.epochs
        assert float(given["--lr"]) == pytest.approx(0.01 * system.rate) and given["--dropout"] == "0.2"
        assert given.get("--finetune-from-model") == (str(start.best) if system.after else None)
    for criterion, options in of_criterion.items():  # in one go, as a parser takes a while to make
        assert parse_args_and_arch(get_training_parser(), options).criterion == criterion


@pytest.mark.usefixtures("forked_commands")
def test_from_sentences_to_the_report(tmp_path, monkeypatch, capsys):
    given = tmp_path / "given.tsv"
    given.write_text("ba\tB-X\nunseen\tI-X\n\nga\tO\n", encoding="utf-8")
    out = tmp_path / "out"
    command = [*SMALL, "--out", str(out), "--systems", "direct_spans_own"]
    (tuned,) = (search for search in ner.EXPERIMENT.searches if search.tuned)
    experiment = replace(
        ner.EXPERIMENT,
        searches=(tuned,),
        pairs=((ner.BOTH, START),),
        paper={START: {tuned.heading: 50.21}},
    )
    experiment.main_program(command)
    found = json.loads((out / "results.json").read_text())
    assert [row["name"] for row in found["rows"]] == [START, ner.BOTH]
    for row in found["rows"]:
        assert list(row["scores"]) == [tuned.heading]
        assert all(0 <= score <= 100 for (score,) in row["scores"].values())
    assert list(found["intervals"]) == [f"{ner.BOTH} - {START}"]
    assert f"{ner.BOTH} - {START}: " in capsys.readouterr().out
    header, _, start, *_ = (out / "table.md").read_text().splitlines()[2:]
    assert f"| {tuned.heading} | paper |" in header and "| 50.21 |" in start
    record = json.loads((out / "record.json").read_text())
    assert record["intervals"][experiment.main] == found["intervals"]
    assert all((out / name).stat().st_size for name in ("curves.png", "verdict.txt"))

    # Again, with a file to report on: nothing is trained.
    monkeypatch.setattr(_fairseq, "train_together", all_finished)
    experiment.main_program([*command, "--test", str(given)])
    again = json.loads((out / "results.json").read_text())
    assert again["intervals"] == found["intervals"]
    assert list(again["rows"][0]["scores"]) == [tuned.heading, f"test: {tuned.heading}"]


@pytest.mark.usefixtures("forked_commands")
def test_from_pairs_to_the_report(tmp_path, monkeypatch):
    for language, text in (("bag", "b a ."), ("en", "a b .")):
        (tmp_path / f"given.{language}").write_text(f"{text}\n", encoding="utf-8")
    out = tmp_path / "out"
    command = ["--quick", "--pairs", "60", "--aside", "6", "--units", "8", "--out", str(out)]
    command += ["--systems", "start"]
    (tuned,) = (search for search in word_ordering.EXPERIMENT.searches if search.tuned)
    experiment = replace(word_ordering.EXPERIMENT, searches=(tuned,))
    experiment.main_program(command)
    monkeypatch.setattr(_fairseq, "train_together", all_finished)
    monkeypatch.setattr(word_ordering.WordOrder, "lengths", range(1, 9))
    experiment.main_program([*command, "--test", str(tmp_path / "given.bag")])
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [START]
    headings = [tuned.heading, "chrF", "length"]
    assert list(rows[0]["scores"]) == [*headings, *(f"test: {heading}" for heading in headings)]
    assert f"chrF and length: of {tuned.heading}." in (out / "table.md").read_text()


def test_bleu_of_the_counts_of_sentences_is_that_of_the_corpus(tmp_path):
    lines, references = (
        ["the cat sat on the mat", "a dog", "it is"],
        ["the cat sat on a mat", "the dog", "is it"],
    )
    material = translation.EXPERIMENT.material
    text = tmp_path / "data" / "text"
    text.mkdir(parents=True)
    (text / "test.en").write_text("".join(f"{line}\n" for line in references), encoding="utf-8")
    written = tmp_path / "generate-test.txt"
    written.write_text("".join(f"D-{i}\t-1\t{lines[i]}\n" for i in (2, 0, 1)), encoding="utf-8")
    counts = material.parts(argparse.Namespace(out=tmp_path), "test", written)
    expected = sacrebleu.metrics.BLEU().corpus_score(lines, [references]).score
    assert material.score(counts.sum(0)) == pytest.approx(expected)
    assert material.score(np.stack([counts.sum(0)] * 2)) == pytest.approx([expected] * 2)
    others = material.others(argparse.Namespace(out=tmp_path), "test", written)
    chrf = sacrebleu.metrics.CHRF().corpus_score(lines, [references]).score
    assert others == {"chrF": pytest.approx(chrf), "length": pytest.approx(100 * 10 / 10)}


def test_words_in_a_random_order_are_the_same_words(tmp_path):
    text = "One, two three.\nTwo three, one.\nno\nONE, two three.\n"
    (tmp_path / "train.en").write_text(text, encoding="utf-8")
    bags, sentences = word_ordering.EXPERIMENT.material.read(tmp_path, "train")
    assert sentences == ["one , two three .", "two three , one ."]
    assert [sorted(bag.split()) for bag in bags] == [sorted(line.split()) for line in sentences]


def test_sides_of_different_length_are_one_line(tmp_path):
    for name, text in (("train.de", "a\nb\n"), ("train.en", "a\n")):
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit, match=r"translation: .*train\.de has 2 lines, train\.en 1: line n of one"):
        translation.main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"])


def test_every_system_is_given_the_whole_grid_and_keeps_its_best(tmp_path, monkeypatch):
    trained = []

    def pretend(runs, console, at_once):
        for run in runs:
            trained.append(run.folder.name)
            run.folder.mkdir(parents=True, exist_ok=True)
            better = ("ce" in run.folder.name) == ("lr0.1" in run.folder.name)
            values = {"valid_accuracy": 60 + better, "valid_loss": 1, "epoch": 1, "valid_num_updates": 3}
            run.log.write_text(f"now | INFO | valid | {json.dumps(values)}\n")

    monkeypatch.setattr(_fairseq, "train_together", pretend)
    found = comparison(
        incremental_tagging.EXPERIMENT,
        *["--out", str(tmp_path), "--lr", "0.1", "0.2", "--seeds", "2", "--systems", "ce", "global"],
    )
    found.updates_per_epoch = 3
    for seed in (1, 2):
        start = None
        for system in found.args.systems:
            run = found.trained(system, start, seed)
            start = start or run
    assert found.points.pop(incremental_tagging.CONTINUED.name) == (0.1, 0.3)
    assert set(found.points.values()) == {(0.2, 0.3)}
    grid = [f"{name}-lr{lr}-dropout0.3" for name in ("start", "ce", "global") for lr in ("0.1", "0.2")]
    assert trained[:6] == grid
    assert trained[6:] == ["start-lr0.2-dropout0.3", "ce-lr0.1-dropout0.3", "global-lr0.2-dropout0.3"]


def test_what_continued_another_start_is_trained_again(tmp_path):
    """A grid that has grown may choose another one."""
    found = comparison(incremental_tagging.EXPERIMENT, "--out", str(tmp_path), "--systems", "ce")
    found.updates_per_epoch = 3
    start, ce = found.args.systems
    starts = [found.training_run(start, (rate, 0.3), None, 1) for rate in (0.1, 0.2)]
    one, another = (found.training_run(ce, (0.1, 0.3), run, 1) for run in starts)
    assert one.folder != another.folder and one.folder.name == another.folder.name


def test_a_system_brings_those_that_it_continues(tmp_path):
    args = supertagging.EXPERIMENT.arguments(["--systems", "own", "--out", str(tmp_path)])
    assert [system.name for system in args.systems] == [START, supertagging.OWN]


def test_counts_have_the_score(tmp_path):
    """Those of sentences, in the order of the data, and of their sums."""
    written = tmp_path / "generate-test.txt"
    lines = ["T-1\tB-X I-X O", "H-1\t-0.5\tB-X O O", "T-0\tB-Y", "H-0\t-0.1\tB-Y", "D-0\t-0.1\tB-Y"]
    written.write_text("\n".join(lines), encoding="utf-8")
    labels, spans = _tagging.Tagging("accuracy", 9), _tagging.Tagging("f1", 9)
    assert labels.parts(None, "test", written).tolist() == [[1, 1], [2, 3]]
    counts = spans.parts(None, "test", written)
    assert counts.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert labels.score(np.array([3, 4])) == 75 and spans.score(counts.sum(0)) == 50
    assert spans.score(np.zeros((2, 3))).tolist() == [0, 0]


def test_data_of_too_few_sentences_is_one_line(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("a\tX\n\nb\tX\n")
    with pytest.raises(SystemExit, match="supertagging: --aside 1000 leaves nothing of 2 sentences"):
        supertagging.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
