"""The fast paths, and the one place that picks among them.

Three backends offer what :mod:`diffdecode.structure.kernels.base` lists: ``reference`` (torch, any device;
the readable definition), ``numba`` (CPU; trees elsewhere take a round trip) and ``triton`` (CUDA). The best
one that is installed is used; ``DIFFDECODE_KERNELS=reference|numba|triton`` or :func:`use_backend` ask for
another, wherever it can run (``triton`` on CUDA only).
"""

import functools
import gc
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from diffdecode.structure.kernels.base import Backend, TreeAlgorithms

__all__ = ["BACKENDS", "Backend", "TreeAlgorithms", "backend", "is_installed", "uncollected", "use_backend"]

BACKENDS = ("reference", "numba", "triton")
_PREFERRED = {"cuda": ("triton", "numba", "reference")}
_PREFERRED_ELSEWHERE = ("numba", "reference")
_asked_for: ContextVar[str | None] = ContextVar("diffdecode_kernels", default=None)


def backend(device: torch.device) -> Backend:
    """The backend for tensors of this device: the one asked for, or the best one that is installed.

    Raises:
        ValueError: ``DIFFDECODE_KERNELS`` names no backend.
        RuntimeError: it names one that is not installed.
    """
    usual = _PREFERRED.get(device.type, _PREFERRED_ELSEWHERE)
    asked_for = _asked_for.get() or os.environ.get("DIFFDECODE_KERNELS")
    if asked_for and (_checked(asked_for) in usual):
        return _load(asked_for)
    return _load(next(filter(is_installed, usual)))


@functools.cache
def is_installed(name: str) -> bool:
    """Whether a backend can be imported here (the reference always can)."""
    return name == "reference" or importlib.util.find_spec(name) is not None


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use the backend ``name`` inside the ``with`` block (for tests and comparisons).

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
    if name not in BACKENDS:
        raise ValueError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")
    if not is_installed(name):
        raise RuntimeError(f"backend {name!r} is not installed here (pip install {name})")
    return name


def _imported(name: str) -> Backend:
    """Import a backend. A compiler is imported only when its kernels are called for."""
    if name == "numba":
        with uncollected():
            from diffdecode.structure.kernels.numba.backend import BACKEND

        return BACKEND
    if name == "triton":
        from diffdecode.structure.kernels.triton.backend import over

        return over(_load("numba" if is_installed("numba") else "reference"))
    from diffdecode.structure.kernels.reference import BACKEND

    return BACKEND


_load = functools.cache(_imported)


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage in the ``with`` block, which makes hardly any: torch keeps much to look through."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
