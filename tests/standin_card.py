"""A stand-in for a CUDA device, so that what goes wrong on a card goes wrong on a CPU, too.

``torch.device("card")`` is a device of PyTorch's for backends written in Python. Its tensors hold tensors of
the CPU, and inside a :class:`Card` all operations are carried out on these. What a card refuses is refused:
tensors of two devices in one operation, a generator of the CPU, ``numpy()``. What a card does asynchronously
and what waits for it is told apart, and counted: see ``Card.waits`` and ``Card.kernels``. Where
``diffdecode.structure`` has a kernel for cards, numba's is called as Triton's is: in one piece and without a
wait. All else of numba's is what it is on a card, too: a round trip.

Its tensors are on ``card:1``. One that is made on "the" card, that is on the current one, is on ``card:0``,
where it cannot be used with them.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("diffdecode", "fairseq_plugins", "spacy_components")
REGISTER = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)

DEVICE = torch.device("privateuseone", 1)  # card:1, by the name that it has from the start
KERNELS = ("best", "marginals", "covariance_product", "sample", "simplex", "p_dep", "possible")
"""What a backend for cards has of its own; test_triton.py compares them with Triton's."""

READS = {aten._local_scalar_dense.default: 1, aten.equal.default: 1, aten._linalg_check_errors.default: 1}
SIZED_BY_VALUES = {
    aten.nonzero.default: 1,
    aten.masked_select.default: 1,
    aten.bincount.default: 1,
    aten._unique2.default: 1,
    aten.unique_dim.default: 1,
    aten.unique_consecutive.default: 1,
    aten.repeat_interleave.Tensor: 1,
    aten.multinomial.default: 2,  # looks for negative and infinite weights
}
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
ALLOCATIONS = (
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
)
NUMBER = aten.scalar_tensor.default  # what Python's ``x[...] = number`` makes of the number
COPIES = (aten._to_copy.default, aten.copy_.default)
WITH_SIZES_ON_THE_CPU = (
    aten._pack_padded_sequence.default,
    aten._pack_padded_sequence_backward.default,
    aten._pad_packed_sequence.default,
)


class CardTensor(Tensor):
    """A tensor on a card; ``held`` is the tensor of the CPU that has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device = DEVICE):
        return Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )

    def __init__(self, held: Tensor, device: torch.device = DEVICE):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a tensor of the stand-in card, outside of it")

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):
        Tensor.data.__set__(self, other)
        self.held = other.held

    def tolist(self):
        return self.detach().cpu().tolist()

    def numpy(self, **options):
        raise TypeError("can't convert card device type tensor to numpy")

    def __array__(self, dtype=None):
        return self.numpy()

    def __repr__(self):
        return f"CardTensor({self.held!r})"


class CardGenerator(torch.Generator):
    """Random numbers of the card's. PyTorch hands on what is in it, not itself: ``made`` knows it again."""

    made: ClassVar[set[int]] = set()

    def __init__(self):
        self.made.add(self._cdata)

    def __del__(self):
        self.made.discard(self._cdata)  # another may come to lie in its place

    @property
    def device(self):
        return DEVICE


class Card(TorchDispatchMode):
    """Inside, ``torch.device("card")`` can be used.

    Attributes:
        waits: one entry for each time that the CPU had to wait for the card: which operation, and the line of
            ours that it came from.
        kernels: how many operations were started on the card (views and empty tensors are none).
        copies: one entry for each tensor that was brought from the CPU to the card or back, waiting or not.
    """

    def __init__(self):
        super().__init__()
        self.reset()

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) copies where this sees it
        _Module.cards.append(self)
        return super().__enter__()

    def __exit__(self, *raised):
        torch._C._set_only_lift_cpu_tensors(False)
        _Module.cards.pop()
        return super().__exit__(*raised)

    @staticmethod
    def line_of_ours() -> str:
        """The line of this project's packages that is being run."""
        return line_of_ours()

    def reset(self) -> None:
        """Count from 0."""
        self.waits: list[str] = []
        self.copies: list[str] = []
        self.kernels = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, CardTensor)]
        asked_for = kwargs.get("device")
        place = _card_of(asked_for if asked_for is not None else ours[0].device if ours else None)
        if func is aten.copy_.default:
            place = _card_of(args[0].device)
        if not ours and not place:
            return _by_hand(func)(*args, **kwargs)
        self._refuse(func, args, kwargs, tensors, ours)
        self._count(func, args, kwargs, tensors, bool(place))
        if asked_for is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        found = _by_hand(func)(*tree_map(_held, args), **tree_map(_held, kwargs))
        if not place:
            return found
        if func is aten._pack_padded_sequence.default:
            return _on_card(found[0], place), found[1]
        if func is NUMBER:
            found = _on_card(found, place)
            found.is_number = True
            return found
        known = {id(tensor.held): tensor for tensor in ours}
        return tree_map(lambda leaf: known[id(leaf)] if id(leaf) in known else _on_card(leaf, place), found)

    def _refuse(self, func, args, kwargs, tensors, ours) -> None:
        generator = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.Generator)), None)
        if generator is not None and generator._cdata not in CardGenerator.made:
            raise RuntimeError(f"{func}: expected a 'card' device type for generator but found 'cpu'")
        devices = {tensor.device for tensor in ours}
        if ours and func not in (*INDEXED, *WITH_SIZES_ON_THE_CPU):  # which may have others on the CPU
            devices |= {tensor.device for tensor in tensors if tensor.dim()}
        if len(devices) > 1 and func not in COPIES:
            names = " and ".join(sorted(map(str, devices)))
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {names}")

    def _count(self, func, args, kwargs, tensors, to_card) -> None:
        self.kernels += not func.is_view and func not in ALLOCATIONS and func is not NUMBER
        waits = READS.get(func, 0) + SIZED_BY_VALUES.get(func, 0)
        if func in INDEXED:
            waits += self._waits_of_index(func, args)
        if func in COPIES:
            blocking = not (
                kwargs.get("non_blocking") or (func is aten.copy_.default and args[2:] == (True,))
            )
            crosses = len({isinstance(t, CardTensor) for t in tensors[:2]} | {to_card}) == 2
            crosses |= func is aten.copy_.default and _is_number(args[1])
            self.copies += [line_of_ours()] * crosses
            waits += blocking and crosses
        if waits:
            self.waits += [f"{func} {line_of_ours()}"] * int(waits)

    @staticmethod
    def _waits_of_index(func, args) -> int:
        index = [i for i in args[1] if i is not None]
        moved = sum(not isinstance(i, CardTensor) for i in index)
        masks = [i for i in index if i.dtype in (torch.bool, torch.uint8) and isinstance(i, CardTensor)]
        if func is aten.index.Tensor:
            return moved + len(masks)
        on_cpu = _is_number(args[2]) or not isinstance(args[2], CardTensor)
        if len(masks) == len(index) == 1 and args[2].numel() == 1:  # a masked fill, with a number
            return not on_cpu
        return moved + len(masks) + on_cpu


def _is_number(tensor: Tensor) -> bool:
    """Whether it is the number of ``x[...] = number``: CUDA leaves it on the CPU until it is copied."""
    return getattr(tensor, "is_number", False)


def _held(leaf):
    return leaf.held if isinstance(leaf, CardTensor) else leaf


def _card_of(device) -> torch.device | None:
    """The card that this names, the current one if it has no number; None for another device."""
    device = torch.device(device or "cpu")
    return torch.device(DEVICE.type, device.index or 0) if device.type == DEVICE.type else None


def _on_card(leaf, place: torch.device = DEVICE):
    is_ours = isinstance(leaf, CardTensor)
    return CardTensor(leaf, place) if isinstance(leaf, Tensor) and not is_ours else leaf


def line_of_ours() -> str:
    stack = traceback.extract_stack()
    frames = [frame for frame in stack if frame.filename.startswith(tuple(f"{ROOT / p}/" for p in PACKAGES))]
    return f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "elsewhere"


def _fused_cell(by_input, by_hidden, cell, input_bias=None, hidden_bias=None):
    """What cuDNN's place is taken by: gates in PyTorch's order, and what the backward pass needs of them."""
    gates = by_input + by_hidden
    gates = gates if input_bias is None else gates + input_bias + hidden_bias
    let_in, forget, new, out = gates.chunk(4, 1)
    let_in, forget, new, out = let_in.sigmoid(), forget.sigmoid(), new.tanh(), out.sigmoid()
    now = forget * cell + let_in * new
    return out * now.tanh(), now, torch.cat([let_in, forget, new, out], 1)


def _fused_cell_backward(by_hidden, by_cell, before, now, gates, has_bias):
    let_in, forget, new, out = gates.chunk(4, 1)
    by_hidden = torch.zeros_like(now) if by_hidden is None else by_hidden
    bent = now.tanh()
    by_now = by_hidden * out * (1 - bent**2) + (0 if by_cell is None else by_cell)
    by_gates = torch.cat(
        [
            by_now * new * let_in * (1 - let_in),
            by_now * before * forget * (1 - forget),
            by_now * let_in * (1 - new**2),
            by_hidden * bent * out * (1 - out),
        ],
        1,
    )
    return by_gates, by_now * forget, by_gates.sum(0) if has_bias else None


BY_HAND = {
    aten._thnn_fused_lstm_cell.default: _fused_cell,
    aten._thnn_fused_lstm_cell_backward_impl.default: _fused_cell_backward,
    aten._pin_memory.default: lambda tensor, *device: tensor,
}


def _by_hand(func) -> Callable:
    return BY_HAND.get(func, func)


class _Module(backend_registration._DummyBackendModule if REGISTER else object):
    """What PyTorch asks a device about. It is known to the process from the first card on, but there is one
    inside a :class:`Card` only: elsewhere PyTorch is not to pin memory for it, say.
    """

    cards: ClassVar[list["Card"]] = []

    def is_available(self):
        return bool(self.cards)

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]


def _is_registered() -> bool:
    if REGISTER is None:
        return False
    if not hasattr(torch, "card"):
        REGISTER("card", _Module())
    return True


def _as_kernel(function: Callable) -> Callable:
    """A function of the CPU's tensors, as a kernel of the card's."""

    def run(*arguments):
        return tree_map(_on_card, function(*tree_map(_held, arguments)))

    return run


def _kernels(backend):
    """A backend with kernels that run on the card."""
    changes = {}
    for name, member in vars(backend).items():
        if is_dataclass(member):
            changes[name] = _kernels(member)
        elif name in KERNELS:
            changes[name] = _as_kernel(member)
    return replace(backend, **changes)


@contextmanager
def standin_card() -> Iterator[Card]:
    """A card for the time being. Skips the test where PyTorch is too old to have such devices."""
    if not _is_registered():
        pytest.skip("this PyTorch has no devices written in Python (2.10 or so has)")
    from diffdecode.structure import kernels

    load = kernels._load
    preferred = {**kernels._PREFERRED, "card": ("triton",)}
    with (
        patch.object(kernels, "_PREFERRED", preferred),
        patch.object(kernels, "is_installed", lambda name: True),
        patch.object(
            kernels, "_load", lambda name: _kernels(load("numba")) if name == "triton" else load(name)
        ),
        torch.autograd.set_multithreading_enabled(False),  # threads are for devices there were from the start
        Card() as card,
    ):
        yield card
