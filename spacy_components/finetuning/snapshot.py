"""Parameters, and what an optimizer remembers of them, to go back to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from thinc.api import Model, Optimizer

from spacy_components.ml.thinc_glue.parameters import Steps, parameters

MEMORIES = ("mom1", "mom2", "averages", "nr_update", "last_seen")
"""Where a thinc optimizer keeps things by parameter."""


class Snapshot:
    """A copy of some models' parameters, and of their momentum and averages.

    Args:
        models: the models.
        optimizer: theirs, if it has begun.
    """

    def __init__(self, models: Iterable[Model], optimizer: Optimizer | None):
        self._models = list(models)
        self._values = [
            {key: value.copy() for key, value in parameters(model).items()} for model in self._models
        ]
        keys = {key for values in self._values for key in values}
        self._memories = {
            name: {key: _copy(memory[key]) for key in keys & memory.keys()}
            for name, memory in _memories(optimizer).items()
        }

    def restore(self, optimizer: Optimizer | None) -> None:
        """Put everything back in place, and forget gradients that wait for a step.

        Args:
            optimizer: the optimizer that steps the models.
        """
        for model, values in zip(self._models, self._values):
            model.finish_update(Steps(optimizer, set(values)))
            for key, value in parameters(model).items():
                value[...] = values[key]
            for name, memory in _memories(optimizer).items():
                saved = self._memories.get(name, {})
                for key in values:
                    memory.pop(key, None)
                    if key in saved:
                        memory[key] = _copy(saved[key])


def _memories(optimizer: Optimizer | None) -> dict[str, dict]:
    found = {name: getattr(optimizer, name, None) for name in MEMORIES}
    return {name: memory for name, memory in found.items() if memory is not None}


def _copy(value: Any) -> Any:
    return value.copy() if hasattr(value, "copy") else value
