"""A torch module inside a thinc model, without the traps of the stock shim."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import numpy
import srsly
import torch
from thinc.api import Optimizer, PyTorchShim, get_torch_default_device, torch2xp, xp2torch

from spacy_components.ml.thinc_glue.untrusted import MemoryBudget, blamed_on


class TorchShim(PyTorchShim):
    """A torch module that is built once its widths are known. Unlike thinc's own shim,

    - its bytes carry the widths, so that an untouched copy can be loaded, and hold arrays and no pickle;
    - ``use_params`` applies averaged parameters (the stock shim looks for them under other keys, and so
      evaluates a mixture of averaged thinc and plain torch layers);
    - a parameter that got no gradient stays as it is (the stock shim leaves zeros, on which Adam's momentum
      and the weight decay go on);
    - memory does not grow: a step writes into the parameter (the stock shim makes it a view of an array that
      is a view of the parameter before it, so that each step lengthens a chain of views).

    Args:
        build: makes the module from the widths given to ``materialize``.
    """

    def __init__(self, build: Callable[..., torch.nn.Module]):
        super().__init__(None)
        self._build = build

    @property
    def module(self) -> torch.nn.Module | None:
        """The module, once it has been built."""
        return self._model

    def materialize(self, **widths: int) -> None:
        """Build the module, unless there is one already.

        Args:
            **widths: sizes that only data can tell, such as the number of labels.
        """
        if self._model is None:
            self.adopt(self._build(**widths), **widths)

    def adopt(self, module: torch.nn.Module, **widths: Any) -> None:
        """Take a module that was built already.

        Args:
            module: what ``build`` makes from these widths.
            **widths: the widths.
        """
        self.cfg = widths
        self._model = module.to(get_torch_default_device())

    def finish_update(self, optimizer: Optimizer) -> None:
        """Step every parameter that has a gradient."""
        for name, parameter in self._parameters():
            if parameter.grad is not None:
                value, _ = optimizer((self.id, name), torch2xp(parameter.data), torch2xp(parameter.grad))
                parameter.data.copy_(xp2torch(value, device=parameter.device))
                parameter.grad = None

    @contextlib.contextmanager
    def use_params(self, params: dict[Any, Any]):
        """Use other values for a while, found under the keys that ``finish_update`` gives the optimizer."""
        backup = {}
        for name, parameter in self._parameters():
            value = params.get((self.id, name))
            if value is not None:
                backup[name] = parameter.data
                parameter.data = xp2torch(value, device=parameter.device).clone()
        try:
            yield
        finally:
            for name, parameter in self._parameters():
                parameter.data = backup.get(name, parameter.data)

    def copy(self) -> "TorchShim":
        """A copy with an identity of its own in the optimizer."""
        copied = TorchShim(self._build)
        copied.cfg = dict(self.cfg)
        copied._model = copy.deepcopy(self._model)
        return copied

    def to_device(self, device_type: str, device_id: int) -> None:
        """Move the module, if there is one."""
        if self._model is not None:
            super().to_device(device_type, device_id)

    def to_bytes(self) -> bytes:
        """The widths and the parameters."""
        state = {} if self._model is None else self._model.state_dict()
        state = {name: value.detach().cpu().numpy() for name, value in state.items()}
        return srsly.msgpack_dumps({"widths": self.cfg, "state": state})

    def from_bytes(self, bytes_data: bytes) -> "TorchShim":
        """Load what ``to_bytes`` wrote; a module of other widths is replaced.

        Args:
            bytes_data: the output of ``to_bytes``.

        Returns:
            itself.

        Raises:
            UnusableFile: this is not what it wrote.
        """
        self.cfg, self._model = {}, None
        with blamed_on("a saved model"):
            message = srsly.msgpack_loads(bytes_data)
            state = {name: torch.from_numpy(numpy.array(value)) for name, value in message["state"].items()}
            if message["widths"]:
                with MemoryBudget(sum(value.numel() for value in state.values())):
                    module = self._build(**message["widths"])
                module.load_state_dict(state)
                self.adopt(module, **message["widths"])
        return self

    def _parameters(self):
        return [] if self._model is None else list(self._model.named_parameters())
