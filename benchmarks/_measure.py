"""Time of competing steps in turns, so that a busy machine slows all alike; memory in fresh processes."""

import ctypes
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from diffdecode.files.atomic import write_json

RESULTS = Path(__file__).parent / "results"


def cpu_medians(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each step, after one call of each that is not counted."""
    return {name: statistics.median(times) for name, times in cpu_seconds(steps, repeats).items()}


def cpu_seconds(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each call of each step, in turns, after one call of each that is not counted."""
    for step in steps.values():
        step()
    seconds = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    return seconds


def peak_megabytes(module: str, arguments: list[str]) -> float:
    """Peak memory of ``python -m module *arguments`` above its start; the module prints it last."""
    # Give memory back as soon as it is freed, so that the peak is what the step really holds.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    environment["MALLOC_TRIM_THRESHOLD_"] = "65536"
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def peaks(steps: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Peak memory of each step in MB above what the process holds before it (Linux, glibc).

    Each step must have run before. Once this has been called, the process gives memory back as soon as it is
    freed, which takes time: measure that first.
    """
    libc = ctypes.CDLL(None)
    for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        libc.mallopt(option, 65536)
    found = {}
    for name, step in steps.items():
        gc.collect()
        libc.malloc_trim(0)
        found[name] = _peak(step)
    return found


def print_peak(step: Callable[[], object]) -> None:
    """Print how many MB the process grows by in its second run of the step (Linux)."""
    step()
    gc.collect()
    print(_peak(step))


def _peak(step: Callable[[], object]) -> float:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = _kilobytes("VmRSS")
    step()
    return (_kilobytes("VmHWM") - before) / 1024


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def save(name: str, content: dict) -> Path:
    """Write ``results/name.json`` with what one needs to know about the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cpu": _cpu()}
    write_json(path, {"machine": about, **content})
    return path


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
