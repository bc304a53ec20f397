"""spaCy's own ``.spacy`` files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from diffdecode.files.text import FormatError
from spacy_components.training.formats.base import FORMATS, Format


def read_docbin(path: str | Path, vocab: Vocab) -> Iterator[Doc]:
    """Yields the documents of a ``.spacy`` file. Raises FormatError (a ValueError) if it is damaged."""
    content = Path(path).read_bytes()
    try:
        yield from DocBin().from_bytes(content).get_docs(vocab)
    except Exception as error:  # of zlib, msgpack, numpy or spaCy, wherever the damage shows
        problem = f"spaCy cannot read it as a .spacy file ({type(error).__name__}: {error})"
        raise FormatError(path, None, problem) from error


FORMATS.register("spacy", Format(".spacy", lambda path, vocab, wanted: read_docbin(path, vocab)))
