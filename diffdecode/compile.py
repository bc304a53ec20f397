"""Compile all kernels now, so that no later call has to wait: ``python -m diffdecode.compile``.

Kernels are compiled when they are first called, and kept as files (beside the kernels, or below the user's
cache folder where that cannot be written; ``NUMBA_CACHE_DIR`` names another). With all of them there, this
does nothing. Two processes share the work, and, where the system forks safely, what they import.
"""

import gc
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from diffdecode.structure.kernels import backend, is_installed, uncollected, use_backend


def main() -> None:
    """Compile whatever is not there yet, on two cores, saying what is done."""
    if not is_installed("numba"):
        print("nothing to compile: numba is not installed")
        return
    start = time.monotonic()
    missing = [name for name in kernels() if not is_kept(name)]
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with uncollected():
        for name in missing[:1]:
            compile_kernel(name)  # what numba makes ready for it is shared by the processes
        with ProcessPoolExecutor(2, context, initializer=gc.disable) as processes:
            # Two halves, and not one by one: neighbours have parts in common.
            list(processes.map(compile_kernel, missing[1:], chunksize=max(1, len(missing) // 2)))
    print(f"all kernels are compiled ({time.monotonic() - start:.0f} s)", flush=True)


def kernels() -> list[str]:
    """The names of all kernels of the CPU's backend."""
    with use_backend("numba"):
        backend(torch.device("cpu"))
    from diffdecode.structure.kernels.numba.native import KERNELS

    return list(KERNELS)


def is_kept(name: str) -> bool:
    """Whether the machine code of a kernel is there."""
    from diffdecode.structure.kernels.numba.native import read

    return read(name) is not None


def compile_kernel(name: str) -> None:
    """Compile one kernel, and say so."""
    from diffdecode.structure.kernels.numba.native import KERNELS

    start = time.monotonic()
    kernels()
    KERNELS[name].compile()
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
