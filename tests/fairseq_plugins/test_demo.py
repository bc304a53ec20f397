"""The demo: its language, its folders, its report, and one small run of it all on a user's data."""

import io
import json
import random
import re
from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console

from examples._shared import grammar
from examples._shared.data import column_files
from examples.tagging import demo
from fairseq_plugins.comparison import (
    Row,
    TrainingRun,
    claim,
    fairseq_command,
    plot,
    report,
    table,
    write_json,
)
from fairseq_plugins.comparison.child import BEGUN, CPU_TIME
from fairseq_plugins.convert_conll import read_sentences


def test_the_language_is_the_same_for_the_same_seed_only():
    assert grammar.corpus(5, seed=1) == grammar.corpus(5, seed=1)
    assert grammar.corpus(5, seed=1) != grammar.corpus(5, seed=2)


def test_sentences_have_a_tag_for_each_word():
    for words, tags in grammar.corpus(200, seed=0):
        assert len(words) == len(tags) in grammar.LENGTHS
        assert set(words) <= set(grammar.FORMS)
        assert set(tags) <= set(grammar.TAGS)


def test_words_are_ambiguous_and_tags_depend_on_both_tags_before():
    sentences = grammar.corpus(3000, seed=0)
    tags_of = {}
    after = {}
    for words, tags in sentences:
        for word, tag in zip(words, tags):
            tags_of.setdefault(word, set()).add(tag)
        for a, b, c in zip(tags, tags[1:], tags[2:]):
            after.setdefault((a, b), []).append(c)
    assert min(map(len, tags_of.values())) >= 5
    # The most frequent tag after "... b" is not the same for every tag before b.
    favourite = {pair: max(set(seen), key=seen.count) for pair, seen in after.items() if len(seen) > 30}
    by_last = {}
    for (_, b), tag in favourite.items():
        by_last.setdefault(b, set()).add(tag)
    assert max(map(len, by_last.values())) >= 3


def test_columns_are_read_back(tmp_path):
    sentences = grammar.corpus(20, seed=3)
    grammar.write_columns(sentences, tmp_path / "train.tsv")
    assert list(read_sentences(tmp_path / "train.tsv")) == sentences


def test_finds_files_by_split(tmp_path):
    for name in ("train.conll.gz", "dev.tsv"):
        (tmp_path / name).touch()
    assert column_files(tmp_path) == {"train": tmp_path / "train.conll.gz", "valid": tmp_path / "dev.tsv"}
    (tmp_path / "test.tsv").touch()
    assert list(column_files(tmp_path)) == ["train", "valid", "test"]
    (tmp_path / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no dev\.tsv"):
        column_files(tmp_path)


def test_the_readme_lists_every_option():
    readme = Path(demo.__file__).with_name("README.md").read_text(encoding="utf-8")
    table = [line for line in readme.splitlines() if line.startswith("| `--")]
    rows = {name: line for line in table for name in re.findall(r"`(--[\w-]+)`", line.split("|")[1])}
    for action in demo.argument_parser()._actions:
        (name,) = [name for name in action.option_strings if name.startswith("--")]
        if name == "--help":
            continue
        assert name in rows, name
        if isinstance(action.default, int | float) and not action.const:
            assert re.search(rf"(?<![\d.]){action.default:g}(?![\d.])", rows[name]), rows[name]


def test_changed_data_is_refused_as_well(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("a\tX\n")
    args = demo.arguments(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    claim(args.out, demo.settings(args))
    claim(args.out, demo.settings(args))
    (tmp_path / "train.tsv").write_text("a\tX\nb\tY\n")
    with pytest.raises(ValueError, match="was made with another files"):
        claim(args.out, demo.settings(args))


def test_the_output_folder_is_named_after_the_data(tmp_path):
    assert demo.arguments([]).out == Path("runs/tagging-generated")
    assert demo.arguments(["--data", str(tmp_path / "ner"), "--quick"]).out == Path("runs/tagging-ner-quick")


def test_a_missing_folder_of_data_is_one_message(tmp_path):
    with pytest.raises(SystemExit, match=r"demo: .*has no train\.tsv"):
        demo.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])


def test_a_failing_command_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)fairseq-nonsense failed, see .*No module named"):
        fairseq_command("nonsense", [], tmp_path / "log")


def log_line(kind, **values):
    return f"2026-01-01 00:00:00 | INFO | {kind} | {json.dumps({key: str(v) for key, v in values.items()})}\n"


def test_a_run_is_followed_by_its_log(tmp_path):
    run = TrainingRun("name", tmp_path, [], epochs=3, metric="accuracy")
    assert run.progress() == (0.0, None)
    assert run.curve() == []
    run.log.write_text(
        "noise\n"
        + log_line("train_inner", epoch=1, update=0.25, loss=3)
        + log_line("valid", epoch=1, valid_loss=2, valid_accuracy=50.5, valid_num_updates=4)
        + f"{CPU_TIME} {BEGUN}\n{CPU_TIME} 7.5\n"
        + log_line("train_inner", epoch=2, update=1.5, loss=3)
    )
    assert run.progress() == (1.5, 50.5)
    assert run.cpu_seconds() == 7.5
    (point,) = run.curve()
    assert point == {"epoch": 1, "updates": 4, "metric": 50.5, "nll": pytest.approx(2 * 0.6931, rel=1e-3)}
    # Criterions whose loss is not cross entropy log that under its own name.
    with open(run.log, "a") as log:
        log.write(
            log_line(
                "valid", epoch=2, valid_loss=9, valid_nll_loss=1.5, valid_accuracy=51, valid_num_updates=8
            )
        )
    assert run.curve()[1]["nll"] == pytest.approx(1.5 * 0.6931, rel=1e-3)


def test_a_killed_start_does_not_tell_its_time(tmp_path):
    run = TrainingRun("name", tmp_path, [], epochs=3, metric="accuracy")
    whole, killed = f"{CPU_TIME} {BEGUN}\nnoise\n{CPU_TIME} 4.0\n", f"{CPU_TIME} {BEGUN}\n"
    for log, expected in (
        (whole, 4.0),
        (whole + whole, 8.0),
        (killed + whole, None),
        (2 * killed + whole, None),
        ("", None),
    ):
        run.log.write_text(log)
        assert run.cpu_seconds() == expected
    assert "?" in shown(table([Row("a", {"greedy": [1.0]}, [10], [None])], "title"))


def test_a_table_in_a_pipe_is_not_cut(tmp_path):
    heading = "a heading that is longer than most, and has a tail"
    found = Row("a name of the usual length", {heading: [1.0], "b": [2.0]}, [1234], [5.0], rows()[0].curves)
    pipe = io.StringIO()
    report([found], "title", {"measure": "accuracy"}, tmp_path, Console(file=pipe))
    for text in (pipe.getvalue(), (tmp_path / "table.txt").read_text()):
        assert heading in text and "a name of the usual length" in text and "1,234" in text


def rows():
    def row(name, greedy, beam):
        curve = [{"epoch": 1, "updates": 10, "metric": beam[0], "nll": 1.0}]
        return Row(name, {"greedy": greedy, "beam of 3": beam}, [10, 10], [3.0, 5.0], [curve, curve])

    return [
        row(demo.CROSS_ENTROPY, [50.0, 52.0], [60.0, 61.0]),
        row(demo.CONTINUED, [53.0, 51.0], [62.0, 61.0]),
        row(demo.DIRECT, [49.0, 50.0], [61.0, 60.0]),
    ]


def shown(view):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(view)
    return console.export_text()


def test_the_table_marks_the_best_of_each_column():
    lines = shown(table(rows(), "accuracy on test")).splitlines()
    assert lines[0].strip() == "accuracy on test; * is the best of its column"
    found = {
        name: next(line for line in lines if f" {name} " in line) for name in (demo.CONTINUED, demo.DIRECT)
    }
    assert "52.00 ±1.41 *" in found[demo.CONTINUED]
    assert "61.50 ±0.71 *" in found[demo.CONTINUED]
    assert "*" not in found[demo.DIRECT]
    assert "49.50 ±0.71" in found[demo.DIRECT]


def test_the_verdict_says_who_lost():
    assert "direct loss is -1.00 points from cross entropy continued" in demo.verdict(rows(), 3, "test")
    assert "optimistic" not in demo.verdict(rows(), 3, "test")
    assert "chosen on the same dev" in demo.verdict(rows(), 3, "dev")


def test_picture_and_json_are_written(tmp_path):
    plot(rows(), "accuracy", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    write_json(rows(), {"split": "test"}, tmp_path / "results.json")
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["split"] == "test"
    assert found["rows"][1]["scores"] == rows()[1].scores


def names_and_others(rng, sentences):
    """Sentences in which capitals are persons or places."""
    found = []
    for _ in range(sentences):
        words = [rng.choice(["Anna", "Bonn", "in", "lacht", "wohnt"]) for _ in range(rng.randint(1, 6))]
        found.append((words, [{"Anna": "B-PER", "Bonn": "B-LOC"}.get(word, "O") for word in words]))
    return found


@pytest.mark.usefixtures("forked_commands")
def test_the_whole_demo_on_a_users_folder(tmp_path, capsys):
    """All stages in small; called again, it trains nothing and reports the same numbers."""
    data = tmp_path / "data"
    data.mkdir()
    rng = random.Random(0)
    grammar.write_columns(names_and_others(rng, 80), data / "train.tsv")
    grammar.write_columns(names_and_others(rng, 30), data / "dev.tsv")
    out = tmp_path / "out"
    command = ["--data", str(data), "--out", str(out), "--quick", "--hidden", "16", "--label-embedding", "4",
               "--wrong-label-costs", "O=2"]  # fmt: skip
    demo.main(command)
    printed = capsys.readouterr().out
    assert "F1 of spans on dev, percent" in printed
    assert "direct loss" in printed
    first = json.loads((out / "results.json").read_text())
    assert [row["name"] for row in first["rows"]] == [demo.CROSS_ENTROPY, demo.CONTINUED, demo.DIRECT]
    updates = [row["updates"][0] for row in first["rows"]]
    assert updates[1] == updates[2] > 0
    assert "--wrong-label-costs" in first["rows"][2]["commands"][0]
    logs = {path: path.read_bytes() for path in out.glob("seed1/*/train.log")}
    assert len(logs) == 3
    assert (out / "curves.png").stat().st_size > 1000

    demo.main(command)
    assert json.loads((out / "results.json").read_text()) == first
    assert {path: path.read_bytes() for path in logs} == logs


def test_the_generated_data_is_prepared(tmp_path):
    args = demo.arguments(["--quick", "--out", str(tmp_path)])
    claim(args.out, demo.settings(args))
    assert list(demo.generate(args)) == ["train", "valid", "test"]
    assert len(list(read_sentences(tmp_path / "data" / "train.tsv"))) == 200


def test_both_continuations_train_alike(tmp_path, monkeypatch):
    """Same data, start, seed, epochs, batches and learning rate; only criterion and dropout differ."""
    started = []
    monkeypatch.setattr(demo, "train_together", lambda runs, console: started.extend(runs))
    args = demo.arguments(["--out", str(tmp_path)])
    demo.train(args, 1, "accuracy", Namespace(rule=lambda *args, **kwargs: None))
    _, continued, direct = (run.arguments for run in started)
    for name in ("--lr", "--max-epoch", "--seed", "--max-tokens", "--finetune-from-model", "--clip-norm"):
        values = {arguments[arguments.index(name) + 1] for arguments in (continued, direct)}
        assert len(values) == 1, name
    assert "cross_entropy" in continued
    assert "soft_beam" in direct
