"""Run a compiled kernel over the sentences of a batch, on several threads where that pays.

Kernels are serial and release the interpreter lock, so a plain thread pool scales and survives ``fork`` (an
OpenMP region, which numba's ``parallel=True`` opens, kills a forked child such as a DataLoader worker).
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

WORTH_A_THREAD = 0.15e-3
"""Seconds of estimated work per thread below which waking it costs more than it saves."""

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def run_over_batch(kernel: Callable[..., None], cost: np.ndarray, *arguments: Any) -> None:
    """Call ``kernel(start, stop, *arguments)`` on parts of the batch that cover it and cost about the same.

    Args:
        cost: ``[B]`` estimated seconds per sentence.

    As many threads as ``torch.get_num_threads()`` are used at most.
    """
    threads = min(torch.get_num_threads(), int(cost.sum() / WORTH_A_THREAD), len(cost))
    if threads < 2:
        kernel(0, len(cost), *arguments)
        return
    reached = np.cumsum(cost)
    # A little less than equal shares: rounding must not give one sentence more, which can take lanes more.
    shares = reached[-1] * (1 - 1e-6) * np.arange(1, threads) / threads
    cuts = np.searchsorted(reached, shares)
    bounds = [0, *np.unique(cuts + 1).tolist()]
    bounds = [*(b for b in bounds if b < len(cost)), len(cost)]
    others = [
        _executor(threads).submit(kernel, start, stop, *arguments)
        for start, stop in itertools.pairwise(bounds[1:])
    ]
    kernel(bounds[0], bounds[1], *arguments)
    for other in others:
        other.result()


def _executor(threads: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < threads:
        _pool, _pool_size = ThreadPoolExecutor(threads, thread_name_prefix="diffdecode"), threads
    return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None  # a forked child has the object but not its threads


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_pool)
