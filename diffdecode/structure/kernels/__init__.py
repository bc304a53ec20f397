"""The fast paths, and the one place that picks among them.

Three backends offer the functions of :mod:`diffdecode.structure.kernels.reference` under the same names and
contracts: ``reference`` (torch, any device), ``numba`` (CPU; tensors elsewhere take a round trip) and
``triton`` (CUDA). The best one that is installed and has the function is used;
``DIFFDECODE_KERNELS=reference|numba|triton`` or :func:`use_backend` ask for another.
"""

import functools
import importlib
import importlib.util
import os
from contextlib import contextmanager
from contextvars import ContextVar

import torch

MODULES = {
    "reference": "diffdecode.structure.kernels.reference",
    "numba": "diffdecode.structure.kernels.numba.backend",
    "triton": "diffdecode.structure.kernels.triton.backend",
}
_PREFERRED = {"cuda": ("triton", "numba", "reference")}
_PREFERRED_ELSEWHERE = ("numba", "reference")
_asked_for: ContextVar[str | None] = ContextVar("diffdecode_kernels", default=None)


@functools.cache
def is_installed(backend: str) -> bool:
    """Whether a backend can be imported here (the reference always can)."""
    needs = {"reference": "torch"}.get(backend, backend)
    return (
        importlib.util.find_spec(needs) is not None and importlib.util.find_spec(MODULES[backend]) is not None
    )


@contextmanager
def use_backend(name: str):
    """Prefer the backend ``name`` inside the ``with`` block (for tests and comparisons).

    Raises:
        ValueError: if there is no such backend.
        RuntimeError: if it is not installed.
    """
    token = _asked_for.set(_checked(name))
    try:
        yield
    finally:
        _asked_for.reset(token)


def _checked(name: str) -> str:
    if name not in MODULES:
        raise ValueError(f"no backend {name!r}; there are {', '.join(MODULES)}")
    if not is_installed(name):
        raise RuntimeError(f"backend {name!r} is not installed here (pip install {name})")
    return name


def backends(device: torch.device) -> tuple[str, ...]:
    """Installed backends for a device, the one to use first."""
    asked_for = _asked_for.get() or os.environ.get("DIFFDECODE_KERNELS")
    usual = tuple(filter(is_installed, _PREFERRED.get(device.type, _PREFERRED_ELSEWHERE)))
    return (_checked(asked_for), *usual) if asked_for else usual


def kernel(function: str, device: torch.device):
    """The function of this name from the first backend that has it."""
    for backend in backends(device):
        found = getattr(importlib.import_module(MODULES[backend]), function, None)
        if found is not None:
            return found
    raise NotImplementedError(f"no backend offers {function!r}")
