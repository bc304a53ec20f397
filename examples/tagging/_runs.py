"""Starting fairseq's own commands and following their logs."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

RECORD = re.compile(r"\| INFO \| (train_inner|train|valid) \| (\{.*\})$")
POLL_SECONDS = 0.3


@dataclass
class TrainingRun:
    """One fairseq-train command.

    Attributes:
        name: what the progress bar calls it.
        folder: where its checkpoints and its log lie.
        arguments: of fairseq-train, without ``--save-dir``.
        epochs: how many it trains.
        metric: what validation is reported by.
    """

    name: str
    folder: Path
    arguments: list[str]
    epochs: int
    metric: str
    process: subprocess.Popen = field(default=None, repr=False)

    @property
    def log(self):
        return self.folder / "train.log"

    @property
    def finished(self):
        """Whether an earlier call has completed the run."""
        return (self.folder / "finished").exists()

    def start(self):
        """Start it, or continue it from its last checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "fairseq_cli.train", *self.arguments, "--save-dir", str(self.folder)]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=one_thread())

    def records(self):
        """``(kind, values)`` of each record in the log: kind is train_inner, train or valid."""
        if not self.log.exists():
            return
        with open(self.log) as log:
            for line in log:
                if match := RECORD.search(line.rstrip("\n")):
                    yield match.group(1), json.loads(match.group(2))

    def curve(self):
        """One dictionary per validation: ``epoch``, ``updates``, ``metric`` and ``nll`` (nats per word)."""
        points = {}
        for kind, values in self.records():
            if kind == "valid":
                # Cross entropy logs its loss in bits per word, soft_beam its own nll_loss in nats.
                nll = float(values.get("valid_nll_loss", float(values["valid_loss"]) * 0.6931))
                points[int(values["epoch"])] = {
                    "epoch": int(values["epoch"]),
                    "updates": int(values["valid_num_updates"]),
                    "metric": float(values[f"valid_{self.metric}"]),
                    "nll": nll,
                }
        return [points[epoch] for epoch in sorted(points)]

    def seconds(self):
        """Wall-clock seconds of training and validation, without start-up; a resumed run counts them all."""
        last = [values for kind, values in self.records() if kind == "train"]
        return float(last[-1]["train_wall"]) if last else 0.0

    def progress(self):
        """``(epochs done, latest metric or None)``; the first is a fraction."""
        done, metric = 0.0, None
        for kind, values in self.records():
            if kind == "train_inner":
                done = float(values["update"])  # in epochs, although its name says otherwise
            elif kind == "valid":
                done, metric = float(values["epoch"]), float(values[f"valid_{self.metric}"])
        return done, metric


def one_thread():
    """The environment of a command that shares the machine with others."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def fairseq_command(name, arguments, log):
    """Run a short fairseq command to its end; its output goes to the file *log*.

    Raises:
        RuntimeError: it failed; the message holds the end of its output.
    """
    command = [sys.executable, "-m", f"fairseq_cli.{name}", *arguments]
    with open(log, "w") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=one_thread()).returncode
    if code != 0:
        raise RuntimeError(f"fairseq-{name} failed, see {log}:\n{_end_of(log)}")


def train_together(runs, console):
    """Run all *runs* side by side, with a progress bar each; finished ones are left as they are.

    Raises:
        RuntimeError: one failed (the others are stopped); the message holds the end of its log.
    """
    runs = [run for run in runs if not run.finished]
    for run in runs:
        run.start()
    try:
        with _bars(console) as bars:
            follow = {run.name: bars.add_task(run.name, total=run.epochs, metric="") for run in runs}
            while any(run.process.poll() is None for run in runs):
                _update(bars, follow, runs)
                time.sleep(POLL_SECONDS)
            _update(bars, follow, runs)
    finally:
        for run in runs:
            if run.process.poll() is None:
                run.process.terminate()
    for run in runs:
        if run.process.wait() != 0:
            raise RuntimeError(f"fairseq-train failed ({run.name}), see {run.log}:\n{_end_of(run.log)}")
        (run.folder / "finished").touch()


def _bars(console):
    columns = (
        "{task.description:<28}",
        "epoch {task.completed:4.1f} of {task.total}",
        "{task.fields[metric]}",
    )
    return Progress(
        TextColumn(columns[0]),
        BarColumn(),
        *map(TextColumn, columns[1:]),
        TimeElapsedColumn(),
        console=console,
    )


def _update(bars, follow, runs):
    for run in runs:
        done, metric = run.progress()
        text = "" if metric is None else f"dev {run.metric} {metric:.2f}"
        if text and not bars.console.is_terminal and bars.tasks[follow[run.name]].fields["metric"] != text:
            bars.console.print(f"{run.name}: epoch {done:.0f} of {run.epochs}, {text}")
        bars.update(follow[run.name], completed=done, metric=text)


def _end_of(log, lines=12):
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
