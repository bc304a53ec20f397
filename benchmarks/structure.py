"""Best trees and marginals beside every installed library that has them: CPU time, memory, exactness.

    OMP_NUM_THREADS=1 python -m benchmarks.structure [--sizes 10 20 40 80] [--batch 32] [--seconds 2]

One thread, float32 N(0, 1) scores, full-length sentences, one root word unless said otherwise. The systems
take turns in one process, each for some calls in a row on the next of four batches, and medians of CPU time
are shown, so that a busy machine slows all alike. Conversions to a library's own layout are not timed.
Before being timed, each system's result is compared with ours. Writes
``results/structure-cpu.{json,md,png}``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

import numba
import torch

from benchmarks import _tree_peers as peers
from benchmarks._measure import RESULTS, peak_megabytes, print_peak, save
from benchmarks._tree_peers import System, backward
from diffdecode.files.atomic import atomic_write, write_text
from diffdecode.structure import (
    nonprojective_marginals,
    nonprojective_tree,
    projective_marginals,
    projective_tree,
    tree_scores,
)
from diffdecode.structure.kernels import use_backend

NAME = "structure-cpu"
BATCHES = 4
BLOCK = 0.05
"""Seconds that a system runs for before the next one's turn."""


def our_systems() -> list[System]:
    """diffdecode's numba kernels, and its readable reference in torch."""

    def systems(name: str, backend: str, longest: int) -> list[System]:
        def on_backend(compute):
            def run(scores):
                with use_backend(backend):
                    return compute(scores)

            return run

        computations = {
            peers.PROJECTIVE: projective_tree,
            peers.ANY: nonprojective_tree,
            peers.ANY_MULTI_ROOT: lambda scores: nonprojective_tree(scores, multi_root=True),
            peers.INSIDE_OUTSIDE: lambda scores: projective_marginals(scores)[0],
            peers.BACKWARD: lambda scores: backward(lambda s: projective_marginals(s)[0], scores),
            peers.MATRIX_TREE: lambda scores: nonprojective_marginals(scores)[0],
        }
        return [
            System(name, task, lambda scores: scores, on_backend(compute), lambda result: result, longest)
            for task, compute in computations.items()
        ]

    return systems("diffdecode", "numba", 160) + systems("diffdecode, reference", "reference", 40)


def random_batches(batch: int, n: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(batch, n + 1, n + 1, generator=generator) for _ in range(BATCHES)]


def agrees(system: System, ours: System, scores: torch.Tensor) -> bool:
    """Whether a system's trees are as good as ours, or its marginals the same."""
    theirs = system.result(system.run(system.prepare(scores)))
    expected = ours.run(scores)
    if expected.dim() == 2:
        scores = scores.double()
        return torch.allclose(tree_scores(scores, theirs), tree_scores(scores, expected), rtol=1e-5)
    return torch.allclose(theirs[:, 1:].to(expected), expected[:, 1:], atol=1e-3)


def cpu_seconds(systems: list[System], batch: int, n: int, seconds: float) -> dict[str, dict]:
    """Median CPU and wall seconds of a call, the systems taking turns."""
    batches = random_batches(batch, n)
    ours = systems[0]
    rows = {}
    for system in systems:
        prepared = [system.prepare(scores) for scores in batches]
        right = agrees(system, ours, batches[0])
        start = time.perf_counter()
        system.run(prepared[0])
        calls = max(1, int(BLOCK / (time.perf_counter() - start)))
        row = {"system": system, "prepared": prepared, "calls": calls, "agrees": right, "blocks": []}
        rows[system.name] = row
    stop = time.perf_counter() + seconds * len(systems)
    while time.perf_counter() < stop or len(rows[ours.name]["blocks"]) < 3:
        for row in rows.values():
            row["blocks"].append(_time_block(row["system"], row["prepared"], row["calls"]))
    return {
        name: {
            "cpu": statistics.median(cpu for cpu, _ in row["blocks"]),
            "wall": statistics.median(wall for _, wall in row["blocks"]),
            "calls": row["calls"] * len(row["blocks"]),
            "agrees": row["agrees"],
        }
        for name, row in rows.items()
    }


def _time_block(system: System, prepared: list, calls: int) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    for call in range(calls):
        system.run(prepared[call % BATCHES])
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls


def compare(systems: list[System], sizes: list[int], batch: int, seconds: float) -> list[dict]:
    rows = []
    for task in dict.fromkeys(system.task for system in systems):
        for n in sizes:
            rivals = [s for s in systems if s.task == task and s.longest >= n]
            for name, measured in cpu_seconds(rivals, batch, n, seconds).items():
                rows.append({"task": task, "N": n, "B": batch, "system": name, **measured})
                print(f"{task}, B={batch}, N={n}: {name} {1e3 * measured['cpu']:.3f} ms", flush=True)
    return rows


def exactness(systems: list[System]) -> list[dict]:
    """Largest error of marginals (N = 5) in hard cases, against ours in float64."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(200, 6, 6, generator=generator)
    word = torch.arange(1, 6)
    forbidden = scores.masked_fill(torch.rand(scores.shape, generator=generator) < 0.4, -torch.inf)
    forbidden[:, word, word - 1] = 0.0
    cases = {
        "scale 1": scores,
        "scale 100": scores * 100,
        "scale 300": scores * 300,
        "forbidden arcs": forbidden,
    }
    exact = {peers.INSIDE_OUTSIDE: projective_marginals, peers.MATRIX_TREE: nonprojective_marginals}
    rows = []
    for case, given in cases.items():
        for system in systems:
            if system.task in exact:
                expected = exact[system.task](given.double())[0][:, 1:]
                rows.append({"case": case, "task": system.task, "system": system.name})
                rows[-1]["error"] = _largest_error(system, given, expected)
    return rows


def _largest_error(system: System, scores: torch.Tensor, expected: torch.Tensor) -> str:
    try:
        result = system.result(system.run(system.prepare(scores.clone())))[:, 1:].double()
    except Exception as error:  # a library may fail in its own way; the table says how
        return type(error).__name__
    wrong = result.isnan().flatten(1).any(1).sum().item()
    largest = (result - expected).abs().nan_to_num(0).max().item()
    return f"NaN in {wrong} of {len(result)}" if wrong else f"{largest:.0e}"


def threads_gain(batch: int, sizes: list[int]) -> list[dict]:
    """Wall time of our kernels on one and on two threads, taking turns; the best of 40 blocks."""
    rows = []
    tasks = {peers.PROJECTIVE, peers.ANY, peers.INSIDE_OUTSIDE, peers.MATRIX_TREE}
    for system in [s for s in our_systems() if s.name == "diffdecode" and s.task in tasks]:
        for n in sizes:
            batches = random_batches(batch, n)
            wall = {1: [], 2: []}
            for _ in range(40):
                for threads in wall:
                    torch.set_num_threads(threads)
                    wall[threads].append(_time_block(system, batches, 4)[1])
            one, two = min(wall[1]), min(wall[2])
            one, two = 1e3 * one, 1e3 * two
            rows.append({"task": system.task, "B": batch, "N": n, "one": one, "two": two, "gain": one / two})
    torch.set_num_threads(1)
    return rows


def first_calls() -> list[dict]:
    """CPU seconds of each function's first call, compiled anew and from the cache, in fresh processes."""
    code = (
        "import time, torch; from diffdecode.structure import *; s = torch.randn(2, 5, 5)\n"
        "for f in projective_tree, nonprojective_tree, projective_marginals, nonprojective_marginals:\n"
        "    t = time.process_time(); f(s); print(f.__name__, time.process_time() - t)"
    )
    command = [sys.executable, "-c", code]
    outputs = []
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        for _ in range(2):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            outputs.append(dict(line.split() for line in done.stdout.splitlines()))
    compiled, cached = outputs
    return [{"function": f, "compiled": float(compiled[f]), "cached": float(cached[f])} for f in compiled]


def memory() -> list[dict]:
    """Peak MB of marginals at N = 160 in fresh processes; the peers on fewer sentences, so that they fit."""
    rows = []
    for task, name, batch in (
        (peers.INSIDE_OUTSIDE, "diffdecode", 128),
        (peers.INSIDE_OUTSIDE, "torch-struct", 4),
        (peers.INSIDE_OUTSIDE, "supar", 4),
        (peers.BACKWARD, "diffdecode", 128),
    ):
        try:
            peak = peak_megabytes("benchmarks.structure", ["--peak", task, name, str(batch)])
        except subprocess.CalledProcessError:
            continue  # not installed
        row = {"task": task, "system": name, "B": batch, "MB": peak, "MB for B=128": peak * 128 / batch}
        rows.append(row)
    return rows


def print_peak_of(task: str, name: str, batch: int) -> None:
    """What a fresh process runs to be measured by :func:`memory`."""
    systems = our_systems() + peers.installed_peers()[0]
    system = next(s for s in systems if s.name == name and s.task == task)
    prepared = system.prepare(random_batches(batch, 160)[0])
    print_peak(lambda: system.run(prepared))


def tables(report: dict) -> str:
    """The report as Markdown."""
    machine = report["machine"]
    lines = [f"# Trees on the CPU ({report['date']})", ""]
    lines += [
        f"{machine['cpu']}, {machine['threads']} thread, torch {machine['torch']}, numba {numba.__version__}."
    ]
    lines += [f"Load average at the start: {report['load']:.1f} on {os.cpu_count()} cores."]
    lines += ["Peers: " + ", ".join(f"{k} {v}" for k, v in report["versions"].items()) + "."]
    lines += [f"Not installed: {missing}." for missing in report["missing"]]
    lines += ["", "Median CPU ms a batch; in brackets, how many times diffdecode's time that is.", ""]
    for task in dict.fromkeys(row["task"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["task"] == task]
        shapes = list(dict.fromkeys((row["B"], row["N"]) for row in rows))
        lines += [f"## {task.capitalize()}", ""]
        lines += ["| system | " + " | ".join(f"B={b}, N={n}" for b, n in shapes) + " |"]
        lines += ["|---|" + "---:|" * len(shapes)]
        cells = {(row["system"], row["B"], row["N"]): row for row in rows}
        for name in dict.fromkeys(row["system"] for row in rows):
            line = [_cell(cells.get((name, *shape)), cells[("diffdecode", *shape)]) for shape in shapes]
            lines += [f"| {name} | " + " | ".join(line) + " |"]
        lines += [""]
    for title, key in SECTIONS.items():
        rows = report[key]
        lines += [f"## {title}", "", "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(_shown(value) for value in row.values()) + " |" for row in rows] + [""]
    return "\n".join(lines)


SECTIONS = {
    "Largest error of marginals, N = 5, 200 sentences": "exactness",
    "Wall ms on one and two threads": "threads",
    "Peak memory, N = 160": "memory",
    "CPU seconds of the first call": "first_calls",
}


def _cell(row: dict | None, ours: dict) -> str:
    if row is None:
        return "–"
    wrong = "" if row["agrees"] else " **differs**"
    return f"{1e3 * row['cpu']:.3g} ({row['cpu'] / ours['cpu']:.3g}x){wrong}"


def _shown(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plot(report: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(row["task"] for row in report["rows"]))
    figure, axes = plt.subplots(2, (len(tasks) + 1) // 2, figsize=(13, 7), sharex=True)
    for axis, task in zip(axes.flat, tasks):
        rows = [row for row in report["rows"] if row["task"] == task and row["B"] == report["batch"]]
        for name in dict.fromkeys(row["system"] for row in rows):
            of_system = [row for row in rows if row["system"] == name]
            times = [1e3 * row["cpu"] for row in of_system]
            axis.loglog([row["N"] for row in of_system], times, marker="o", label=name)
        axis.set_title(task, fontsize=9)
        axis.set_xticks(report["sizes"], [str(n) for n in report["sizes"]])
        axis.minorticks_off()
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("words a sentence")
        axis.set_ylabel(f"CPU ms a batch of {report['batch']}")
        axis.legend(fontsize=7)
    figure.tight_layout()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing, per system, task and size")
    parser.add_argument("--peak", nargs=3, metavar=("TASK", "SYSTEM", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if arguments.peak:
        task, name, batch = arguments.peak
        print_peak_of(task, name, int(batch))
        return
    theirs, versions, missing = peers.installed_peers()
    systems = our_systems() + theirs
    seconds = arguments.seconds
    report = {
        "date": date.today().isoformat(),
        "batch": arguments.batch,
        "versions": versions,
        "missing": missing,
    }
    report["sizes"], report["load"] = arguments.sizes, os.getloadavg()[0]
    report["rows"] = compare(systems, arguments.sizes, arguments.batch, seconds)
    report["rows"] += compare(systems, [40], 1, seconds / 2)
    report["exactness"] = exactness(systems)
    report["threads"] = threads_gain(128, [40, 80])
    report["memory"] = memory()
    report["first_calls"] = first_calls()
    path = save(NAME, report)
    report = json.loads(path.read_text())
    write_text(RESULTS / f"{NAME}.md", tables(report) + "\n")
    plot(report, RESULTS / f"{NAME}.png")
    print(tables(report))


if __name__ == "__main__":
    main()
