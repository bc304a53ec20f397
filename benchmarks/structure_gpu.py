"""Trees and SPIGOT on a GPU: the Triton kernels beside a round trip to the CPU and beside torch.

    python -m benchmarks.structure_gpu [--words 20 40 80 160] [--batch 32 256]

Wall time of whole calls with inputs and outputs on the device, median, in turns; and the number of kernel
launches of one SPIGOT step, which must not depend on the lengths. Needs CUDA and Triton; says so without.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks._measure import save
from diffdecode.structure import (
    nonprojective_tree,
    project_dep,
    projective_marginals,
    projective_tree,
    tree_argmax,
)
from diffdecode.structure.kernels import reference, use_backend


def wall_medians(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each step, the device idle before and after; three calls of each do not count."""
    seconds = {name: [] for name in steps}
    for repeat in range(repeats + 3):
        for name, step in steps.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            step()
            torch.cuda.synchronize()
            if repeat >= 3:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def launches(step: Callable[[], object]) -> int:
    """Kernels that one call starts on the device."""
    step()
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def spigot_step(scores: torch.Tensor, g: torch.Tensor) -> Callable[[], object]:
    """Decide, and pull ``g`` back."""

    def step():
        scores.grad = None
        tree_argmax(scores, surrogate="spigot").backward(g)

    return step


def on_backend(name: str, step: Callable[[], object]) -> Callable[[], object]:
    """The step with the kernels of one backend."""

    def run():
        with use_backend(name):
            step()

    return run


def compare(batch: int, words: int, repeats: int) -> dict:
    """All numbers for one size."""
    scores, g = torch.randn(2, batch, words + 1, words + 1, device="cuda")
    lengths = torch.full((batch,), words, device="cuda")
    decide = lambda: projective_tree(scores)  # noqa: E731
    spigot = spigot_step(scores.clone().requires_grad_(), g)
    steps = {
        "tree, triton": on_backend("triton", decide),
        "tree, numba and back": on_backend("numba", decide),
        "any tree, triton": on_backend("triton", lambda: nonprojective_tree(scores)),
        "any tree, numba and back": on_backend("numba", lambda: nonprojective_tree(scores)),
        "marginals, triton": on_backend("triton", lambda: projective_marginals(scores)),
        "marginals, numba and back": on_backend("numba", lambda: projective_marginals(scores)),
        "P_DEP, triton": on_backend("triton", lambda: project_dep(scores)),
        "P_DEP, torch sort": lambda: reference.p_dep(scores, lengths),
        "SPIGOT step, triton": on_backend("triton", spigot),
    }
    if importlib.util.find_spec("entmax") is not None:
        from entmax import sparsemax

        steps["P_DEP, entmax.sparsemax"] = lambda: sparsemax(scores, -1)
    return {"seconds": wall_medians(steps, repeats), "launches": launches(steps["SPIGOT step, triton"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--words", type=int, nargs="+", default=[20, 40, 80, 160])
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        print("nothing measured: this benchmark needs a CUDA device and Triton (pip install triton)")
        return
    torch.manual_seed(0)
    results = {}
    for batch in arguments.batch:
        for words in arguments.words:
            found = results[f"{batch} x {words}"] = compare(batch, words, arguments.repeats)
            print(f"batch {batch}, {words} words; {found['launches']} launches a SPIGOT step")
            for name, seconds in found["seconds"].items():
                print(f"  {name:26s} {seconds * 1e3:8.3f} ms", flush=True)
    about = {"device": torch.cuda.get_device_name(), "settings": vars(arguments)}
    print(f"saved {save('structure_gpu', {**about, 'by_size': results})}")


if __name__ == "__main__":
    main()
