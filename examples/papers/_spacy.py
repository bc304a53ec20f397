"""The runner of experiments with spaCy: an end task over a parser, trained in several ways, in one table.

An experiment declares its systems, its data and its scores. What is common to all is here:

1. All systems of a seed begin with the same weights and read the same batches; learning rates go down to 0,
   and the last step counts, so that nothing is chosen by dev. A system without a parser takes as many steps
   as give it as many words of the end task. The table has the CPU time of all.
2. Of the end task's training data, a tenth is kept aside. With the first seed every system is given each
   ``--learn-rates`` and, if it sends a gradient back, each ``--grad-factors``, and keeps what is best on
   what is kept aside.

After each seed it writes ``results.json``, ``table.md`` with the paper's figures beside, ``scores.png``,
``verdict.txt`` (differences seed by seed, with a paired bootstrap over the sentences) and ``record.json``.
Killed at any moment, the same command goes on with the training that was killed; seeds and systems can be
added.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import spacy
from rich.console import Console
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.vocab import Vocab

from diffdecode.files.atomic import write_bytes, write_json, write_text
from diffdecode.files.claim import claim
from examples._shared.commands import Help, add_experiment, one_line_errors
from examples._shared.pictures import save_scatter
from examples._shared.records import Record, by_seed, typed
from examples._shared.runs import done_once
from examples._shared.spacy_training import (
    LAST,
    learn_rate,
    numpy_products,
    train_from_scratch,
    use_device,
)
from examples._shared.tables import save_table
from examples.papers._results import beside_paper, intervals_of, verdict
from spacy_components.cli.convert_sdp import convert
from spacy_components.training.corpus import create_corpus

MAY_CHANGE = ("out", "seeds", "systems", "learn_rates", "grad_factors", "test", "data")
ASIDE = 10  # one of so many
Overrides = dict[str, Any]


@dataclass(frozen=True)
class System:
    """One way of training.

    Attributes:
        name: what the table and the command line call it.
        overrides: what is special about its config.
        sends: whether a gradient goes back, whose factor is to be tuned.
        alone: whether it reads nothing but the end task's words, and so takes fewer steps.
    """

    name: str
    overrides: Overrides
    sends: bool = True
    alone: bool = False

    @property
    def file_name(self) -> str:
        """What its files and folders are called by."""
        return self.name.replace(" ", "_")


@dataclass(frozen=True)
class Experiment:
    """A table of a paper.

    Attributes:
        module: its name.
        about: what the help says.
        config: of all systems.
        systems: in the order of the table.
        component: the parser, whose ``grad_factor`` is tuned.
        files: makes the data below ``out``, by name.
        common: of all systems, from the command line and the files.
        share: of the end task's words among all words of a step, from the files.
        dev: names of the files that scores are taken on; the first is the end task's.
        scores: heading of each of spaCy's scores.
        aside: spaCy's score that chooses.
        counts: of an example of the end task.
        score: in percent, of sums of counts ``[..., P]``.
        pairs: names of systems whose difference is told.
        add_options: sizes, to the command line.
        quick: makes them small.
        quick_systems: those that ``--quick`` trains.
        start: what makes the component's training alone, before all; None: all is trained from scratch. Its
            steps and learning rate are ``--start-steps`` and ``--start-rate``.
        seeds: how many, if not said.
        paper: the paper's figures, by system and heading.
        paper_data: what they are of.
        data: folder below the data folder.
    """

    module: str
    about: str
    config: Path
    systems: tuple[System, ...]
    component: str
    files: Callable[[argparse.Namespace], dict[str, str]]
    common: Callable[[argparse.Namespace, dict[str, str]], Overrides]
    share: Callable[[dict[str, str]], float]
    dev: tuple[str, ...]
    scores: dict[str, str]
    aside: str
    counts: Callable[[Example], tuple[int, ...]]
    score: Callable[[np.ndarray], np.ndarray]
    pairs: tuple[tuple[str, str], ...]
    add_options: Callable[[argparse.ArgumentParser], None]
    quick: Callable[[argparse.Namespace], None]
    quick_systems: tuple[str, ...]
    start: Callable[[dict[str, str]], Overrides] | None = None
    seeds: int = 3
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    paper_data: str = ""
    data: str = "."

    @property
    def name(self) -> str:
        """The last part of the module."""
        return self.module.rpartition(".")[2]

    @property
    def main(self) -> str:
        """Heading of the end task's score."""
        return self.scores[self.aside]

    def argument_parser(self) -> argparse.ArgumentParser:
        """The command line."""
        parser = argparse.ArgumentParser(
            prog=f"python -m {self.module}",
            description=self.about,
            formatter_class=Help,
        )
        add = parser.add_argument
        add_experiment(parser, self.name, self.seeds, self.data)
        add("--systems", nargs="+", choices=[system.name for system in self.systems], metavar="SYSTEM")
        add("--learn-rates", type=float, nargs="+", default=[0.002], help="the grid")
        add("--grad-factors", type=float, nargs="+", default=[0.1, 0.5], help="the grid")
        self.add_options(parser)
        return parser

    def arguments(self, argv: list[str] | None) -> argparse.Namespace:
        """Parse the command line."""
        args = self.argument_parser().parse_args(argv)
        wanted = args.systems
        if args.quick:
            args.seeds, args.grad_factors, args.data = 1, args.grad_factors[:1], None
            wanted = wanted or self.quick_systems
            self.quick(args)
        args.systems = [system for system in self.systems if not wanted or system.name in wanted]
        return args

    def main_program(self, argv: list[str] | None = None) -> Comparison:
        """The command; what an earlier call has finished is not done again."""
        with one_line_errors(self.name):
            args = self.arguments(argv)
            use_device(args.device)
            claim(args.out, {name: value for name, value in vars(args).items() if name not in MAY_CHANGE})
            with numpy_products(args.device):
                comparison = Comparison(self, args)
                for seed in comparison.run():
                    comparison.report(seed, argv)
            return comparison


class Comparison:
    """One call of an experiment.

    Args:
        experiment: what is compared.
        args: its command line.
    """

    def __init__(self, experiment: Experiment, args: argparse.Namespace):
        self.experiment, self.args = experiment, args
        self.files = experiment.files(args)
        self.results: dict[str, list[dict[str, Any]]] = {system.name: [] for system in args.systems}
        self.points: dict[str, tuple[float, float]] = {}

    def run(self) -> Iterator[int]:
        """Train all systems, a seed after the other; yields those that are done."""
        console = Console(stderr=True)
        for seed in range(self.args.seeds):
            for number, system in enumerate(self.args.systems, start=1):
                title = f"seed {seed}, system {number} of {len(self.args.systems)}: {system.name}"
                console.rule(title, align="left")
                self.results[system.name].append(self.trained(system, seed))
            yield seed

    def trained(self, system: System, seed: int) -> dict[str, Any]:
        """The scores of a seed; with the first one, those of the best of the grid."""
        factors = self.args.grad_factors if system.sends else [0.0]
        grid = [(rate, factor) for rate in self.args.learn_rates for factor in factors]
        tried = [self.points[system.name]] if system.name in self.points else grid
        found = {point: self._cell(system, point, seed) for point in tried}
        # Of equals the first.
        best = self.points[system.name] = max(found, key=lambda point: found[point]["aside"])
        return found[best]

    def folder(self, system: System | None, point: tuple[float, float], seed: int) -> Path:
        """Where a pipeline is; that of the start, if there is no system."""
        name = "start" if system is None else system.file_name
        return self.args.out / f"seed{seed}" / f"{name}-{point[0]:g}-{point[1]:g}"

    def pipeline(self, name: str) -> Language:
        """That of the first seed."""
        (system,) = (system for system in self.args.systems if system.name == name)
        return spacy.load(self.folder(system, self.points[name], 0) / LAST)

    def _cell(self, system: System, point: tuple[float, float], seed: int) -> dict[str, Any]:
        rate, factor = point
        share = self.experiment.share(self.files) if system.alone else 1
        steps = max(2, round(self.args.steps * share))
        overrides = {f"components.{self.experiment.component}.grad_factor": factor, **system.overrides}
        settings = self._settings(steps, rate, seed) | overrides
        pipes = settings.get("nlp.pipeline", [self.experiment.component])
        start = self._start(seed) if self.experiment.component in pipes else {}
        folder = self.folder(system, point, seed)

        def work() -> dict[str, Any]:
            began = time.process_time()
            nlp = train_from_scratch(self.experiment.config, folder, settings, start, LAST)
            seconds = time.process_time() - began
            aside = 100 * nlp.meta["performance"][self.experiment.aside]
            return self._scores(nlp) | {"aside": aside, "seconds": seconds}

        result = done_once(folder / "scores.json", _without_folders(settings), work)
        return result | self._given(folder)

    def _given(self, folder: Path) -> dict[str, Any]:
        """What the file ``--test`` says."""
        if not self.args.test:
            return {}
        given = self.args.out / "test.spacy"
        if not given.exists():
            convert(self.args.test, given)

        def work() -> dict[str, Any]:
            found = evaluated(spacy.load(folder / LAST), str(given))[0]
            return {f"test: {self.experiment.main}": 100 * found[self.experiment.aside]}

        return done_once(folder / "test.json", {"test": self.args.test.name}, work)

    def _start(self, seed: int) -> dict[str, Path]:
        """The component trained alone, which all systems of a seed begin with."""
        if self.experiment.start is None:
            return {}
        folder = self.folder(None, (self.args.start_rate, 0.0), seed)
        settings = self._settings(self.args.start_steps, self.args.start_rate, seed)
        settings |= {"nlp.pipeline": [self.experiment.component], **self.experiment.start(self.files)}

        def work() -> dict[str, Any]:
            train_from_scratch(self.experiment.config, folder, settings, wanted=LAST)
            return {}

        done_once(folder / "scores.json", _without_folders(settings), work)
        return {self.experiment.component: folder / LAST}

    def _settings(self, steps: int, rate: float, seed: int) -> Overrides:
        return {
            "system.seed": seed,
            "training.max_steps": steps,
            "training.patience": 0,
            "training.eval_frequency": steps,
            **learn_rate(rate, steps),
            **self.experiment.common(self.args, self.files),
        }

    def _scores(self, nlp: Language) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in self.experiment.dev:
            scores, examples = evaluated(nlp, self.files[name])
            found |= {
                heading: 100 * scores[key]
                for key, heading in self.experiment.scores.items()
                if scores.get(key) is not None
            }
            if name == self.experiment.dev[0]:
                found["counts"] = [self.experiment.counts(example) for example in examples]
        return found

    def report(self, seed: int, argv: list[str] | None) -> None:
        """Show and write all that is known after a seed."""
        experiment, out = self.experiment, self.args.out
        counts = {
            name: np.array([one["counts"] for one in found], float) for name, found in self.results.items()
        }
        intervals = intervals_of(experiment.pairs, counts, experiment.score)
        values = {
            name: {
                heading: [one[heading] for one in found] for heading in found[0] if heading in self.headings
            }
            for name, found in self.results.items()
        }
        seconds = {name: mean(one["seconds"] for one in found) for name, found in self.results.items()}
        about = {"seeds": list(range(seed + 1)), "paper": experiment.paper, "intervals": intervals}
        about |= {"learning rate and grad_factor": self.points, "seconds": seconds, "rows": values}
        write_json(out / "results.json", about)
        save_table(out / "table.md", *self.table(seed, values, seconds))
        second = self.headings[1]
        points = {name: list(zip(v[second], v[experiment.main])) for name, v in values.items() if second in v}
        levels = {name: mean(v[experiment.main]) for name, v in values.items() if second not in v}
        name = experiment.name
        save_scatter(out / "scores.png", second, experiment.main, {name: points}, {name: levels})
        text = verdict(experiment.main, values, intervals)
        write_text(out / "verdict.txt", text + "\n")
        print(text)
        Record(
            experiment.module,
            typed(experiment.module, argv),
            dict.fromkeys(self.headings, 1),
            {name: {h: by_seed(known) for h, known in found.items()} for name, found in values.items()},
            seconds,
            intervals={experiment.main: {pair: list(ends) for pair, ends in intervals.items()}},
        ).leave(out)

    @property
    def headings(self) -> list[str]:
        """Of all columns."""
        given = [f"test: {self.experiment.main}"] if self.args.test else []
        return [*self.experiment.scores.values(), *given]

    def table(
        self, seed: int, values: dict[str, dict[str, list[float]]], seconds: dict[str, float]
    ) -> tuple[str, list[str], list[list[str]]]:
        """Caption, header and rows, scores beside the paper's figures."""
        header, body = beside_paper(values, self.experiment.paper)
        rows = [[name, *cells, f"{seconds[name]:.0f}"] for name, cells in zip(values, body)]
        caption = f"{self.experiment.name}, dev, percent, {seed + 1} seeds (mean ± standard deviation)."
        if self.experiment.paper:
            caption += f" Paper: {self.experiment.paper_data}."
        return caption, ["system", *header, "CPU s"], rows


def evaluated(nlp: Language, path: str) -> tuple[dict[str, Any], list[Example]]:
    """All scores of a pipeline, and the examples with its predictions."""
    examples = list(create_corpus(path)(nlp))
    for example, doc in zip(examples, nlp.pipe([example.predicted for example in examples])):
        example.predicted = doc
    return Scorer(nlp=nlp).score(examples), examples


def made_once(
    args: argparse.Namespace,
    names: tuple[str, ...],
    generate: Callable[[dict[str, Path]], None],
    convert_all: Callable[[argparse.Namespace, dict[str, Path]], None],
) -> dict[str, str]:
    """Files of these names below ``out``, made if the last is not there: generated where there is no data."""
    found = {name: args.out / "data" / f"{name}.spacy" for name in names}
    if not found[names[-1]].exists():
        found[names[-1]].parent.mkdir(parents=True, exist_ok=True)
        if args.data is None:
            generate(found)
        else:
            convert_all(args, found)
    return {name: str(path) for name, path in found.items()}


def generated_sizes(found: dict[str, Path]) -> Iterator[tuple[str, Path, int, int]]:
    """For each file that is to be generated its name, path, number of sentences and seed."""
    for seed, (name, path) in enumerate(found.items()):
        yield name, path, 30 if "dev" in name or name == "aside" else 80, seed


def split_aside(path: Path, train: Path, aside: Path, limit: int = 0) -> None:
    """The first ``limit`` (0: all) documents of a .spacy file, one of ten of them in another."""
    docs = list(DocBin().from_disk(path).get_docs(spacy.blank("en").vocab))[: limit or None]
    save_docs(aside, docs[::ASIDE])
    save_docs(train, [doc for i, doc in enumerate(docs) if i % ASIDE])


def save_docs(path: Path, docs: Iterable[Doc]) -> None:
    """As a .spacy file."""
    write_bytes(path, DocBin(docs=list(docs), store_user_data=True).to_bytes())


def words_in(path: str) -> int:
    """How many words the documents of a .spacy file have."""
    return sum(map(len, DocBin().from_disk(path).get_docs(Vocab())))


def _without_folders(settings: Overrides) -> Overrides:
    """What a result depends on; not where its files lie."""
    return {name: value for name, value in settings.items() if not name.startswith("paths.")}
