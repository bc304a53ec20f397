"""How kernels are compiled: decorators for those that Python calls and for the parts they are made of."""

import sys
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numba.core import event

kernel = partial(njit, nogil=True, cache=True, error_model="numpy")
"""For functions that Python calls: they let go of the interpreter lock and are compiled once a machine."""

part = partial(kernel, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that only compiled code calls: without a way in from Python, which takes long to compile."""

inlined = partial(part, inline="always")
"""For small parts, compiled with their callers alone: a part of its own takes a tenth of a second."""

ZERO, ONE = np.int64(0), np.int64(1)
"""To pass to parts, which would be compiled anew for each combination of literal integers."""


class _Announcement(event.Listener):
    """Says once that kernels are being compiled: the first call takes seconds, and nobody knows why."""

    made = False

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__
        if not self.made and module.startswith("diffdecode."):
            self.made = True
            print(
                "diffdecode: compiling kernels, once (python -m diffdecode.compile does all)", file=sys.stderr
            )

    def on_end(self, event: Any) -> None:
        pass


announcement = _Announcement()
event.register("numba:compile", announcement)
