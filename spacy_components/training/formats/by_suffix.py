"""Any annotated file as documents, by the end of its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_components.sdp_graph import DEFAULT_KEY
from spacy_components.training.formats.base import FORMATS, Format, Wanted


def format_of(path: Path, given: str = "auto") -> Format:
    """The given format, or else the one of the suffix (before ``.gz``). Raises ValueError if unknown."""
    if given != "auto":
        return FORMATS[given]
    suffix = Path(path.name.removesuffix(".gz")).suffix
    suffixes = {format.suffix: format for format in FORMATS.values()}
    if suffix not in suffixes:
        raise ValueError(f"{path}: name a format, the suffix is not one of {', '.join(suffixes)}")
    return suffixes[suffix]


def read_docs(
    path: str | Path,
    vocab: Vocab,
    *,
    format: str = "auto",
    tree: bool = True,
    graph: bool = False,
    subtypes: bool = True,
    key: str = DEFAULT_KEY,
) -> Iterator[Doc]:
    """Yields the documents of a file.

    Args:
        path: of the file; ``.gz`` files are opened too.
        vocab: of the documents.
        format: a name of ``FORMATS``, or ``"auto"`` for the one of the file's suffix.
        tree, graph, subtypes, key: see :class:`~spacy_components.training.formats.base.Wanted`.

    Raises:
        FormatError: (a ValueError) bad text or data; it names the file, and the line of text.
        ValueError: an unknown format.
        OSError: a file that cannot be opened.
    """
    wanted = Wanted(tree, graph, subtypes, key)
    yield from format_of(Path(path), format).read(path, vocab, wanted)
