"""The runner of experiments with fairseq: systems from the same starts, tuned by one grid, in one table.

An experiment declares its systems, the searches that decode them, and its material (data, model and score).
What is common to all is here:

1. A system continues the best checkpoint of another one, or starts from random weights; its learning rate
   decays to 0 over its epochs. Systems of as many epochs are compared at equal updates; beside them stands
   cross entropy for as many epochs as the dearest of them takes in CPU time.
2. Part of the training data is kept aside, and all that is chosen is chosen by it. With the first seed every
   system is given each pair of ``--lr`` and ``--dropout``, and keeps the best for all seeds.
3. Each is decoded by every search; where a search is ``tuned``, by the lambda of the local scores
   ``logit - lambda log Z`` that is best for the system on what is kept aside.

After each seed it writes ``results.json`` (all numbers, what was chosen, the exact commands of fairseq),
``table.md`` with the paper's figures beside, ``curves.png``, ``verdict.txt`` (differences seed by seed, with
a paired bootstrap over the sentences) and ``record.json``. Killed at any moment, the same command goes on
where it was; seeds and systems can be added.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import numpy as np
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.options import get_training_parser, parse_args_and_arch
from fairseq.tasks import setup_task
from rich.console import Console

import fairseq_plugins
from diffdecode.files.atomic import write_text
from examples._shared.commands import Help, add_experiment, device, fairseq_device, one_line_errors
from examples._shared.records import Record, by_seed, typed
from examples._shared.tables import save_table
from examples.papers._results import Interval, beside_paper, intervals_of, verdict
from fairseq_plugins.comparison import (
    Decoding,
    Row,
    TrainingRun,
    claim,
    decode,
    plot,
    train_together,
    write_json,
)
from fairseq_plugins.comparison.runs import continued

USER_DIR = str(Path(fairseq_plugins.__file__).parent)
START = "cross entropy"
VALIDATIONS = 2  # of each run: the learning rate ends at 0, so that epochs differ little
MAY_CHANGE = ("out", "seeds", "systems", "lambdas", "lr", "dropout", "test")  # when a run is taken up again
Point = tuple[float, float]
"""Of the grid: learning rate and dropout."""


@dataclass(frozen=True)
class System:
    """One way of training.

    Attributes:
        name: what the table calls it.
        folder: of its runs, and its name on the command line.
        epochs: how many, times ``--scale``.
        options: of fairseq-train: the criterion, and how validation decodes.
        after: the system that it continues; None for random weights.
        rate: factor on the learning rates of the grid.
    """

    name: str
    folder: str
    epochs: int
    options: str
    after: str | None = START
    rate: float = 1.0


@dataclass(frozen=True)
class Search:
    """One way of decoding, a column of the table.

    Attributes:
        heading: what the table calls it.
        beam: its size.
        options: of fairseq-generate.
        tuned: whether each system has a lambda of its own; otherwise it is 1.
    """

    heading: str
    beam: int
    options: str = ""
    tuned: bool = False


class Material(ABC):
    """Data, model and score of an experiment.

    Attributes:
        metric: what validation is reported by.
        other_measures: headings of what ``others`` measures.
    """

    metric: str
    other_measures: tuple[str, ...] = ()

    @abstractmethod
    def add_options(self, add: Callable[..., object]) -> None:
        """Sizes, to the command line."""

    @abstractmethod
    def quick(self, args: argparse.Namespace) -> None:
        """Make them small, and ``data`` None: generated."""

    @abstractmethod
    def prepare(self, args: argparse.Namespace, console: Console) -> None:
        """Binarise ``train``, ``valid`` (kept aside) and ``test`` (dev) below ``out``, unless it is done."""

    @abstractmethod
    def prepare_test(self, args: argparse.Namespace, console: Console) -> None:
        """The same for the file ``--test``, by the dictionaries that there are."""

    @abstractmethod
    def train(self, args: argparse.Namespace) -> list[str]:
        """Options of fairseq-train: data, task, model, batches."""

    @abstractmethod
    def generate(self, args: argparse.Namespace, split: str) -> list[str]:
        """Options of fairseq-generate for ``valid``, ``test`` or ``given`` (``--test``)."""

    @abstractmethod
    def parts(self, args: argparse.Namespace, split: str, written: Path) -> np.ndarray:
        """Counts of each sentence that fairseq-generate has written, ``[N, P]``; their sum has the score."""

    @abstractmethod
    def score(self, parts: np.ndarray) -> np.ndarray:
        """In percent, of sums of counts ``[..., P]``."""

    def others(self, args: argparse.Namespace, split: str, written: Path) -> dict[str, float]:
        """Other measures of what fairseq-generate has written, by heading: columns for the main search."""
        return {}


@dataclass(frozen=True)
class Experiment:
    """A table of a paper.

    Attributes:
        module: its name; the module's docstring is the help.
        about: what the help says.
        material: its data, model and score.
        systems: in the order of the table, each behind the one that it continues.
        searches: the columns.
        main: heading of the column by which systems are compared.
        pairs: names of systems whose difference is told.
        data: folder below the data folder.
        seeds: how many, if not said.
        rates, dropouts, lambdas: the grid.
        quick: folders of the systems that ``--quick`` runs.
        paper: the paper's figures, by system and heading.
    """

    module: str
    about: str
    material: Material
    systems: tuple[System, ...]
    searches: tuple[Search, ...]
    main: str
    pairs: tuple[tuple[str, str], ...]
    data: str
    quick: tuple[str, ...]
    seeds: int = 5
    rates: tuple[float, ...] = (0.004, 0.008)
    dropouts: tuple[float, ...] = (0.3,)
    lambdas: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    paper: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the module."""
        return self.module.rpartition(".")[2]

    def argument_parser(self) -> argparse.ArgumentParser:
        """The command line."""
        parser = argparse.ArgumentParser(
            prog=f"python -m {self.module}",
            description=self.about,
            formatter_class=Help,
        )
        add = parser.add_argument
        add_experiment(parser, self.name, self.seeds, self.data)
        folders = [system.folder for system in self.systems]
        add("--systems", nargs="+", choices=folders, metavar="SYSTEM", help=f"of {', '.join(folders)}")
        add("--lr", type=float, nargs="+", default=self.rates, help="learning rates: the grid")
        add("--dropout", type=float, nargs="+", default=self.dropouts, help="dropouts: the grid")
        add("--lambdas", type=float, nargs="+", default=self.lambdas, help="normalisers: what is chosen from")
        add("--scale", type=float, default=1.0, help="factor on the epochs of all systems")
        self.material.add_options(add)
        return parser

    def arguments(self, argv: list[str] | None) -> argparse.Namespace:
        """Parse the command line; ``systems`` become systems, with those that they continue."""
        args = self.argument_parser().parse_args(argv)
        if args.quick:
            args.seeds, args.scale, args.lr, args.dropout = 1, 0.01, args.lr[:1], args.dropout[:1]
            args.lambdas, args.systems = [0.0, 1.0], args.systems or list(self.quick)
            self.material.quick(args)
        args.device = device(args.device)
        args.systems = self._with_predecessors(args.systems or [system.folder for system in self.systems])
        return args

    def _with_predecessors(self, folders: list[str]) -> list[System]:
        names: set[str | None] = {system.name for system in self.systems if system.folder in folders}
        for system in reversed(self.systems):
            if system.name in names:
                names.add(system.after)
        return [system for system in self.systems if system.name in names]

    def main_program(self, argv: list[str] | None = None) -> None:
        """The command; what an earlier call has finished is not done again."""
        with one_line_errors(self.name, RuntimeError):
            args, console = self.arguments(argv), Console()
            claim(args.out, {name: value for name, value in vars(args).items() if name not in MAY_CHANGE})
            comparison = Comparison(self, args, console)
            for seed in comparison.run():
                comparison.report(seed, argv)


class Comparison:
    """One call of an experiment.

    Args:
        experiment: what is compared.
        args: its command line.
        console: where progress is shown.
    """

    def __init__(self, experiment: Experiment, args: argparse.Namespace, console: Console):
        self.experiment, self.args, self.console = experiment, args, console
        self.rows = {system.name: Row(system.name) for system in args.systems}
        self.points: dict[str, Point] = {}
        self.lambdas: dict[str, list[float]] = {name: [] for name in self.rows}
        self.parts: dict[str, list[np.ndarray]] = {name: [] for name in self.rows}
        """Of the main search, for each seed."""

    def run(self) -> Iterator[int]:
        """Train and decode all systems, a seed after the other; yields those that are done."""
        self.experiment.material.prepare(self.args, self.console)
        if self.args.test:
            self.experiment.material.prepare_test(self.args, self.console)
        for seed in range(1, self.args.seeds + 1):
            runs: dict[str, TrainingRun] = {}
            for number, system in enumerate(self.args.systems, start=1):
                title = f"seed {seed} of {self.args.seeds}, system {number} of {len(self.args.systems)}"
                self.console.rule(f"{title}: {system.name}", align="left")
                start = runs.get(system.after or "")
                runs[system.name] = run = self.trained(system, start, seed)
                self._add(system.name, run, start)
            yield seed

    def trained(self, system: System, start: TrainingRun | None, seed: int) -> TrainingRun:
        """The finished run of a seed; with the first one, the best of the grid."""
        points = itertools.product(self.args.lr, self.args.dropout)
        tried = [self.points[system.name]] if system.name in self.points else list(points)
        runs = {point: self.training_run(system, point, start, seed) for point in tried}
        train_together(list(runs.values()), self.console, at_once=1)
        # Of equals the first.
        best = max(runs, key=lambda point: max(one["metric"] for one in runs[point].curve()))
        self.points[system.name] = best
        return runs[best]

    def training_run(self, system: System, point: Point, start: TrainingRun | None, seed: int) -> TrainingRun:
        """A run whose learning rate decays to 0."""
        epochs = max(1, round(system.epochs * self.args.scale))
        total, interval = str(epochs * self.updates_per_epoch), str(max(1, epochs // VALIDATIONS))
        command = [
            *self.common,
            *system.options.split(),
            *(["--finetune-from-model", str(start.best)] if start else []),
            *["--lr-scheduler", "polynomial_decay", "--total-num-update", total, "--max-update", total],
            *["--validate-interval", interval, "--save-interval", interval, "--seed", str(seed)],
            *["--lr", f"{point[0] * system.rate:g}", "--dropout", f"{point[1]:g}"],
        ]
        # In the folder of its start: were another one chosen, what has continued this one does not count.
        below = start.folder if start else self.args.out / f"seed{seed}"
        folder = below / f"{system.folder}-lr{point[0]:g}-dropout{point[1]:g}"
        name = f"{system.name}, lr {point[0]:g}"
        return TrainingRun(name, folder, command, epochs, self.experiment.material.metric)

    @property
    def common(self) -> list[str]:
        """Options of fairseq-train that all runs share."""
        metric = self.experiment.material.metric
        return [
            *self.experiment.material.train(self.args),
            *["--user-dir", USER_DIR, "--optimizer", "adam", "--clip-norm", "1", "--num-workers", "0"],
            *["--best-checkpoint-metric", metric, "--maximize-best-checkpoint-metric"],
            *["--no-epoch-checkpoints", "--log-format", "json", "--log-interval", "10"],
            *fairseq_device(self.args.device),
        ]

    @functools.cached_property
    def updates_per_epoch(self) -> int:
        """Batches of the training set, on which the decay of the learning rate depends."""
        command = [*self.common, "--criterion", "cross_entropy"]
        cfg = convert_namespace_to_omegaconf(parse_args_and_arch(get_training_parser(), command))
        task = setup_task(cfg.task)
        task.load_dataset("train")
        batches = task.get_batch_iterator(
            task.dataset("train"),
            max_tokens=cfg.dataset.max_tokens,
            required_batch_size_multiple=cfg.dataset.required_batch_size_multiple,
        )
        return len(batches)

    def _add(self, name: str, run: TrainingRun, start: TrainingRun | None) -> None:
        """Decode one run for its row of the table."""
        row, searches = self.rows[name], self.experiment.searches
        main = next(search for search in searches if search.heading == self.experiment.main)
        tried = self.args.lambdas if any(search.tuned for search in searches) else [1.0]
        best = max(tried, key=lambda one: self.decoded(run, main, "valid", one)[0])
        self.lambdas[name].append(best)
        material = self.experiment.material
        for split, prefix in (("test", ""), *((("given", "test: "),) if self.args.test else ())):
            scores = {}
            for search in searches:
                scores[search.heading], written = self.decoded(
                    run, search, split, best if search.tuned else 1.0
                )
                if search is main:
                    scores |= material.others(self.args, split, written)
                    if split == "test":
                        self.parts[name].append(material.parts(self.args, split, written))
            for heading, score in scores.items():
                row.scores.setdefault(f"{prefix}{heading}", []).append(score)
        curve = run.curve()
        row.updates.append(curve[-1]["updates"])
        row.cpu_seconds.append(run.cpu_seconds())
        row.curves.append(continued(start.curve(), curve) if start else curve)
        row.commands.append(run.command)

    def decoded(self, run: TrainingRun, search: Search, split: str, normalizer: float) -> tuple[float, Path]:
        """The score of a run and what fairseq-generate has written for it; decoded once."""
        material = self.experiment.material
        options = [*search.options.split(), "--beam", str(search.beam)]
        options += ["--score-normalizer", f"{normalizer:g}"]
        key = "".join(options).replace("--", "-")
        decoding = Decoding(f"{split}{key}", f"{split}, {search.heading}", tuple(options))

        def written() -> Path:
            (path,) = (run.folder / decoding.key).glob("generate-*.txt")
            return path

        with self.console.status(f"decoding: {run.name}, {decoding.heading}, lambda {normalizer:g}"):
            score = decode(
                run,
                decoding,
                [
                    *material.generate(self.args, split),
                    *["--user-dir", USER_DIR, "--no-progress-bar"],
                    *fairseq_device(self.args.device),
                ],
                lambda _: float(material.score(material.parts(self.args, split, written()).sum(0))),
            )
        return score, written()

    def report(self, seed: int, argv: list[str] | None) -> None:
        """Show and write all that is known after a seed."""
        rows, out, experiment = list(self.rows.values()), self.args.out, self.experiment
        counts = {name: np.stack(parts) for name, parts in self.parts.items()}
        intervals = intervals_of(experiment.pairs, counts, experiment.material.score)
        seeds = list(range(1, seed + 1))
        about = {"measure": experiment.material.metric, "split": "dev", "seeds": seeds}
        about |= {"lambda": self.lambdas, "learning rate and dropout": self.points}
        about |= {"paper": experiment.paper, "intervals": intervals}
        write_json(rows, about, out / "results.json")
        plot(rows, experiment.material.metric, out / "curves.png")
        save_table(out / "table.md", *self.table(seeds))
        text = verdict(experiment.main, {row.name: row.scores for row in rows}, intervals)
        write_text(out / "verdict.txt", text + "\n")
        print(text)
        self.record(argv, seeds, intervals).leave(out)

    def table(self, seeds: list[int]) -> tuple[str, list[str], list[list[str]]]:
        """Caption, header and rows, scores beside the paper's figures."""
        header, body = beside_paper(
            {row.name: row.scores for row in self.rows.values()}, self.experiment.paper
        )
        for cells, (name, row) in zip(body, self.rows.items()):
            seconds = [one for one in row.cpu_seconds if one is not None]
            cells.insert(0, name)
            cells += [f"{mean(row.updates):,.0f}", f"{mean(seconds):.0f}" if seconds else "?"]
        caption = (
            f"{self.experiment.name}: {self.experiment.material.metric} on dev, percent, seeds "
            f"{', '.join(map(str, seeds))} (mean ± standard deviation). Paper: on dev, of other data."
        )
        others = [heading for heading in header if heading in self.experiment.material.other_measures]
        if others:
            caption += f" {' and '.join(others)}: of {self.experiment.main}."
        return caption, ["trained with", *header, "updates", "CPU s"], body

    def record(self, argv: list[str] | None, seeds: list[int], intervals: dict[str, Interval]) -> Record:
        """Every score of every seed that is done."""
        rows = list(self.rows.values())
        return Record(
            self.experiment.module,
            typed(self.experiment.module, argv),
            dict.fromkeys(rows[0].scores, 1),
            {row.name: {h: by_seed(values, seeds) for h, values in row.scores.items()} for row in rows},
            {
                row.name: mean(known)
                for row in rows
                if (known := [one for one in row.cpu_seconds if one is not None])
            },
            intervals={self.experiment.main: {pair: list(ends) for pair, ends in intervals.items()}},
        )
