"""Options of criterions, tasks and models: each is written once, with default, meaning and source.

fairseq makes options of the command line and names of hydra configurations from the fields of a dataclass.
``option``, ``old_name`` and ``old_switch`` make such fields; ``python -m fairseq_plugins``,
``fairseq-train --help`` and the tables in the documentation show what they say.
"""

import warnings
from argparse import Action, ArgumentDefaultsHelpFormatter
from collections.abc import Iterator
from dataclasses import Field, field, fields
from typing import Any, NamedTuple


class Row(NamedTuple):
    """An option as it is shown.

    Attributes:
        name: ``--soft-beam-size``.
        default: as text: ``none`` for ``None``, ``off`` for a switch.
        meaning: what it does.
        source: paper and section, or ``ours``.
    """

    name: str
    default: str
    meaning: str
    source: str


class DefaultsOnce(ArgumentDefaultsHelpFormatter):
    """Shows defaults, but where a help text tells its own, and of switches and of what is not there none."""

    def _get_help_string(self, action: Action) -> str | None:
        if "default:" in (action.help or "") or action.default in (None, False, "", []):
            return action.help
        return super()._get_help_string(action)


def option(default: Any, meaning: str, source: str, alias: str | None = None) -> Any:
    """A field of a configuration.

    Args:
        default: its default.
        meaning: what it does, in half a sentence.
        source: the paper and section that it comes from, ``fairseq``, or ``ours``.
        alias: a short name, such as ``-s``.
    """
    text = f"{meaning} (default: {_shown(default)}; source: {source})"
    metadata = {"help": text.replace("%", "%%"), "meaning": meaning, "source": source}
    return field(default=default, metadata=metadata | ({"argparse_alias": alias} if alias else {}))


def rows(config: type) -> Iterator[Row]:
    """The options of a configuration that are ours: fields made by ``option``, inherited ones first."""
    for one in fields(config):
        if "source" in one.metadata:
            yield Row(option_name(one), _shown(one.default), one.metadata["meaning"], one.metadata["source"])


def old_name(new: str, values: dict[str, str] | None = None) -> Any:
    """A field of a configuration that stands for the field ``new``, until 0.3; its type is ``Optional[str]``.

    Args:
        new: name of the field that has taken its place.
        values: new names of its values, where these have changed, too.
    """
    metadata = {"help": f"old name of {option_name(new)}, until 0.3", "new": new, "values": values or {}}
    return field(default=None, metadata=metadata)


def old_switch(new: str, value: str) -> Any:
    """A field of a configuration, a switch, that stands for ``value`` of the field ``new``, until 0.3."""
    text = f"old name of {option_name(new)} {value}, until 0.3"
    return field(default=False, metadata={"help": text, "new": new, "values": {True: value}})


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
        if new is None or getattr(cfg, one.name) == one.default:
            continue
        value = getattr(cfg, one.name)
        if getattr(cfg, new) != defaults[new]:
            raise ValueError(f"{option_name(one)} is the old name of {option_name(new)}: give one of them")
        now = one.metadata["values"].get(value, value)
        given = option_name(one) if value is True else f"{option_name(one)} {value}"
        warnings.warn(
            f"{given} is now {option_name(new)} {now}; the old name goes with 0.3",
            FutureWarning,
            stacklevel=2,
        )
        setattr(cfg, new, now)
        setattr(cfg, one.name, one.default)


def option_name(one: Field | str) -> str:
    """``--soft-beam-size`` of the field ``soft_beam_size``."""
    return "--" + (one if isinstance(one, str) else one.name).replace("_", "-")


def _shown(default: Any) -> str:
    if default is None or default is False:
        return "none" if default is None else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)
