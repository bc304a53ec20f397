"""Training runs: fairseq-train in processes of their own, followed by their logs, resumable at any moment."""

import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from diffdecode.files.atomic import write_bytes, write_text
from fairseq_plugins.comparison.child import BEGUN, CPU_TIME
from fairseq_plugins.comparison.processes import failure, start, stop
from fairseq_plugins.comparison.resumed import patience_used

RECORD = re.compile(r"\| INFO \| (train_inner|train|valid) \| (\{.*\})$")
POLL_SECONDS = 0.3
REFRESHES_A_SECOND = 2
BITS_TO_NATS = 0.6931471805599453
Record = tuple[str, dict[str, Any]]


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

    def __post_init__(self) -> None:
        self._followed = Log(self.log)
        self._progress: tuple[float, float | None] = (0.0, None)

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

    def finish(self) -> None:
        """Mark the run as completed."""
        write_text(self.folder / "finished", "")

    @property
    def command(self) -> list[str]:
        """As one would type it."""
        return ["fairseq-train", *self.arguments, "--save-dir", str(self.folder)]

    def start(self) -> None:
        """Start it, or continue it from its last checkpoint. One that had ended before is marked finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        updates = _updates_of(_whole_last_checkpoint(self.folder))
        if 0 < self._option("--max-update") <= updates:  # fairseq makes an update before it looks
            return self.finish()
        scores = self._scores(until=updates)
        module, state = "fairseq_cli.train", []
        if scores and "--patience" in self.arguments:
            best, fruitless = patience_used(scores, "--maximize-best-checkpoint-metric" in self.arguments)
            if 0 < self._option("--patience") <= fruitless:
                return self.finish()
            module, state = "fairseq_plugins.comparison.resumed", [repr(best), str(fruitless)]
        self.process = start(module, [*state, *self.command[1:]], self.log)

    def _option(self, name: str) -> float:
        """A number among the arguments; inf where it is not given."""
        if name not in self.arguments:
            return math.inf
        return float(self.arguments[self.arguments.index(name) + 1])

    def records(self) -> Iterator[Record]:
        """``(kind, values)`` of each record in the log: kind is train_inner, train or valid.

        Raises:
            ValueError: a record that is not torn cannot be read; the message names file and line.
        """
        return Log(self.log).news()

    def curve(self) -> list[dict]:
        """One dictionary per validated epoch: ``epoch``, ``updates``, ``metric``, ``nll`` (nats per symbol).

        Raises:
            ValueError: the metric is not in the log; the message names those that are.
        """
        points = {}
        for kind, values in self.records():
            if kind == "valid":
                # Bits in all criterions; fairseq's cross entropy calls them loss where that is the same.
                bits = float(values.get("valid_nll_loss", values["valid_loss"]))
                points[int(values["epoch"])] = {
                    "epoch": int(values["epoch"]),
                    "updates": int(values["valid_num_updates"]),
                    "metric": self._metric_in(values),
                    "nll": BITS_TO_NATS * bits,
                }
        return [points[epoch] for epoch in sorted(points)]

    def _scores(self, until: int) -> list[float]:
        """Of the validations up to a number of updates; those of later ones will be made again."""
        found = {
            int(values["valid_num_updates"]): self._metric_in(values)
            for kind, values in self.records()
            if kind == "valid"
        }
        return [found[updates] for updates in sorted(found) if updates <= until]

    def _metric_in(self, values: dict[str, Any]) -> float:
        if f"valid_{self.metric}" not in values:
            there = ", ".join(sorted(name.removeprefix("valid_") for name in values if "valid_" in name))
            raise ValueError(f"{self.log} reports no {self.metric} on dev, only {there}")
        return float(values[f"valid_{self.metric}"])

    def cpu_seconds(self) -> float | None:
        """CPU seconds of the command, over all its starts; None if one was killed, which cannot tell.

        On a machine that others use as well they compare, where wall-clock seconds do not.
        """
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line.removeprefix(CPU_TIME).strip() for line in lines if line.startswith(CPU_TIME)]
        ended = [float(seconds) for seconds in told if seconds != BEGUN]
        return sum(ended) if ended and 2 * len(ended) == len(told) else None

    def progress(self) -> tuple[float, float | None]:
        """``(epochs done, latest metric or None)``; the first is a fraction."""
        done, metric = self._progress
        for kind, values in self._followed.news():
            if kind == "train_inner":
                done = float(values["update"])  # in epochs, although its name says otherwise
            elif kind == "valid":
                done, metric = float(values["epoch"]), self._metric_in(values)
        self._progress = done, metric
        return done, metric


class Log:
    """What fairseq has printed, while it is being written.

    Args:
        path: the file; it may not be there yet.
    """

    def __init__(self, path: Path):
        self.path, self._bytes, self._lines = path, 0, 0

    def news(self) -> Iterator[Record]:
        """``(kind, values)`` of each record behind those that have been read.

        The last line may be torn: it is being written, or its writer was killed.

        Raises:
            ValueError: a record that is not torn cannot be read; the message names file and line.
        """
        if not self.path.exists():
            return
        with open(self.path, "rb") as log:
            log.seek(self._bytes)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                self._bytes, self._lines = self._bytes + len(line), self._lines + 1
                match = RECORD.search(line.decode("utf-8", errors="replace").rstrip("\r\n"))
                if match:
                    try:
                        yield match.group(1), json.loads(match.group(2))
                    except ValueError as error:
                        message = f"{self.path}, line {self._lines}: damaged record ({error})"
                        raise ValueError(message) from None


def continued(first: list[dict], curve: list[dict]) -> list[dict]:
    """The ``curve`` of a continuation, from the best point of the ``first`` run on."""
    # Of equally good epochs fairseq keeps the last.
    start = max(first, key=lambda point: (point["metric"], point["epoch"]))
    return [start, *({**point, "updates": start["updates"] + point["updates"]} for point in curve)]


def _whole_last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What ``checkpoint_last.pt`` holds; one that cannot be read is replaced, or removed.

    fairseq writes one file in one piece and copies it to the others: killed in between, the last is broken
    and the best is the newest.
    """
    last, best = folder / "checkpoint_last.pt", folder / "checkpoint_best.pt"
    if not last.exists():
        return None
    try:
        return torch.load(last, map_location="cpu", weights_only=True)
    except Exception:
        last.unlink()
    if best.exists():
        write_bytes(last, best.read_bytes())
        return torch.load(last, map_location="cpu", weights_only=True)
    return None


def _updates_of(checkpoint: dict[str, Any] | None) -> int:
    return checkpoint["optimizer_history"][-1]["num_updates"] if checkpoint else 0


def fairseq_command(name: str, arguments: list[str], log: Path) -> None:
    """Run a short fairseq command to its end; its output goes to the file ``log``.

    Raises:
        RuntimeError: it failed; the message holds the end of its output.
    """
    log.unlink(missing_ok=True)
    process = start(f"fairseq_cli.{name}", arguments, log)
    try:
        code = process.wait()
    finally:
        stop(process)
    if code != 0:
        raise failure(f"fairseq-{name} failed", log)


def train_together(runs: list[TrainingRun], console: Console, at_once: int = 2) -> None:
    """Train all ``runs``, ``at_once`` side by side, with a progress bar each; finished ones are left alone.

    Raises:
        RuntimeError: one failed (the others are stopped); the message holds the end of its log.
    """
    waiting = [run for run in runs if not run.finished]
    with _bars(console) as bars:
        follow = {run.folder: bars.add_task(run.name, total=run.epochs, metric="") for run in waiting}
        running: list[TrainingRun] = []
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    run = waiting.pop(0)
                    run.start()
                    if not run.finished:
                        running.append(run)
                time.sleep(POLL_SECONDS)
                _update(bars, follow, running)
                running = [run for run in running if not _ended(run)]
        finally:
            for run in running:
                stop(run.process)


def _ended(run: TrainingRun) -> bool:
    """Whether the process has ended; marks the run finished. Raises RuntimeError if it failed."""
    code = run.process.poll()
    if code is None:
        return False
    stop(run.process)
    if code != 0:
        raise failure(f"fairseq-train failed ({run.name})", run.log)
    run.finish()
    return True


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("epoch {task.completed:4.1f} of {task.total}"),
        TextColumn("{task.fields[metric]}"),
        TimeElapsedColumn(),
        console=console,
        refresh_per_second=REFRESHES_A_SECOND,
    )


def _update(bars: Progress, follow: dict, runs: list[TrainingRun]) -> None:
    for run in runs:
        done, metric = run.progress()
        text = "" if metric is None else f"dev {run.metric} {metric:.2f}"
        if text and not bars.console.is_terminal and bars.tasks[follow[run.folder]].fields["metric"] != text:
            bars.console.print(f"{run.name}: epoch {done:.0f} of {run.epochs}, {text}")
        bars.update(follow[run.folder], completed=done, metric=text)
