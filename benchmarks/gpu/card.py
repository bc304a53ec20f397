"""The device that is measured, and how: wall time in turns, waits, launches and peak memory."""

import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

Step = Callable[[], object]


@dataclass(frozen=True)
class Card:
    """A CUDA device, or the CPU in a rehearsal, where there is nothing to count.

    Attributes:
        device: where tensors are.
        name: what it is called.
    """

    device: torch.device
    name: str

    @classmethod
    def found(cls, rehearse: bool) -> "Card | None":
        """The card that is there; with ``rehearse`` the CPU; else None."""
        if rehearse:
            return cls(torch.device("cpu"), "rehearsal")
        if not torch.cuda.is_available():
            return None
        return cls(torch.device("cuda"), torch.cuda.get_device_name())

    @property
    def is_real(self) -> bool:
        """Whether it is no rehearsal."""
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Wait for everything that was started."""
        if self.is_real:
            torch.cuda.synchronize()

    def medians(self, steps: dict[str, Step], repeats: int = 15, seconds: float = 0.5) -> dict[str, float]:
        """Median wall seconds of the steps, in turns, the device idle before and after each.

        The first call of each is not counted; a step that has taken ``seconds`` in all is not called again.
        """
        times: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(repeats + 1):
            for name, step in steps.items():
                if sum(times[name]) > seconds:
                    continue
                self.synchronize()
                start = time.perf_counter()
                step()
                self.synchronize()
                if turn:
                    times[name].append(time.perf_counter() - start)
        return {name: statistics.median(found) for name, found in times.items()}

    def waits(self, step: Step) -> int | None:
        """How often PyTorch waits for the device in a call of a step that was called before."""
        if not self.is_real:
            return None
        torch.cuda.synchronize()
        return len(_waits(step))

    def launches(self, step: Step) -> int | None:
        """Kernels and copies that a call starts of a step that was called before."""
        if not self.is_real:
            return None
        torch.cuda.synchronize()
        activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profile:
            step()
            torch.cuda.synchronize()
        return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())

    def peak_megabytes(self, step: Step) -> float | None:
        """Memory that a call takes at its height, over what was held before; the step was called before."""
        if not self.is_real:
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def compared(self, steps: dict[str, Step], base: str, **timing: float) -> list[dict]:
        """A line for each step: time and memory, also as multiples of those of ``base``, and waits."""
        steps, failed = without_failures(steps)
        seconds = self.medians(steps, **timing)
        megabytes = {name: self.peak_megabytes(step) for name, step in steps.items()}
        held = megabytes[base]
        return [
            row(
                name,
                seconds[name],
                seconds[base],
                memory_ratio=megabytes[name] / held if held else None,
                waits=self.waits(step),
            )
            for name, step in steps.items()
        ] + failed


def without_failures(steps: dict[str, Step]) -> tuple[dict[str, Step], list[dict]]:
    """The steps that work, and a line for each of the others; why one fails goes to standard error."""
    working, failed = {}, []
    for name, step in steps.items():
        try:
            step()
            working[name] = step
        except Exception as error:  # whatever it is, the other steps are worth measuring
            traceback.print_exc()
            failed.append({"what": name, "failed": f"{type(error).__name__}: {error}".split("\n")[0]})
    return working, failed


def waits_for_cuda(step: Step) -> list[str]:
    """File and line of each wait for the card, in a second call: the first one compiles.

    In a backward pass, that is the line that started it.
    """
    step()
    torch.cuda.synchronize()
    return _waits(step)


def _waits(step: Step) -> list[str]:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename}:{w.lineno}" for w in seen if "synchroniz" in str(w.message)]


def row(what: str, seconds: float, base: float | None = None, **counted: float | None) -> dict:
    """A line of a table: milliseconds, how many times ``base`` that is, and what was counted."""
    ratio = seconds / base if base else None
    return {"what": what, "ms": 1e3 * seconds, "ratio": ratio, **counted}
