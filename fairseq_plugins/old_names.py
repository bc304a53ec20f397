"""Options that have been renamed: their old names work for one release, with a warning."""

import warnings
from dataclasses import field, fields
from typing import Any


def old_name(new: str, values: dict[str, str] | None = None) -> Any:
    """A field of a configuration that stands for the field ``new``, until 0.3.

    It is an option of the command line and a name in configurations like any other field; its type is
    ``Optional[str]``.

    Args:
        new: name of the field that has taken its place.
        values: new names of its values, where these have changed, too.
    """
    metadata = {"help": f"old name of --{_option(new)}, until 0.3", "new": new, "values": values or {}}
    return field(default=None, metadata=metadata)


def follow_old_names(cfg: Any, config: type) -> None:
    """Move what was given under old names to the new ones, with a warning each.

    Args:
        cfg: the options, an instance of ``config`` or fairseq's container of one.
        config: the class with the fields.

    Raises:
        ValueError: both the old and the new name are given.
    """
    defaults = {one.name: one.default for one in fields(config)}
    for one in fields(config):
        new = one.metadata.get("new")
        value = None if new is None else getattr(cfg, one.name)
        if value is None:
            continue
        if getattr(cfg, new) != defaults[new]:
            raise ValueError(f"--{_option(one.name)} is the old name of --{_option(new)}: give one of them")
        now = one.metadata["values"].get(value, value)
        warnings.warn(
            f"--{_option(one.name)} {value} is now --{_option(new)} {now}; the old name goes with 0.3",
            FutureWarning,
            stacklevel=2,
        )
        setattr(cfg, new, now)
        setattr(cfg, one.name, None)


def _option(name: str) -> str:
    return name.replace("_", "-")
