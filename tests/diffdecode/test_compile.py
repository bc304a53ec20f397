"""Compiling once: one command compiles all that can be called, and the first wait is announced."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")

from diffdecode import compile as command

FIRST_CALL = """
import sys
import torch
from diffdecode.structure import project_simplex
project_simplex(torch.randn(3, 4))
project_simplex(torch.randn(3, 4).double())
print("numba.np.arraymath" in sys.modules)
"""


def run(code, cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """The folder of a cache, and what was printed by the process that filled it and by one that read it."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, run(FIRST_CALL, cache), run(FIRST_CALL, cache)


def test_one_line_when_something_is_compiled_and_none_from_the_cache(cached):
    _, first, second = cached
    assert first.stderr.count("compiling kernels, once") == 1
    assert "compiling" not in second.stderr


def test_what_the_cache_holds_needs_no_compiler(cached):
    """numba's own way loads its whole compiler, scipy's linear algebra included, before it looks there."""
    assert [done.stdout.strip() for done in cached[1:]] == ["True", "False"]


def test_parts_are_translated_within_kernels_alone(cached):
    assert {path.name.split("-")[0] for path in cached[0].rglob("*.nb?")} == {"projections.project_rows"}


def test_no_kernel_is_forgotten_and_none_compiled_twice():
    """After all steps, each function that Python can call is there, for both precisions where both count."""
    for name in command.steps():
        command.compile_step(name)
    kernels = {
        f"{name}.{function.__name__}": function
        for name, module in list(sys.modules.items())
        if name.startswith("diffdecode.structure.kernels.numba.")
        for function in vars(module).values()
        if hasattr(function, "nopython_signatures") and function.py_func.__module__ == name
        if "no_cpython_wrapper" not in function.targetoptions
    }
    versions = {
        name.rpartition("numba.")[2]: len(function.nopython_signatures) for name, function in kernels.items()
    }
    both = {"eisner.eisner", "projections.project_rows"}
    assert len(versions) > 12
    assert {name: count for name, count in versions.items() if count != 1} == dict.fromkeys(both, 2)
