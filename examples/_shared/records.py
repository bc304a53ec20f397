"""What an experiment measured, seed by seed, in one form for all experiments (``record.json``)."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from diffdecode.files.atomic import read_json, write_json

Values = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Record:
    """One experiment.

    Attributes:
        experiment: its module, such as ``examples.papers.vae``.
        command: what was typed, less folders.
        measures: what was measured, and whether more of it is better (1) or less (-1).
        systems: for each system and measure, the value of each seed.
        seconds: CPU seconds of a run of each system, if known.
        date: when it ended.
        machine: where.
        intervals: by measure and "one system - another", both ends of the interval of 95 % of the difference,
            from a paired bootstrap over the sentences.
    """

    experiment: str
    command: str
    measures: dict[str, int]
    systems: dict[str, Values]
    seconds: dict[str, float] = field(default_factory=dict)
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())
    machine: str = field(default_factory=lambda: machine())
    intervals: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def leave(self, folder: Path) -> None:
        """Write ``record.json``."""
        write_json(folder / "record.json", asdict(self))

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read one; ValueError names a damaged file."""
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise ValueError(f"{path} is no record ({error})") from None

    def differences(self, system: str, other: str, measure: str) -> list[float]:
        """By how much a system is better than another, for each seed of both."""
        mine, theirs = (self.systems.get(name, {}).get(measure, {}) for name in (system, other))
        return [self.measures[measure] * (mine[seed] - theirs[seed]) for seed in mine if seed in theirs]

    def interval(self, system: str, other: str, measure: str) -> list[float]:
        """That of how much a system is better than another; empty if it was not made."""
        found = self.intervals.get(measure, {})
        if f"{system} - {other}" in found:
            return sorted(self.measures[measure] * end for end in found[f"{system} - {other}"])
        return sorted(-self.measures[measure] * end for end in found.get(f"{other} - {system}", []))


def by_seed(values: Iterable[float], seeds: Iterable[int] | None = None) -> dict[str, float]:
    """``{seed: value}``, as JSON keeps it; seeds count from 0 if none are given."""
    found = list(values)
    return {str(seed): value for seed, value in zip(range(len(found)) if seeds is None else seeds, found)}


def typed(module: str, argv: Sequence[str] | None) -> str:
    """The command of a module, without the folder that its output goes to, and without where data lies."""
    words = list(sys.argv[1:] if argv is None else argv)
    words = ["DIR" if Path(word).is_absolute() else word for word in words]
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return shlex.join(["python", "-m", module, *words])


def machine() -> str:
    """The processor, and how many threads were used."""
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}"


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
