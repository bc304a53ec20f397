"""Tagging without right context: the experiment from sentences to its report, in this process."""

import json
import sys
from unittest import mock

import pytest

pytest.importorskip("fairseq")

from examples.papers import incremental_tagging as experiment
from fairseq_plugins.comparison import Row

SMALL = ["--quick", "--sentences", "30", "--aside", "8", "--hidden", "8", "--beam", "2", "--lr", "0.01"]


def preprocess_here(name, arguments, log):
    """Instead of a process of its own, which would import everything."""
    from fairseq import options
    from fairseq_cli import preprocess

    assert name == "preprocess"
    preprocess.main(options.get_preprocessing_parser().parse_args(arguments))


def train_here(runs, console, at_once):
    from fairseq import checkpoint_utils
    from fairseq.logging import metrics
    from fairseq_cli import train

    for run in (run for run in runs if not run.finished):
        metrics.reset()
        vars(checkpoint_utils.save_checkpoint).pop("best", None)
        with mock.patch.object(sys, "argv", run.command):
            train.cli_main()
        accuracy = {"valid_accuracy": "50", "valid_loss": "1", "epoch": 1, "valid_num_updates": "3"}
        run.log.write_text(f"now | INFO | valid | {json.dumps(accuracy)}\n")
        run.finish()


def all_finished(runs, console, at_once):
    assert all(run.finished for run in runs)


@pytest.fixture
def here(monkeypatch):
    """Everything runs in this process, and decoding, which has tests of its own, is made up."""
    monkeypatch.setattr(experiment, "fairseq_command", preprocess_here)
    monkeypatch.setattr(experiment, "train_together", train_here)

    def decode(run, decoding, generate):
        assert run.best.exists()
        kept_aside = decoding.options[decoding.options.index("--gen-subset") + 1] == "valid"
        at_zero = decoding.key.endswith("lambda0")
        return 70.0 + at_zero * (10 if kept_aside else 5)

    monkeypatch.setattr(experiment, "decode", decode)
    return monkeypatch


def test_from_sentences_to_the_report(tmp_path, here, capsys):
    command = [*SMALL, "--out", str(tmp_path)]
    experiment.main(command)
    first = (tmp_path / "results.json").read_text()
    results = json.loads(first)
    names = [experiment.START, *(arm.name for arm in experiment.ARMS.values())]
    assert [row["name"] for row in results["rows"]] == names
    tuned = [row["scores"]["beam 2, tuned lambda"] for row in results["rows"]]
    assert tuned == [[75.0]] * 5 and set(map(tuple, results["lambda"].values())) == {(0.0,)}
    for name in ("table.txt", "curves.png", "verdict.txt"):
        assert (tmp_path / name).stat().st_size
    assert "global + own history - scheduled sampling: +0.00" in capsys.readouterr().out

    here.setattr(experiment, "train_together", all_finished)
    experiment.main(command)
    assert (tmp_path / "results.json").read_text() == first


def test_every_way_is_given_the_whole_grid_and_keeps_its_best(tmp_path, here):
    trained = []

    def pretend(runs, console, at_once):
        for run in runs:
            trained.append(run.folder.name)
            run.folder.mkdir(parents=True, exist_ok=True)
            better = ("ce" in run.folder.name) == ("lr0.1" in run.folder.name)
            values = {"valid_accuracy": 60 + better, "valid_loss": 1, "epoch": 1, "valid_num_updates": 3}
            run.log.write_text(f"now | INFO | valid | {json.dumps(values)}\n")
            run.best.touch()

    here.setattr(experiment, "train_together", pretend)
    here.setattr(experiment, "updates_per_epoch", lambda args: 3)
    few = ["--sentences", "9", "--aside", "3", "--seeds", "4", "2"]
    experiment.main([*few, "--out", str(tmp_path), "--lr", "0.1", "0.2", "--lambdas", "0"])
    chosen = json.loads((tmp_path / "results.json").read_text())["learning rate and dropout"]
    assert chosen.pop(experiment.CONTINUED.name) == [0.1, 0.3]
    assert set(map(tuple, chosen.values())) == {(0.2, 0.3)}
    grid = {f"{arm.folder}-lr{lr}-dropout0.3" for arm in experiment.ARMS.values() for lr in ("0.1", "0.2")}
    second = trained.index("start", 1)  # the second seed
    assert set(trained[:second]) == {"start", *grid}
    assert len(set(trained[second:])) == 1 + len(experiment.ARMS)


def test_the_learning_rate_of_every_run_decays_to_0_over_its_own_updates(tmp_path):
    args = experiment.arguments(["--out", str(tmp_path)])
    start = experiment.start_run(args, seed=1, updates=70)
    arms = experiment.ARMS.values()
    others = [experiment.continuation(args, arm, (0.01, 0.2), start, 1, 70) for arm in arms]
    for run in [start, *others]:
        given = run.arguments
        total = given[given.index("--total-num-update") + 1]
        assert int(total) == 70 * run.epochs == int(given[given.index("--max-update") + 1])
        assert given[given.index("--encoder-direction") + 1] == "word"


def test_the_verdict_compares_seed_by_seed():
    scores = {experiment.CONTINUED: [70.0, 72.0], experiment.SAMPLING: [73.0, 72.0]}
    scores |= {experiment.DIRECT: [72.0, 73.0], experiment.GLOBAL: [71.0, 77.0]}
    rows = [Row(arm.name, {"beam": values}) for arm, values in scores.items()]
    text = experiment.verdict(rows, "beam")
    assert "global + own history - cross entropy, continued: +3.00 ±2.83 (+1.00, +5.00)" in text
    assert "direct loss + own history - scheduled sampling: +0.00 ±1.41 (-1.00, +1.00)" in text


def test_data_of_too_few_sentences_is_one_line(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("a\tX\n\nb\tX\n")
    with pytest.raises(SystemExit, match="--aside 1000 leaves nothing of 2 sentences"):
        experiment.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
