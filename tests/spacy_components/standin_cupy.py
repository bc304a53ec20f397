"""A stand-in for CuPy, so that spaCy and thinc run on the stand-in for a card.

Its arrays hold those of numpy. As CuPy's, they refuse to be mixed with numpy's or turned into them unasked,
their sums are arrays without dimensions, and ``get()``, ``float()``, ``bool()`` or a mask as an index wait.
"""

import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest.mock import patch

import numpy as np
import thinc.backends
import thinc.types
import thinc.util
import torch
from standin_card import DEVICE, CardTensor, standin_card
from thinc.api import CupyOps, NumpyOps, get_current_ops, set_current_ops
from torch import Tensor

TAKES_NUMPY = ("asarray", "array", "ascontiguousarray", "unflatten", "set_param")
WAITS = {"nonzero": 1, "flatnonzero": 1, "bincount": 2, "unique": 1, "array_equal": 1, "allclose": 1}
KEPT = ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides", "flags")


class Counter:
    """Where waits and kernels are counted: the card that is in use."""

    card = None

    @classmethod
    def add(cls, what: str, waits: int = 0, kernels: int = 1) -> None:
        if waits:
            cls.card.waits += [f"cupy {what} {cls.card.line_of_ours()}"] * waits
        cls.card.kernels += kernels


class CardArray:
    """An array on the card; ``held`` is numpy's."""

    __array_priority__ = 1000

    def __init__(self, held):
        self.held = np.asarray(held)

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        raise TypeError(f"numpy's {ufunc.__name__} on an array of the card's")

    def __array_function__(self, function, types, arguments, options):
        raise TypeError(f"numpy's {function.__name__} on an array of the card's")

    def get(self):
        Counter.add("get", waits=1)
        return self.held.copy()

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    __float__ = __int__ = __bool__ = __index__ = None  # set below

    def __len__(self):
        return len(self.held)

    def __iter__(self):
        return (CardArray(row) for row in self.held)

    def __getitem__(self, index):
        found = self.held[_index(index)]
        if _is_view(index):
            array = CardArray(0)
            array.held = found
            return array
        Counter.add("index", waits=_masks(index))
        return CardArray(found)

    def __setitem__(self, index, value):
        Counter.add("set", waits=_masks(index) if _held(value, "set").ndim else 0)
        self.held[_index(index)] = _held(value, "set")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.held, name)
        if name in KEPT or not (callable(found) or isinstance(found, np.ndarray)):
            return found
        return _as_kernel(name, found) if callable(found) else _wrapped(found)

    @property
    def device(self):
        return DEVICE

    def toDlpack(self):
        return self

    def __repr__(self):
        return f"CardArray({self.held!r})"


def _is_view(index) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None or part is Ellipsis or isinstance(part, (int, slice, np.integer)) for part in parts
    )


def _masks(index) -> int:
    parts = index if isinstance(index, tuple) else (index,)
    return sum(isinstance(part, CardArray) and part.dtype == bool for part in parts)


def _index(index):
    parts = index if isinstance(index, tuple) else (index,)
    found = tuple(part.held if isinstance(part, CardArray) else part for part in parts)
    return found if isinstance(index, tuple) else found[0]


def _held(value, name: str):
    """What numpy takes for an argument, if CuPy takes the argument."""
    if isinstance(value, CardArray):
        return value.held
    if isinstance(value, np.ndarray) and value.ndim and name not in TAKES_NUMPY:
        raise TypeError(f"Unsupported type {type(value)} in {name}: numpy's array among the card's")
    if isinstance(value, (list, tuple)):
        return type(value)(_held(part, name) for part in value)
    return np.asarray(value) if name == "set" else value


def _wrapped(found):
    if isinstance(found, (np.ndarray, np.generic)):
        array = CardArray(0)
        array.held = np.asarray(found)
        return array
    if isinstance(found, (list, tuple)) and any(isinstance(part, np.ndarray) for part in found):
        return type(found)(map(_wrapped, found))
    return found


def _as_kernel(name: str, function: Callable) -> Callable:
    def run(*arguments, **options):
        Counter.add(name, waits=WAITS.get(name, 0))
        given = [_held(argument, name) for argument in arguments]
        return _wrapped(function(*given, **{key: _held(value, name) for key, value in options.items()}))

    return run


def _in_place(name: str) -> Callable:
    def run(self, other):
        Counter.add(name)
        getattr(operator, name.strip("_"))(self.held, _held(other, name))
        return self

    return run


PLAIN = "add sub mul truediv floordiv mod pow matmul and or xor eq ne lt le gt ge neg abs invert"
REVERSED = [f"__r{name}__" for name in "add sub mul truediv floordiv mod pow matmul and or xor".split()]
BUILTIN = {"and": "and_", "or": "or_"}
for _name in PLAIN.split():
    _function = getattr(operator, BUILTIN.get(_name, _name))

    def _make(function, name, reverse=False):
        def run(self, *others):
            given = [self.held, *(_held(other, name) for other in others)]
            Counter.add(name)
            return _wrapped(function(*(given[::-1] if reverse else given)))

        return run

    setattr(CardArray, f"__{_name}__", _make(_function, _name))
    if f"__r{_name}__" in REVERSED:
        setattr(CardArray, f"__r{_name}__", _make(_function, _name, reverse=True))
for _name in "iadd isub imul itruediv ipow iand ior".split():
    setattr(CardArray, f"__{_name}__", _in_place(_name))
CardArray.__hash__ = None
for _type in (float, int, bool):
    setattr(CardArray, f"__{_type.__name__}__", lambda self, convert=_type: convert(self.get()[()]))
CardArray.__index__ = CardArray.__int__


class CardModule(ModuleType):
    """What ``cupy`` is: numpy's functions on the card's arrays."""

    ndarray = CardArray

    def __init__(self, wrapped=np):
        super().__init__("standin_cupy")
        self._wrapped = wrapped

    def __getattr__(self, name):
        found = getattr(self._wrapped, name)
        if isinstance(found, type) or not (callable(found) or isinstance(found, ModuleType)):
            return found
        return CardModule(found) if isinstance(found, ModuleType) else _as_kernel(name, found)


class CardOps(CupyOps):
    """thinc's operations on the card: those of ``NumpyOps``, on the card's arrays."""

    name = "cupy"
    xp = CardModule()

    def to_numpy(self, data, *, byte_order=None):
        data = data.get() if isinstance(data, CardArray) else data
        return NumpyOps().to_numpy(data, byte_order=byte_order)


def _of_numpy_ops(name: str) -> Callable:
    def run(self, *arguments, **options):
        Counter.add(name)
        allowed = TAKES_NUMPY[0] if name.startswith("asarray") else name
        given = [_held(argument, allowed) for argument in arguments]
        found = getattr(NumpyOps(), name)(*given, **{key: _held(v, allowed) for key, v in options.items()})
        if name in ("scatter_add", "position_encode") and isinstance(found, np.ndarray):
            return arguments[0] if name == "scatter_add" else _wrapped(found)
        return _of_closure(found)

    return run


def _of_closure(found):
    """Results, among them functions that take the card's arrays."""
    if isinstance(found, tuple):
        return tuple(map(_of_closure, found))
    return _as_kernel("closure", found) if callable(found) else _wrapped(found)


WITH_LISTS_OF_MODELS = ("minibatch", "multibatch", "to_numpy", "__init__", "_get_batch", "get_iob_labels")
for _name in dir(NumpyOps):
    _is_own = not _name.startswith("_") and _name not in (*WITH_LISTS_OF_MODELS, "name", "xp", "cblas")
    if _is_own and callable(getattr(NumpyOps, _name)):
        setattr(CardOps, _name, _of_numpy_ops(_name))


def _from_dlpack(array):
    return CardTensor(torch.from_numpy(array.held)) if isinstance(array, CardArray) else array


def _cupy_from_dlpack(tensor: Tensor):
    array = CardArray(0)
    array.held = tensor.detach().held.numpy()
    return array


def _default_device():
    return DEVICE if isinstance(get_current_ops(), CardOps) else torch.device("cpu")


@contextmanager
def _everywhere(name: str, new) -> Iterator[None]:
    """A function replaced in every module that has imported it."""
    old = getattr(thinc.util, name)
    modules = [m for m in list(sys.modules.values()) if m is not None and m.__dict__.get(name) is old]
    for module in modules:
        setattr(module, name, new)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, name, old)


@contextmanager
def standin_gpu() -> Iterator:
    """What ``spacy.require_gpu()`` does, on the stand-in; gives the card, which counts."""
    before = get_current_ops()
    with (
        standin_card() as card,
        patch.object(Counter, "card", card),
        patch.multiple(thinc.util, cupy=CardOps.xp, has_cupy=True, cupy_from_dlpack=_cupy_from_dlpack),
        patch.object(thinc.types, "get_array_module", thinc.util.get_array_module),
        patch.object(thinc.backends, "CupyOps", CardOps),
        patch.object(torch.utils.dlpack, "from_dlpack", _from_dlpack),
        patch.object(torch.utils.dlpack, "to_dlpack", lambda tensor: tensor),
        _everywhere("is_torch_cuda_array", lambda value: isinstance(value, CardTensor)),
        _everywhere("get_torch_default_device", _default_device),
    ):
        set_current_ops(CardOps())
        try:
            yield card
        finally:
            set_current_ops(before)
