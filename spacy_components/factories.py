"""The former place of the factories, which stand beside their classes now; goes with version 0.3."""

import importlib
import warnings
from typing import Any

MOVED = {
    "make_spigot_parser": "spigot_parser",
    "DEFAULT_PARSER_MODEL": "spigot_parser",
    "default_parser_config": "spigot_parser",
    "make_spigot_sdp": "spigot_sdp",
    "DEFAULT_SDP_MODEL": "spigot_sdp",
    "default_sdp_config": "spigot_sdp",
}


def __getattr__(name: str) -> Any:
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = f"spacy_components.pipeline.{MOVED[name]}"
    warnings.warn(f"{__name__}.{name} is {place}.{name} now", FutureWarning, stacklevel=2)
    return getattr(importlib.import_module(place), name)
