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

from spacy_components.settings import SpigotParserSettings, takes_settings


@registry.callbacks("diffdecode.tune_parser.v1")
@takes_settings(SpigotParserSettings, SpigotParserSettings.of_training(), default=None)
def create_tune_parser(component: str = "spigot_parser", **settings: Any) -> Callable[[Language], Language]:
    """A callback for ``[initialize.before_init]`` that changes how a parser is trained.

    Args:
        component: its name; a ``spigot_sdp`` can be tuned as well.
        **settings: those of ``spigot_parser`` that are about training; null leaves one as it is.
    """
    given = {name: value for name, value in settings.items() if value is not None}

    def tune(nlp: Language) -> Language:
        parser = nlp.get_pipe(component)
        if not hasattr(parser, "configure"):
            raise ValueError(
                f"'{component}' is no spigot_parser or spigot_sdp (but {type(parser).__name__}), and cannot "
                "be tuned through its decisions. To make one of it: python -m spacy distill-parser"
            )
        parser.configure(**given)
        parser.require_order(nlp)
        return nlp

    return tune
