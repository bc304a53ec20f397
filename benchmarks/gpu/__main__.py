"""Everything that needs a CUDA device, proved and measured: ``python -m benchmarks.gpu`` (``make gpu``).

The stages are the tests with the mark ``gpu`` and four measurements. Each runs in a process of its own with a
time limit, in all less than nine minutes; one that fails or takes too long stops no other. What a stage found
is written to ``benchmarks/results/gpu-CARD/`` table by table, and one that came to its end is not run again
unless it is named or ``--again`` is given. Without a card nothing is done; ``--rehearse`` runs the
measurements on the CPU, with tiny sizes, and writes to ``--out`` only.
"""

import argparse
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import torch

from benchmarks._measure import RESULTS
from benchmarks.gpu.card import Card
from benchmarks.gpu.report import markdown, plot
from diffdecode.files.atomic import read_json, write_json, write_text

STAGES = {"tests": 150, "structure": 110, "sequence": 60, "fairseq": 110, "spacy": 100}
"""Seconds that each may take."""
MODULES = {
    "structure": "benchmarks.gpu.structure",
    "sequence": "benchmarks.gpu.sequence",
    "fairseq": "benchmarks.gpu.fairseq_criterions",
    "spacy": "benchmarks.gpu.spacy_parsers",
}


def main(arguments: list[str] | None = None) -> int:
    """The command.

    Args:
        arguments: those of the command line by default.

    Returns:
        The exit status: 1 if a stage failed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--again", action="store_true", help="also stages that have their results")
    parser.add_argument("--rehearse", action="store_true", help="the measurements on the CPU, tiny")
    parser.add_argument("--out", type=Path, help="where results go (default: benchmarks/results/gpu-CARD)")
    parser.add_argument(
        "--measure", action="store_true", help=argparse.SUPPRESS
    )  # the one stage, in this process
    options = parser.parse_args(arguments)
    if unknown := set(options.stages) - set(STAGES):
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if options.rehearse and options.out is None:
        parser.error("--rehearse writes no results of a card: name another folder with --out")
    card = Card.found(options.rehearse)
    if card is None:
        print("nothing done: there is no CUDA device (--rehearse runs the measurements on the CPU)")
        return 0
    out = options.out or RESULTS / f"gpu-{re.sub('[^A-Za-z0-9]+', '-', card.name).strip('-')}"
    out.mkdir(parents=True, exist_ok=True)
    if options.measure:
        (stage,) = options.stages
        return _measure(stage, card, out)
    chosen = options.stages or [stage for stage in STAGES if options.again or not _is_complete(out, stage)]
    failed = [stage for stage in chosen if not _run(stage, options.rehearse, out)]
    _report(out)
    print(f"{'failed: ' + ', '.join(failed) if failed else 'all stages passed'}; results in {out}")
    return int(bool(failed))


def _run(stage: str, rehearse: bool, out: Path) -> bool:
    """Run a stage in its own process, its output in a log."""
    own = [sys.executable, "-m", "benchmarks.gpu", stage, "--measure", "--out", str(out)]
    command = [*own, *(["--rehearse"] if rehearse else [])]
    start, environment = time.perf_counter(), {**os.environ, "OMP_NUM_THREADS": "1"}
    together = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": environment}
    try:
        done = subprocess.run(command, timeout=STAGES[stage], **together)
        status, output = f"failed with status {done.returncode}" if done.returncode else "passed", done.stdout
    except subprocess.TimeoutExpired as late:
        status, output = f"took longer than {STAGES[stage]} s", late.stdout or b""
    write_text(out / f"{stage}.log", output.decode(errors="replace"))
    print(f"{stage}: {status} after {time.perf_counter() - start:.0f} s", flush=True)
    return status == "passed"


def _measure(stage: str, card: Card, out: Path) -> int:
    """One stage in this process; each table is written as soon as it is there."""
    about = {
        "card": card.name,
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
    tables: dict[str, list[dict]] = {}
    if stage == "tests":
        if card.is_real:
            # The CPU's kernels, which the card's are compared with: once, and not in each worker.
            subprocess.run([sys.executable, "-m", "diffdecode.compile"], check=False)
            workers = ["-n", "logical"] if importlib.util.find_spec("xdist") else []
            command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *workers]
            # Where a framework is missing, its tests fail, and the others are run.
            command += ["--continue-on-collection-errors", *files_for_a_card()]
            if status := subprocess.run(command).returncode:
                return status
        tables = {"pytest -m gpu": [{"what": "passed" if card.is_real else "needs a card"}]}
    else:
        for what, rows in importlib.import_module(MODULES[stage]).measure(card):
            tables[what] = rows
            print(markdown(stage, {what: rows}), flush=True)
            write_json(out / f"{stage}.json", {"about": about, "complete": False, "tables": tables})
    complete = not any("failed" in one for rows in tables.values() for one in rows)
    write_json(out / f"{stage}.json", {"about": about, "complete": complete, "tables": tables})
    return int(not complete)


def _is_complete(out: Path, stage: str) -> bool:
    """Whether the stage came to its end, and nothing in it failed."""
    path = out / f"{stage}.json"
    return path.exists() and read_json(path)["complete"]


def files_for_a_card() -> list[str]:
    """Files of tests with the mark ``gpu``, or the fixture that gives it; importing the others takes long."""
    files = sorted(Path("tests").rglob("test_*.py"))
    return [str(file) for file in files if re.search(r"mark\.gpu\b|\(accelerator\b", file.read_text("utf-8"))]


def _report(out: Path) -> None:
    """The tables of all stages that have results, and a plot of their ratios."""
    found = {stage: read_json(out / f"{stage}.json") for stage in STAGES if (out / f"{stage}.json").exists()}
    if not found:
        return
    about = next(iter(found.values()))["about"]
    lines = [
        f"# {about['card']}\n",
        f"torch {about['torch']}, {about['date']}; the first row of its kind is 1.\n",
    ]
    tables = {stage: result["tables"] for stage, result in found.items()}
    write_text(out / "tables.md", "\n".join([*lines, *(markdown(*pair) for pair in tables.items())]))
    if any(one.get("ratio") for of_stage in tables.values() for rows in of_stage.values() for one in rows):
        plot(tables, out / "ratios.png")


if __name__ == "__main__":
    sys.exit(main())
