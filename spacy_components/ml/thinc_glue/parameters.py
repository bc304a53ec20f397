"""The parameters of a thinc model, those of the torch modules inside of it included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from thinc.api import Model, Optimizer, PyTorchShim, torch2xp

Key = tuple[int, str]
"""What an optimizer knows a parameter by."""

TOK2VEC, SCORER = "tok2vec", "scorer"


def parameters(model: Model) -> dict[Key, Any]:
    """Arrays by their key in the optimizer; those of torch modules share memory with them.

    Args:
        model: the model.

    Returns:
        all parameters that have been initialized.
    """
    return dict(_parameters(model.walk()))


def _parameters(nodes: Iterable[Model]) -> Iterator[tuple[Key, Any]]:
    for node in nodes:
        for name in node.param_names:
            if node.has_param(name):
                yield (node.id, name), node.get_param(name)
        for shim, module in _torch_modules([node]):
            for name, value in module.named_parameters():
                yield (shim.id, name), torch2xp(value.detach())


def named_parameters(model: Model) -> Iterator[tuple[str, Any]]:
    """Where each parameter is, for messages, and its array.

    Args:
        model: the model.
    """
    for node in model.walk():
        for (_, name), value in _parameters([node]):
            yield f"{name} ({node.name})", value


def _torch_modules(nodes: Iterable[Model]) -> Iterator[tuple[PyTorchShim, Any]]:
    for node in nodes:
        for shim in node.shims:
            if isinstance(shim, PyTorchShim) and shim._model is not None:
                yield shim, shim._model


def keys_of_part(model: Model, part: str) -> set[Key]:
    """Keys of the parameters in one part of a parser's model.

    Args:
        model: the model, initialized.
        part: ``tok2vec``, ``scorer`` (all the rest), or the name of a module within the scorer, such as
            ``encoder`` (the BiLSTM) or ``label``.

    Returns:
        the keys.

    Raises:
        ValueError: there are none.
    """
    tok2vec = model.maybe_get_ref("tok2vec")
    encoder = list(tok2vec.walk()) if tok2vec is not None else []
    inside = set(map(id, encoder))
    rest = [node for node in model.walk() if id(node) not in inside]
    if part == TOK2VEC:
        keys = {key for key, _ in _parameters(encoder)}
    elif part == SCORER:
        keys = {key for key, _ in _parameters(rest)}
    else:
        of_modules = [(shim.id, name) for shim, m in _torch_modules(rest) for name, _ in m.named_parameters()]
        keys = {key for key in of_modules if key[1] == part or key[1].startswith(f"{part}.")}
    if not keys:
        modules = sorted({name for _, module in _torch_modules(rest) for name in _module_names(module)})
        raise ValueError(
            f"freeze: {model.name} has no parameters of its own in {part!r}. Known are {TOK2VEC}, {SCORER}, "
            f"and the scorer's {', '.join(modules)}. (A tok2vec or transformer that is a component by itself "
            "is frozen by [training] frozen_components and annotating_components.)"
        )
    return keys


def _module_names(module: Any, prefix: str = "") -> list[str]:
    """The modules inside of a module; for a mere wrapper, those inside of what it wraps."""
    children = dict(module.named_children())
    if len(children) == 1:
        ((name, child),) = children.items()
        return _module_names(child, f"{prefix}{name}.") or [prefix + name]
    return [prefix + name for name in children]


def require_step_size(step_size: float) -> None:
    """Raises ValueError for a factor on the learning rate that is not above 0."""
    if not step_size > 0:
        raise ValueError(f"step_size must be above 0, got {step_size!r}")


class Steps:
    """An optimizer that leaves some parameters exactly as they are (no step, no momentum, no weight decay),
    and makes smaller steps with the others.

    Args:
        optimizer: steps them; or the function of ``nlp.rehearse``, which only collects gradients.
        frozen: keys of those that stay.
        size: what the learning rate is multiplied with.
    """

    def __init__(self, optimizer: Optimizer, frozen: set[Key], size: float = 1.0):
        self._optimizer = optimizer
        self._frozen = frozen
        self._scale = {"lr_scale": size} if size != 1 and isinstance(optimizer, Optimizer) else {}

    def __call__(self, key: Key, weights, gradient):
        if key not in self._frozen:
            return self._optimizer(key, weights, gradient, **self._scale)
        gradient *= 0  # as thinc's optimizer does with a gradient that it has used
        return weights, gradient

    def __getattr__(self, name: str):
        return getattr(self._optimizer, name)
