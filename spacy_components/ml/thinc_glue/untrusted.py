"""What saves a program from the files that it reads: damaged ones, and those that mean harm.

A saved model may come from anywhere. Nothing in it is executed (``torch.load(weights_only=True)``, arrays
instead of pickles); here is what else it takes.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import prod
from typing import Any

import torch
from thinc.api import Model, PyTorchShim
from thinc.shims.pytorch import default_deserialize_torch_model
from torch.overrides import TorchFunctionMode

DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
"""Names that are no files on Windows, whatever follows after a dot."""


def bare_name(name: Any) -> str:
    """A file's name that leads to no other folder and no device, on any system.

    Args:
        name: what a file says the name is.

    Returns:
        the name.

    Raises:
        UnusableFile: any other.
    """
    harmless = isinstance(name, str) and re.fullmatch(r'[^/\\:*?"<>|\x00-\x1f\x7f]{1,200}', name)
    if not harmless or name[-1] in ". " or name.partition(".")[0].strip().lower() in DEVICES:
        raise UnusableFile(f"{name!r:.80} is no name of a file in its own folder")
    return name


class UnusableFile(ValueError):
    """A file that cannot be used, with the reason."""


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of what is read there.

    Args:
        what: what that is, for the message. Raises UnusableFile, in one line, for every error but that of
            a missing package.
    """
    try:
        yield
    except ImportError:
        raise
    except UnusableFile as error:
        raise error if what in str(error) else UnusableFile(f"{what}: {error}") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnusableFile(f"{what} is damaged, or of another version ({reason:.300})") from error


class MemoryBudget(TorchFunctionMode):
    """Inside of it no module can be built that is much larger than the file it comes from.

    Args:
        elements: how many numbers the file holds.
    """

    FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
    SLACK = 3, 10**6
    """A module may be built more than once on the way, and has buffers that are not saved."""

    def __init__(self, elements: int):
        super().__init__()
        factor, more = self.SLACK
        self._left = factor * elements + more

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.FACTORIES:
            self._left -= _elements(*args, **kwargs)
            if self._left < 0:
                raise UnusableFile("this file describes a module that is far larger than what it holds")
        return func(*args, **kwargs)


def _elements(*args, size: Sequence[int] | None = None, **_) -> int:
    """Of the tensor that ``torch.empty`` and the like make of sizes, or of a sequence of them."""
    if size is None:
        size = args if not args or hasattr(args[0], "__index__") else args[0]
    return prod(size)


def read_weights_only(model: Model) -> None:
    """Have the torch modules of spaCy and thinc inside a model read tensors only.

    Their bytes are those of ``torch.save``; before torch 2.6, reading them could execute what is in them.

    Args:
        model: the model, changed in place.
    """
    for node in model.walk():
        for shim in node.shims:
            if isinstance(shim, PyTorchShim) and shim._deserialize_model is default_deserialize_torch_model:
                shim._deserialize_model = _load_weights


def _load_weights(module: torch.nn.Module, content: bytes, device: torch.device) -> torch.nn.Module:
    with blamed_on(f"a saved {type(module).__name__}"):
        module.load_state_dict(torch.load(BytesIO(content), map_location=device, weights_only=True))
    return module.to(device)
