"""Compiling once: one command compiles all that can be called, and the first wait is announced."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")

from diffdecode import compile as command

FIRST_CALL = """
import torch
from diffdecode.structure import project_simplex
project_simplex(torch.randn(3, 4))
project_simplex(torch.randn(3, 4).double())
"""


def run(code, cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_one_line_when_something_is_compiled_and_none_from_the_cache(tmp_path):
    assert run(FIRST_CALL, tmp_path).count("compiling kernels, once") == 1
    assert "compiling" not in run(FIRST_CALL, tmp_path)


def test_no_kernel_is_forgotten():
    """Every function that Python can call has been compiled, or read from the cache, after all steps."""
    first, second = command.separate_steps()
    command._compile(command.shared_steps() | first | second)
    kernels = {
        f"{name}.{function.__name__}": function
        for name, module in list(sys.modules.items())
        if name.startswith("diffdecode.structure.kernels.numba.")
        for function in vars(module).values()
        if hasattr(function, "nopython_signatures") and "no_cpython_wrapper" not in function.targetoptions
    }
    assert len(kernels) > 12
    assert [name for name, function in kernels.items() if not function.nopython_signatures] == []
