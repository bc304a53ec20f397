"""A parser with few trees learns from the labels of an end task, through its hard trees, on real data.

A tagger of CCG categories reads each word with its head, its children and its grandparent in the trees of a
parser that has seen 300 trees of other sentences. Both are trained on; what differs is what comes back
through the trees::

    python -m examples.papers.teach_parser --data DIR
    python -m examples.papers.teach_parser --quick       # a minute, a generated language, no data needed

What is finished is not run again: the same command, or one with more seeds, goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from diffdecode.files.atomic import write_json
from diffdecode.files.claim import claim
from examples._shared.commands import add_device, add_out, one_line_errors
from examples._shared.data import data_folder
from examples._shared.spacy_training import numpy_products, use_device
from examples._shared.tables import save_markdown
from examples.papers.teach_parser import report
from examples.papers.teach_parser.systems import (
    NO_TREES,
    PIPELINE,
    SYSTEMS,
    WIDTHS,
    Cell,
    Laboratory,
    Settings,
)

TUNING_SEED = 1000
"""The draw, the start and the training with which settings are chosen; no seed of the table is like it."""
MAIN = (NO_TREES, PIPELINE, "structured_st")
"""The systems of which there is to be something to say; the others are run to be looked at."""
QUICK = {"sentences": 600, "steps": 60, "start_steps": 40, "warm_steps": 10, "words": 350}
QUICK_TREES, QUICK_RATE = 100, 0.008


@one_line_errors("teach_parser")
def main(argv: list[str] | None = None) -> None:
    """The command; what an earlier call has finished is not done again."""
    args = arguments(argv)
    use_device(args.device)
    with numpy_products(args.device):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    settings = _settings(args)
    claim(args.out, settings.recorded())
    laboratory = Laboratory(args.out, settings)
    console = Console(stderr=True)
    cells = [
        Cell(encoder=encoder, trees=trees, system=system, seed=seed, **tuned)
        for encoder in args.encoders
        for trees in args.trees
        for system, tuned in _tuned(laboratory, args, encoder, trees, console).items()
        for seed in range(args.seeds if system in MAIN else args.other_seeds)
    ]
    cells.sort(key=lambda cell: cell.seed)
    rows = []
    for number, cell in enumerate(cells, 1):
        console.print(f"[{number}/{len(cells)}] {cell}", highlight=False, markup=False)
        rows.append(laboratory.run(cell) | (laboratory.given(cell, args.test) if args.test else {}))
    _report(laboratory, cells, rows, args)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.papers.teach_parser",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, default = parser.add_argument, Settings(data=None)
    add("--data", type=Path, default=data_folder(), help="folder with ud_english_ewt and ccg_ewt")
    add("--test", type=Path, help="a file of words and categories to report on besides dev, at the end")
    add("--quick", action="store_true", help="small, and on a generated language: needs no data")
    add("--trees", type=int, nargs="+", default=[300], help="sentences with a tree")
    add("--encoders", nargs="+", choices=WIDTHS, default=["word"], help="what a tagged word's vector sees")
    add("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    add("--seeds", type=int, default=5, help=f"runs of {', '.join(MAIN)}")
    add("--other-seeds", type=int, default=1, help="runs of the other systems")
    add("--sentences", type=int, default=default.sentences, help="sentences with tags")
    add("--steps", type=int, default=default.steps, help="of the joint training")
    add("--words", type=int, default=default.words, help="tagged words in a step; a quarter more have a tree")
    add("--start-steps", type=int, default=default.start_steps, help="of the parser before, alone")
    add("--learn-rates", type=float, nargs="+", default=[0.004], help="several: the best for each system")
    add("--grad-factors", type=float, nargs="+", default=[0.75], help="several: the best for each system")
    add("--parser-lstm", type=int, default=0, help="width of a BiLSTM in the parser; 0 for none")
    add("--vectors", help="a pipeline with word vectors (python -m spacy init vectors)")
    add_out(parser, "runs/spacy-teach")
    add_device(parser, "cpu")
    args = parser.parse_args(argv)
    for name in ("trees", "sentences", "seeds", "other_seeds", "steps", "words", "start_steps"):
        values = getattr(args, name)
        if min(values if isinstance(values, list) else [values]) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if args.quick:
        args.trees, args.seeds, args.learn_rates = [QUICK_TREES], 1, [QUICK_RATE]
    return args


def _settings(args: argparse.Namespace) -> Settings:
    settings = Settings(
        data=None if args.quick else args.data,
        sentences=args.sentences,
        steps=args.steps,
        words=args.words,
        start_steps=args.start_steps,
        vectors=args.vectors,
        parser_lstm=args.parser_lstm,
    )
    return replace(settings, **QUICK) if args.quick else settings


def _tuned(
    laboratory: Laboratory, args: argparse.Namespace, encoder: str, trees: int, console: Console
) -> dict[str, dict[str, float]]:
    """For each system the settings of the grid that are best on sentences kept aside, with one more seed."""
    best = {}
    for system in args.systems:
        factors = [0.0] if system in (NO_TREES, PIPELINE) else args.grad_factors
        grid = [{"learn_rate": r, "grad_factor": f} for r in args.learn_rates for f in factors]
        tried = []
        for point in grid if len(grid) > 1 else ():
            cell = Cell(encoder=encoder, trees=trees, system=system, seed=TUNING_SEED, **point)
            console.print(f"tuning: {cell}, {point}", highlight=False, markup=False)
            tried.append((laboratory.run(cell)["aside"], point))
        best[system] = max(tried, key=lambda pair: pair[0])[1] if tried else grid[0]
    return best


def _report(
    laboratory: Laboratory, cells: list[Cell], rows: list[dict[str, Any]], args: argparse.Namespace
) -> None:
    """Table, picture, changed trees, and all of it as JSON."""
    out, command = args.out, shlex.join(["python", "-m", "examples.papers.teach_parser", *sys.argv[1:]])
    about = {"date": date.today().isoformat(), "command": command, **laboratory.settings.recorded()}
    write_json(out / "results.json", {"about": about, "rows": rows})
    report.record(rows).leave(out)
    parts = [f"{about['date']}, `{command}`", "", report.tables(rows)]
    for cell in cells:
        if cell.seed == 0 and cell.system not in (NO_TREES, PIPELINE) and PIPELINE in args.systems:
            pipeline = next(c for c in cells if _same_but_system(c, cell) and c.system == PIPELINE)
            parts += _changed(laboratory, pipeline, cell)
    save_markdown(out / "table.md", "\n".join(parts))
    report.plot(out / "results.png", rows)


def _same_but_system(one: Cell, other: Cell) -> bool:
    return (one.encoder, one.trees, one.seed) == (other.encoder, other.trees, other.seed)


def _changed(laboratory: Laboratory, pipeline: Cell, cell: Cell) -> list[str]:
    gold = laboratory.dev() / "trees.spacy"
    before, after = (laboratory.folder(each) / "parsed.spacy" for each in (pipeline, cell))
    changed = report.changes(before, after, gold)
    page = laboratory.folder(cell) / "changed_trees.html"
    report.draw(page, changed)
    title = f"{len(changed.diff):,} of {len(changed.sentences):,} dev trees are not those of the pipeline"
    return [f"{cell}: {title} (drawn in {page}).", "", report.changed_arcs(changed)]


if __name__ == "__main__":
    main()
