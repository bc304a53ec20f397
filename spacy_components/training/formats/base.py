"""What a file format is to its readers: a name, an ending of file names, and a function that reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spacy.tokens import Doc
from spacy.vocab import Vocab

from diffdecode.registry import Registry
from spacy_components.sdp_graph import DEFAULT_KEY


@dataclass(frozen=True)
class Wanted:
    """What to read of files that have more than one annotation.

    Attributes:
        tree: the basic tree of CoNLL-U.
        graph: the enhanced graph of CoNLL-U.
        subtypes: relations of CoNLL-U with what follows their colon.
        key: of the graphs that are read, where the file does not name it.
    """

    tree: bool = True
    graph: bool = False
    subtypes: bool = True
    key: str = DEFAULT_KEY


@dataclass(frozen=True)
class Format:
    """A format: the ending of its files' names (before ``.gz``), and its reader."""

    suffix: str
    read: Callable[[str | Path, Vocab, Wanted], Iterator[Doc]]


FORMATS: Registry[Format] = Registry("format")
