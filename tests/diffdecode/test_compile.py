"""Compiling once: one command compiles all that can be called, and the first wait is announced."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("numba")

from diffdecode import compile as command
from diffdecode.structure.kernels.numba import native
from diffdecode.structure.kernels.numba.compiled import kernel

FIRST_CALL = """
import sys
import torch
from diffdecode.structure import project_simplex
project_simplex(torch.randn(3, 4))
print("numba" in sys.modules)
"""


def run(cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def test_one_line_when_something_is_compiled_and_no_compiler_when_nothing_is(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert first.stderr.count("compiling kernels, once") == 1 and second.stderr == ""
    assert [done.stdout.strip() for done in (first, second)] == ["True", "False"]
    assert [path.name.rpartition("-")[0] for path in tmp_path.iterdir()] == [
        "projections.project_rows-float32"
    ]


def test_no_kernel_is_forgotten_and_each_has_the_types_that_it_declares():
    """The backend has each function that is declared as a kernel, for both precisions where both count."""
    declared = set()
    for path in Path(native.__file__).parent.glob("*.py"):
        module = import_module(f"{native.__package__}.{path.stem}")
        for name, value in vars(module).items():
            if isinstance(value, kernel):
                scalars = ("-float32", "-float64") if "T" in value.arguments else ("",)
                declared |= {f"{path.stem}.{name}{scalar}" for scalar in scalars}
    assert len(declared) > 12
    assert set(command.kernels()) == declared


def test_what_is_there_is_not_compiled_again(monkeypatch, capsys):
    monkeypatch.setattr(command, "is_kept", lambda name: True)
    monkeypatch.setattr(command, "compile_kernel", lambda name: pytest.fail(name))
    command.main()
    assert capsys.readouterr().out.startswith("all kernels are compiled")


def test_everything_that_is_missing_is_compiled(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "is_kept", lambda name: "lanes" in name)
    monkeypatch.setattr(native.Kernel, "compile", lambda kernel: (tmp_path / kernel.name).touch())
    command.main()
    assert {path.name for path in tmp_path.iterdir()} == {x for x in native.KERNELS if "lanes" not in x}
