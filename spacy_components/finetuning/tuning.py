"""Training settings for a parser that comes from another pipeline.

A component with ``source = ...`` keeps the settings it was saved with; spaCy reads nothing else in its block.
So what it needs to be finetuned is set before training begins::

    [components.spigot_parser]
    source = "trained_parser"

    [initialize.before_init]
    @callbacks = "diffdecode.tune_parser.v1"
    component = "spigot_parser"
    grad_factor = 0.5
    drift = "kl"
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spacy import registry
from spacy.language import Language


@registry.callbacks("diffdecode.tune_parser.v1")
def create_tune_parser(
    component: str = "spigot_parser",
    freeze: list[str] | None = None,
    drift: str | None = None,
    drift_weight: float | None = None,
    grad_factor: float | None = None,
    surrogate: str | None = None,
    surrogate_options: dict[str, Any] | None = None,
    eta: float | None = None,
    loss: str | None = None,
) -> Callable[[Language], Language]:
    """A callback for ``[initialize.before_init]`` that changes how a parser is trained.

    component (str): Its name. The other settings are those of ``spigot_parser``; null leaves one as it is.
    """
    given = {
        "freeze": freeze,
        "drift": drift,
        "drift_weight": drift_weight,
        "grad_factor": grad_factor,
        "surrogate": surrogate,
        "surrogate_options": surrogate_options,
        "eta": eta,
        "loss": loss,
    }
    settings = {name: value for name, value in given.items() if value is not None}

    def tune(nlp: Language) -> Language:
        parser = nlp.get_pipe(component)
        if not hasattr(parser, "configure"):
            raise ValueError(
                f"'{component}' is no spigot_parser (but {type(parser).__name__}), and cannot be tuned "
                "through its trees. To make one of it: python -m spacy distill-parser"
            )
        parser.configure(**settings)
        parser.require_order(nlp)
        return nlp

    return tune
