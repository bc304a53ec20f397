"""Compile all kernels now, so that no later call has to wait: ``python -m diffdecode.compile``.

Kernels are compiled when they are first called, and kept in numba's cache (beside the kernels, or below the
user's cache folder where that cannot be written; ``NUMBA_CACHE_DIR`` names another). With all of them there,
this takes a few seconds. Two processes share the work, and, where the system forks safely, the imports.
"""

import gc
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch

from diffdecode.structure import TreeKind, project_dep, project_simplex
from diffdecode.structure.kernels import backend, is_installed, use_backend

PROJECTIVE, ANY = TreeKind(True), TreeKind(False)


def steps() -> dict[str, Callable[[], object]]:
    """What calls for all kernels in every form, by the name to be shown.

    In an order that keeps two processes at work to the end. Samples need kernels of the first steps, too,
    which lie in the cache by then.
    """

    def decide(trees: TreeKind) -> None:
        for count in (2, 64):
            scores = torch.randn(count, 5, 5)
            trees.best(scores)
            trees.best(scores.double())

    def differentiate(trees: TreeKind) -> None:
        few, groups, too_long_for_a_group = (2, 5), (64, 5), (1, 101)
        given = [torch.randn(count, size, size) for count, size in (few, groups, too_long_for_a_group)]
        for scores in (*given, beyond_float64()):
            leaf = scores.requires_grad_()
            marginals = trees.marginals(leaf)[0]
            torch.autograd.grad((marginals**2).sum(), leaf)

    def simplex() -> None:
        for dtype in (torch.float32, torch.float64):
            project_dep(torch.randn(2, 5, 5, dtype=dtype))
            project_simplex(torch.randn(2, 5, dtype=dtype))

    def beyond_float64() -> torch.Tensor:
        """Two words point at each other: any tree is far less likely than either arc."""
        scores = torch.zeros(2, 5, 5)
        scores[:, 1, 2] = scores[:, 2, 1] = 1e3
        return scores

    def sample(trees: TreeKind) -> None:
        trees.sample(torch.randn(2, 5, 5))
        trees.sample(beyond_float64())

    scores = torch.randn(2, 5, 5)
    return {
        "best projective trees": lambda: decide(PROJECTIVE),
        "marginals of all trees": lambda: differentiate(ANY),
        "projective marginals": lambda: differentiate(PROJECTIVE),
        "best trees": lambda: decide(ANY),
        "projections on trees": lambda: (PROJECTIVE.project(scores), ANY.project(scores)),
        "projections on the simplex": simplex,
        "samples of projective trees": lambda: sample(PROJECTIVE),
        "samples of all trees": lambda: sample(ANY),
    }


def main() -> None:
    """Compile everything, on two cores, saying what is done."""
    if not is_installed("numba"):
        print("nothing to compile: numba is not installed")
        return
    start = time.monotonic()
    with use_backend("numba"):
        backend(torch.device("cpu"))  # imported once, before the processes part
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(2, context, initializer=_in_a_process_of_its_own) as processes:
        list(processes.map(compile_step, steps()))
    print(f"all kernels are compiled ({time.monotonic() - start:.0f} s)", flush=True)


def _in_a_process_of_its_own() -> None:
    gc.disable()  # compiling makes many objects and hardly any garbage: looking for it is a tenth of the time
    torch.set_num_threads(1)


def compile_step(name: str) -> None:
    """Do one of the :func:`steps`, and say so if it took a while."""
    start = time.monotonic()
    with use_backend("numba"):
        steps()[name]()
    seconds = time.monotonic() - start
    if seconds > 1:
        print(f"{name}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
