"""The one way to name a member: estimators, top-k operators and surrogates are found by their names.

A registry is a mapping that only grows. What a member can do is an attribute of the member, so that a new one
is one file: it registers itself, and nothing else has to learn its name.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

T = TypeVar("T")
M = TypeVar("M")


class UnknownName(ValueError, KeyError):
    """Nothing of that name is registered. A ``KeyError`` to mappings, a ``ValueError`` to users."""

    # A KeyError shows the repr of its message.
    __str__ = Exception.__str__


class Registry(Mapping[str, T]):
    """Members by name, in alphabetical order: the order of imports must not show.

    Args:
        kind: what its members are called in messages, e.g. ``"top-k operator"``.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._members: dict[str, T] = {}

    @overload
    def register(self, name: str) -> Callable[[M], M]: ...

    @overload
    def register(self, name: str, member: M) -> M: ...

    def register(self, name: str, member: Any = None) -> Any:
        """Name a member: ``register(name, member)``, or ``@register(name)`` above its definition.

        Returns:
            The member, unchanged.

        Raises:
            ValueError: the name is taken.
        """
        if member is None:
            return lambda defined: self.register(name, defined)
        if name in self._members:
            raise ValueError(f"a {self.kind} named {name!r} exists already")
        self._members[name] = member
        return member

    def __getitem__(self, name: str) -> T:
        """The member of that name.

        Raises:
            UnknownName: there is none; the message lists all names and the nearest one.
        """
        if name not in self._members:
            raise UnknownName(self._message(name))
        return self._members[name]

    def _message(self, name: object) -> str:
        near = difflib.get_close_matches(name, self._members, n=1) if isinstance(name, str) else []
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown {self.kind} {name!r}; {hint}known: {', '.join(self) or 'none'}"

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._members))

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"<registry of {self.kind}: {', '.join(self)}>"


def import_members(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that each registers what it defines.

    Call it as ``import_members(__name__, __path__)`` in an ``__init__``: a new member is then one new file.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
