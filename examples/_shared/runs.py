"""Experiments that can be stopped at any moment: the same command goes on where it was stopped.

A cell is a dict of settings; its result is a JSON file named after them. Finished cells are read, and an
unfinished one continues from the last epoch it saved.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from diffdecode.files.atomic import read_json, remove_unfinished, write_bytes, write_json
from diffdecode.files.claim import lock

SECONDS_BETWEEN_CHECKPOINTS = 5
Cell = dict[str, Any]


def file_name(cell: Cell) -> str:
    """Readable and unique: ``method=st,seed=0-1f0c2a9b``; the hash is of all settings."""
    digest = hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:8]
    shown = ",".join(f"{key}={cell[key]}" for key in ("problem", "method", "seed") if key in cell)
    return f"{shown.replace('/', '_').replace(' ', '_')}-{digest}"


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

    def epochs(self, count: int, run_epoch: Callable[[int], Any], **parts: Any) -> list[Any]:
        """``[run_epoch(0), ..., run_epoch(count - 1)]``, resumable; ``parts`` have a ``state_dict``.

        Raises ValueError if the checkpoint cannot be read.
        """
        history = self._restore(parts)
        for epoch in range(len(history), count):
            history.append(run_epoch(epoch))
            if time.monotonic() - self._saved > SECONDS_BETWEEN_CHECKPOINTS:
                self._save(parts, history)
        return history

    def _restore(self, parts: dict[str, Any]) -> list[Any]:
        if not self.path.exists():
            return []
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{self.path} is damaged ({reason}): remove it") from None
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        if "cuda_rng" in state:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self._before = state["seconds"]
        return state["history"]

    def _save(self, parts: dict[str, Any], history: list[Any]) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"rng": torch.get_rng_state(), "history": history, "seconds": self.seconds()}
        if torch.cuda.is_available():
            state["cuda_rng"] = torch.cuda.get_rng_state_all()
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(self.path, content.getbuffer())
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The cell has a result."""
        self.path.unlink(missing_ok=True)
        remove_unfinished(self.path)


def run_grid(folder: Path, cells: list[Cell], run_cell: Callable[[Cell, Checkpoint], Cell]) -> list[Cell]:
    """Results of all cells, in order: settings, what ``run_cell`` returned, and ``seconds``.

    Raises ValueError if another process works in the folder, or if a result there is damaged.
    """
    lock(folder)
    results = []
    bar = tqdm(cells, unit="cell")
    for cell in bar:
        path = folder / f"{file_name(cell)}.json"
        checkpoint = Checkpoint(path.with_suffix(".pt"))
        bar.set_postfix_str(path.stem)
        if not path.exists():
            torch.manual_seed(cell.get("seed", 0))
            result = cell | run_cell(cell, checkpoint) | {"seconds": round(checkpoint.seconds(), 1)}
            write_json(path, result, indent=None)
        checkpoint.remove()  # also one whose process was killed between result and removal
        results.append(read_json(path))
    return results


def done_once(path: Path, settings: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` returns; a later call with the same settings reads it from ``path``.

    Args:
        path: a JSON file, written when the work is done.
        settings: what the result depends on; JSON can express them.
        work: makes the result.

    Raises:
        ValueError: the file is damaged.
    """
    wanted = json.loads(json.dumps(settings))
    if path.exists():
        found = read_json(path)
        if found.get("settings") == wanted and "result" in found:
            return found["result"]
        path.unlink()
    result = work()
    write_json(path, {"settings": wanted, "result": result})
    return read_json(path)["result"]
