"""Looking at values on a device, which makes a CPU wait for its GPU: how often that is done, in one place.

An error that depends on values (NaN, a sentence without a tree) needs a look at them. A computation of many
steps looks only once: ``looked_at_once`` keeps what each step found, reads all of it together at the end, and
only where something was wrong, makes the computation again with a look at each step, which names the fault.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

_checking: ContextVar[bool] = ContextVar("diffdecode_checks", default=True)
_kept: ContextVar[list[Tensor] | None] = ContextVar("diffdecode_kept_checks", default=None)


@contextmanager
def unchecked() -> Iterator[None]:
    """Inside the ``with`` block, trust lengths and scores: whether they make sense is not looked at.

    On a GPU each look waits for the device. Without them, a decision and SPIGOT's step only start kernels;
    the backward pass of what was decided inside does not look either, wherever it is called. Lengths outside
    1..N, NaN, sentences without a tree, and float32 scores above 1e36 then give results that mean nothing
    instead of an error, and so do entropies of nearly equally good trees whose scores are above some 1e3;
    wrong shapes and types are refused as always.
    """
    token = _checking.set(False)
    try:
        yield
    finally:
        _checking.reset(token)


def found(fault: Callable[[], Tensor]) -> bool:
    """Whether there is a fault, to be raised.

    Args:
        fault: makes a boolean of no dimension; it is not asked in :func:`unchecked`.

    Returns:
        False in :func:`unchecked`, and for now also on a GPU in :func:`looked_at_once`: what follows must get
        to its end whatever the values are.
    """
    if not _checking.get():
        return False
    fault_there, kept = fault(), _kept.get()
    if kept is None or fault_there.device.type == "cpu":
        return bool(fault_there)
    kept.append(fault_there.detach())
    return False


def is_looking() -> bool:
    """Whether :func:`found` looks at every fault at once, so that nothing goes on after one."""
    return _checking.get() and _kept.get() is None


def looked_at_once(compute: Callable[[], T]) -> T:
    """What ``compute()`` returns, with one look at its values on a GPU instead of one for each check in it.

    Args:
        compute: is called a second time where there was a fault. Random numbers are then others; a fault that
            does not come again leaves the second result.

    Raises:
        Exception: what ``compute`` raises where each check looks at once.
    """
    if not is_looking():
        return compute()
    kept: list[Tensor] = []
    token = _kept.set(kept)
    try:
        result = compute()
    finally:
        _kept.reset(token)
    return compute() if kept and bool(torch.stack(kept).any()) else result


def looks_once(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator of a function that looks at its values once: see :func:`looked_at_once`."""

    @functools.wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        return looked_at_once(lambda: function(*arguments, **options))

    return run


class Seen:
    """What forward saw (:func:`unchecked`, ``use_backend``), for a backward pass.

    Autograd calls the backward pass of a GPU's tensors in a thread of its own, which knows nothing of that.
    """

    def __init__(self) -> None:
        self._context: Context = copy_context()
        self._context.run(_kept.set, None)  # that computation has ended: nobody would read what is kept

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)``, called where that is known."""
        return self._context.copy().run(function, *arguments)
