"""What the experiments share: a grid of cells that can be stopped at any moment, a table, a plot.

A cell is a dict of settings; its result is a JSON file named after them.  The same command goes on where it
was stopped: finished cells are read, and an unfinished one continues from the last epoch it saved.
"""

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from tqdm import tqdm

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SECONDS_BETWEEN_CHECKPOINTS = 5


def arguments(doc: str, name: str, methods: list[str]) -> argparse.ArgumentParser:
    """Parser with the options of every experiment."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/estimators") / name, help="folder of the results"
    )
    parser.add_argument(
        "--methods", nargs="+", default=methods, help="e.g. reinmax st,tau=1.3 rloo,samples=4"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    return parser


def file_name(cell: dict) -> str:
    """Readable and unique: ``method=st,seed=0-1f0c2a9b``; the hash is of all settings."""
    digest = hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:8]
    shown = ",".join(f"{key}={cell[key]}" for key in ("problem", "method", "seed") if key in cell)
    return f"{shown.replace('/', '_').replace(' ', '_')}-{digest}"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """A file is complete or not there at all, whenever the process dies."""
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    os.replace(temporary, path)


class Checkpoint:
    """State of an unfinished cell: modules, optimizers, random numbers, history of the epochs."""

    def __init__(self, path: Path):
        self.path = path
        self._saved = time.monotonic()
        self._start = time.process_time()
        self._before = 0.0

    def seconds(self) -> float:
        """CPU time of the cell so far, earlier processes included up to their last checkpoint."""
        return self._before + time.process_time() - self._start

    def epochs(self, count: int, run_epoch: Callable[[int], float], **parts) -> list[float]:
        """``[run_epoch(0), ..., run_epoch(count - 1)]``, resumable; ``parts`` have a ``state_dict``."""
        history = self._restore(parts)
        for epoch in range(len(history), count):
            history.append(run_epoch(epoch))
            if time.monotonic() - self._saved > SECONDS_BETWEEN_CHECKPOINTS:
                self._save(parts, history)
        return history

    def _restore(self, parts: dict) -> list[float]:
        if not self.path.exists():
            return []
        state = torch.load(self.path, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        self._before = state["seconds"]
        return state["history"]

    def _save(self, parts: dict, history: list[float]) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"rng": torch.get_rng_state(), "history": history, "seconds": self.seconds()}
        write_atomically(self.path, lambda path: torch.save(state, path))
        self._saved = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def run_grid(folder: Path, cells: list[dict], run_cell: Callable[[dict, Checkpoint], dict]) -> list[dict]:
    """Results of all cells, in order: settings, what ``run_cell`` returned, and ``seconds``."""
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    bar = tqdm(cells, unit="cell")
    for cell in bar:
        path = folder / f"{file_name(cell)}.json"
        bar.set_postfix_str(path.stem)
        if not path.exists():
            checkpoint = Checkpoint(path.with_suffix(".pt"))
            torch.manual_seed(cell.get("seed", 0))
            result = cell | run_cell(cell, checkpoint) | {"seconds": round(checkpoint.seconds(), 1)}
            write_atomically(path, lambda part, result=result: part.write_text(json.dumps(result), "utf-8"))
            checkpoint.remove()
        results.append(json.loads(path.read_text("utf-8")))
    return results


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and sample standard deviation over the seeds."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def show_table(folder: Path, caption: str, header: list[str], rows: list[list[str]]) -> str:
    """Print a Markdown table and save it as ``table.md``."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in [header, ["-" * width for width in widths], *rows]
    ]
    text = "\n".join([caption, "", *lines, ""])
    write_atomically(folder / "table.md", lambda path: path.write_text(text, "utf-8"))
    print(text)
    return text


def save_plot(
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    curves: dict[str, list[float]],
    levels: dict[str, float] | None = None,
    x: list | None = None,
    skip: int = 0,
) -> None:
    """Plot one curve per method.

    Args:
        curves: values per method.
        levels: named horizontal lines.
        x: labels of the values, drawn as unconnected markers; default: epochs 1, 2, ... as lines.
        skip: first epochs left out, so that they do not flatten the rest.
    """
    figure, axes = plt.subplots(figsize=(9, 5))
    colours = plt.get_cmap("tab20")
    for i, (name, values) in enumerate(curves.items()):
        if x is None:
            axes.plot(range(skip + 1, len(values) + 1), values[skip:], label=name, color=colours(i % 20))
        else:
            axes.plot(x, values, marker="o", linestyle="", label=name, color=colours(i % 20))
    for name, level in (levels or {}).items():
        axes.axhline(level, linestyle="--", color="grey", linewidth=0.8)
        axes.annotate(name, (0, level), xycoords=("axes fraction", "data"), fontsize="small", va="bottom")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.tick_params(axis="x", rotation=0 if x is None else 20)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    write_atomically(path, lambda part: figure.savefig(part, format="png", dpi=110))
    plt.close(figure)
    print(f"plot: {path}")
