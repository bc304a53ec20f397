"""Training runs: fairseq-train in processes of their own, followed by their logs, resumable at any moment."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

RECORD = re.compile(r"\| INFO \| (train_inner|train|valid) \| (\{.*\})$")
POLL_SECONDS = 0.3
BITS_TO_NATS = 0.6931471805599453


@dataclass
class TrainingRun:
    """One fairseq-train command.

    Attributes:
        name: what tables and progress bars call it.
        folder: where its checkpoints and its log lie.
        arguments: of fairseq-train, without ``--save-dir``; ``--log-format json`` among them.
        epochs: how many it trains at most.
        metric: what validation is reported by.
    """

    name: str
    folder: Path
    arguments: list[str]
    epochs: int
    metric: str
    process: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """Everything that fairseq printed, over all starts."""
        return self.folder / "train.log"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation score."""
        return self.folder / "checkpoint_best.pt"

    @property
    def finished(self) -> bool:
        """Whether an earlier call has completed the run."""
        return (self.folder / "finished").exists()

    @property
    def command(self) -> list[str]:
        """As one would type it."""
        return ["fairseq-train", *self.arguments, "--save-dir", str(self.folder)]

    def start(self) -> None:
        """Start it, or continue it from its last checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _mend_last_checkpoint(self.folder)
        command = [sys.executable, "-m", "fairseq_cli.train", *self.command[1:]]
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=one_thread())

    def records(self):
        """``(kind, values)`` of each record in the log: kind is train_inner, train or valid."""
        if not self.log.exists():
            return
        with open(self.log, encoding="utf-8", errors="replace") as log:
            for line in log:
                if match := RECORD.search(line.rstrip("\n")):
                    yield match.group(1), json.loads(match.group(2))

    def curve(self) -> list[dict]:
        """One dictionary per validation: ``epoch``, ``updates``, ``metric`` and ``nll`` (nats per symbol)."""
        points = {}
        for kind, values in self.records():
            if kind == "valid":
                # Bits in all criterions; fairseq's cross entropy calls them loss where that is the same.
                bits = float(values.get("valid_nll_loss", values["valid_loss"]))
                points[int(values["epoch"])] = {
                    "epoch": int(values["epoch"]),
                    "updates": int(values["valid_num_updates"]),
                    "metric": float(values[f"valid_{self.metric}"]),
                    "nll": BITS_TO_NATS * bits,
                }
        return [points[epoch] for epoch in sorted(points)]

    def seconds(self) -> float:
        """Wall-clock seconds of training and validation, without start-up; a resumed run counts them all."""
        last = [values for kind, values in self.records() if kind == "train"]
        return float(last[-1]["train_wall"]) if last else 0.0

    def progress(self) -> tuple[float, float | None]:
        """``(epochs done, latest metric or None)``; the first is a fraction."""
        done, metric = 0.0, None
        for kind, values in self.records():
            if kind == "train_inner":
                done = float(values["update"])  # in epochs, although its name says otherwise
            elif kind == "valid":
                done, metric = float(values["epoch"]), float(values[f"valid_{self.metric}"])
        return done, metric


def continued(first: list[dict], curve: list[dict]) -> list[dict]:
    """The ``curve`` of a continuation, from the best point of the ``first`` run on."""
    # Of equally good epochs fairseq keeps the last.
    start = max(first, key=lambda point: (point["metric"], point["epoch"]))
    return [start, *({**point, "updates": start["updates"] + point["updates"]} for point in curve)]


def _mend_last_checkpoint(folder: Path) -> None:
    """Replace a ``checkpoint_last.pt`` that cannot be read.

    fairseq writes one file in one piece and copies it to the others: killed in between, the last is broken
    and the best is the newest.
    """
    last, best = folder / "checkpoint_last.pt", folder / "checkpoint_best.pt"
    if not last.exists():
        return
    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except Exception:
        last.unlink()
        if best.exists():
            whole = last.with_name("checkpoint_last.pt.tmp")
            shutil.copyfile(best, whole)
            whole.replace(last)


def one_thread() -> dict[str, str]:
    """The environment of a command that shares the machine with others."""
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONWARNINGS": "ignore"}


def fairseq_command(name: str, arguments: list[str], log: Path) -> None:
    """Run a short fairseq command to its end; its output goes to the file ``log``.

    Raises:
        RuntimeError: it failed; the message holds the end of its output.
    """
    command = [sys.executable, "-m", f"fairseq_cli.{name}", *arguments]
    with open(log, "w", encoding="utf-8") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=one_thread()).returncode
    if code != 0:
        raise RuntimeError(f"fairseq-{name} failed, see {log}:\n{_end_of(log)}")


def train_together(runs: list[TrainingRun], console: Console, at_once: int = 2) -> None:
    """Train all ``runs``, ``at_once`` side by side, with a progress bar each; finished ones are left alone.

    Raises:
        RuntimeError: one failed (the others are stopped); the message holds the end of its log.
    """
    waiting = [run for run in runs if not run.finished]
    with _bars(console) as bars:
        follow = {run.name: bars.add_task(run.name, total=run.epochs, metric="") for run in waiting}
        running = []
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(waiting.pop(0))
                    running[-1].start()
                time.sleep(POLL_SECONDS)
                _update(bars, follow, running)
                running = [run for run in running if not _ended(run)]
        finally:
            for run in running:
                run.process.terminate()
                run.process.wait()


def _ended(run: TrainingRun) -> bool:
    """Whether the process has ended; marks the run finished. Raises RuntimeError if it failed."""
    code = run.process.poll()
    if code is None:
        return False
    if code != 0:
        raise RuntimeError(f"fairseq-train failed ({run.name}), see {run.log}:\n{_end_of(run.log)}")
    (run.folder / "finished").touch()
    return True


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("epoch {task.completed:4.1f} of {task.total}"),
        TextColumn("{task.fields[metric]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _update(bars: Progress, follow: dict, runs: list[TrainingRun]) -> None:
    for run in runs:
        done, metric = run.progress()
        text = "" if metric is None else f"dev {run.metric} {metric:.2f}"
        if text and not bars.console.is_terminal and bars.tasks[follow[run.name]].fields["metric"] != text:
            bars.console.print(f"{run.name}: epoch {done:.0f} of {run.epochs}, {text}")
        bars.update(follow[run.name], completed=done, metric=text)


def _end_of(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
