"""Runs that are killed: children end, logs and checkpoints are mended, patience is kept, markers are true."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from unittest import mock

import pytest
import torch
from fairseq_cli import train as fairseq_train
from patience import HANGS_AFTER
from rich.console import Console

from examples.tagging import demo
from fairseq_plugins.comparison import TrainingRun, decoding, processes, runs
from fairseq_plugins.comparison.resumed import patience_used

VALID = (
    'a | INFO | valid | {"epoch": %d, "valid_loss": "2", "valid_accuracy": "%g", "valid_num_updates": "%d"}\n'
)
PARENT = """
import sys, time
from pathlib import Path
from fairseq_plugins.comparison import processes
child = processes.start("sleeper", [], Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(1000)
"""


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("without", ["prctl", "pipe"])
def test_a_child_ends_when_its_parent_is_killed(tmp_path, without):
    """By the kernel and by the pipe, either of which is enough; busy or asleep."""
    (tmp_path / "sleeper.py").write_text("import os\nopen('started', 'w').close()\nwhile True: os.getpid()\n")
    loss = {"prctl": "sys.platform = 'other'", "pipe": "threading.Thread.start = lambda self: None"}[without]
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys, threading\nif sys.orig_argv[1].endswith('child.py'):\n    {loss}\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(parent.stdout.readline())
    end = time.monotonic() + HANGS_AFTER
    while not (tmp_path / "started").exists():
        assert time.monotonic() < end and lives(child), (tmp_path / "log").read_text()
        time.sleep(0.05)
    assert lives(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    try:
        while lives(child):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def run_with_log(folder, text, **options):
    run = TrainingRun("x", folder, [], 9, "accuracy", **options)
    folder.mkdir(exist_ok=True)
    run.log.write_text(text)
    return run


def test_a_torn_line_swallows_none_after_it(tmp_path):
    run = run_with_log(tmp_path, VALID % (1, 50, 7) + 'a | INFO | valid | {"epoch": 2, "va')
    process = processes.start("this_module_is_not_there", [], run.log)
    assert process.wait() != 0
    processes.stop(process)
    with open(run.log, "a") as log:
        log.write(VALID % (2, 60, 14))
    assert [point["metric"] for point in run.curve()] == [50, 60]


def test_a_damaged_record_names_file_and_line(tmp_path):
    run = run_with_log(tmp_path, "noise\n" + 'a | INFO | valid | {"epoch": }\n')
    with pytest.raises(ValueError, match=rf"{run.log}, line 2: damaged record"):
        run.curve()


def test_a_metric_that_is_not_reported_is_named(tmp_path):
    run = run_with_log(tmp_path, VALID % (1, 50, 7))
    run.metric = "f1"
    with pytest.raises(ValueError, match="reports no f1 on dev, only accuracy, loss, num_updates"):
        run.progress()


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_patience_is_counted_as_fairseq_does(larger_is_better):
    checkpoint = Namespace(patience=99, maximize_best_checkpoint_metric=larger_is_better)
    for scores in itertools.product([1.0, 2.0, 3.0], repeat=4):
        vars(fairseq_train.should_stop_early).clear()
        for score in scores:
            fairseq_train.should_stop_early(Namespace(checkpoint=checkpoint), score)
        counted = vars(fairseq_train.should_stop_early)
        assert patience_used(scores, larger_is_better) == (counted["best"], counted["num_runs"])
    vars(fairseq_train.should_stop_early).clear()


def last_checkpoint(folder, updates):
    torch.save({"optimizer_history": [{"num_updates": updates}]}, folder / "checkpoint_last.pt")


@pytest.mark.parametrize(("updates", "starts"), [(11, True), (12, False)])
def test_a_run_that_has_made_its_updates_makes_no_more(tmp_path, monkeypatch, updates, starts):
    """Killed after its last checkpoint, before it was marked finished: fairseq would make one more."""
    started = []
    monkeypatch.setattr(runs, "start", lambda *args: started.append(args))
    run = run_with_log(tmp_path, VALID % (1, 50, updates))
    run.arguments = ["data", "--max-update", "12"]
    last_checkpoint(tmp_path, updates)
    run.start()
    assert (bool(started), run.finished) == (starts, not starts)


def test_a_resumed_run_keeps_its_patience(tmp_path, monkeypatch):
    """It counts validations up to the last checkpoint; one that had used its patience has finished."""
    started = []
    monkeypatch.setattr(runs, "start", lambda *args: started.append(args))
    log = "".join(VALID % (i, score, 10 * i) for i, score in enumerate([5, 7, 6, 7], start=1))
    run = run_with_log(tmp_path, log)
    run.arguments = ["data", "--patience", "2", "--maximize-best-checkpoint-metric"]
    last_checkpoint(tmp_path, 30)
    run.start()
    module, arguments, _ = started.pop()
    assert module == "fairseq_plugins.comparison.resumed" and arguments[:3] == ["7.0", "1", "data"]
    assert not run.finished
    last_checkpoint(tmp_path, 40)
    run.start()
    assert run.finished and not started


def test_a_fresh_run_is_fairseqs_own(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(runs, "start", lambda *args: started.append(args))
    TrainingRun("x", tmp_path / "new", ["data", "--patience", "2"], 9, "accuracy").start()
    assert started[0][:2] == (
        "fairseq_cli.train",
        ["data", "--patience", "2", "--save-dir", str(tmp_path / "new")],
    )


def test_a_broken_last_checkpoint_is_replaced_by_the_best(tmp_path):
    (tmp_path / "checkpoint_last.pt").write_bytes(b"half")
    assert runs._whole_last_checkpoint(tmp_path) is None
    assert not (tmp_path / "checkpoint_last.pt").exists()
    last_checkpoint(tmp_path, 5)
    (tmp_path / "checkpoint_last.pt").rename(tmp_path / "checkpoint_best.pt")
    (tmp_path / "checkpoint_last.pt").write_bytes(b"half")
    assert runs._updates_of(runs._whole_last_checkpoint(tmp_path)) == 5


def test_a_run_without_validation_is_one_line(tmp_path, monkeypatch):
    run = run_with_log(tmp_path, "nothing\n")
    monkeypatch.setattr(decoding, "decode", lambda *args: 1.0)
    way = decoding.Decoding("greedy", "greedy", ())
    with pytest.raises(ValueError, match=r"reports no validation: remove .* to train it again"):
        decoding.decoded_row("x", [(run, run)], [way], [], Console(quiet=True))


def test_a_damaged_score_names_its_file(tmp_path):
    run = TrainingRun("x", tmp_path, [], 1, "accuracy")
    (tmp_path / "greedy").mkdir()
    (tmp_path / "greedy" / "score.json").write_text('{"score": 1')
    with pytest.raises(ValueError, match=r"score\.json is damaged"):
        decoding.decode(run, decoding.Decoding("greedy", "greedy", ()), [])


def test_binarised_data_of_a_killed_command_is_made_again(tmp_path):
    """Nothing that it had begun is taken for finished."""
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("a\tX\nb\tY\n\n")
    args = demo.arguments(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    (tmp_path / "out").mkdir()

    def killed(name, command, log):
        folder = Path(command[command.index("--destdir") + 1])
        (folder / "preprocess.log").touch()
        raise KeyboardInterrupt

    with mock.patch.object(demo, "fairseq_command", killed), pytest.raises(KeyboardInterrupt):
        demo.prepare(args, Console(quiet=True))
    assert demo.prepare(args, Console(quiet=True)) == ["train", "valid"]
    assert (tmp_path / "out" / "bin" / "dict.words.txt").is_file()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bin", "preprocess.log", "text"]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            "Traceback:\n  File x\nValueError: why\nand what to do\n",
            "x, see {log}: ValueError: why\nand what to do",
        ),
        (
            "Traceback:\n  File x\nRuntimeError: ours\n",
            "x, see {log}:\nTraceback:\n  File x\nRuntimeError: ours",
        ),
        ("usage: train\ntrain.py: error: no such option\n", "x, see {log}: train.py: error: no such option"),
        (
            "  File x\nOSError: [Errno 28] No space left on device\nTrace",
            "x: no space left for {log.parent}; make room, and the same command goes on "
            "from what it has saved",
        ),
        ("one\ntwo\n", "x, see {log}:\none\ntwo"),
        ("", "x, see {log}:"),
    ],
)
def test_a_failed_process_says_why(tmp_path, end, message):
    log = tmp_path / "log"
    log.write_text(end)
    assert str(processes.failure("x", log)) == message.format(log=log)
    with mock.patch.object(processes, "disk_usage", lambda folder: Namespace(free=0)):
        assert "no space left" in str(processes.failure("x", log))
