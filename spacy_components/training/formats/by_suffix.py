"""Any annotated file as documents, by the end of its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from diffdecode.files.text import FormatError
from spacy_components.sdp_graph import DEFAULT_KEY
from spacy_components.training.formats.conllu_trees import read_conllu
from spacy_components.training.formats.labelled_text import read_labelled_text
from spacy_components.training.formats.sdp2015 import read_sdp2015

FORMATS = {".spacy": "spacy", ".sdp": "sdp2015", ".conllu": "conllu", ".tsv": "labelled-text"}


def format_of(path: Path, given: str = "auto") -> str:
    """The given format, or else the one of the suffix (before ``.gz``). Raises ValueError if unknown."""
    if given != "auto":
        if given not in FORMATS.values():
            raise ValueError(f"unknown format {given!r}, expected one of {', '.join(FORMATS.values())}")
        return given
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        raise ValueError(f"{path}: name a format, the suffix is not one of {', '.join(FORMATS)}")
    return FORMATS[suffix]


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
    """Yields the documents of a file; tree, graph and subtypes are for CoNLL-U (see ``read_conllu``).

    Args:
        key: of the graphs that are read from CoNLL-U and SDP 2015 (those of ``.spacy`` files have
            theirs). Raises FormatError (a ValueError) that names the file, and the line of bad text;
            ValueError for an unknown format; OSError for a file that cannot be opened.
    """
    match format_of(Path(path), format):
        case "spacy":
            yield from _read_docbin(path, vocab)
        case "sdp2015":
            yield from read_sdp2015(path, vocab, key=key)
        case "conllu":
            yield from read_conllu(path, vocab, tree=tree, graph=graph, subtypes=subtypes, key=key)
        case "labelled-text":
            yield from read_labelled_text(path, vocab)


def _read_docbin(path: str | Path, vocab: Vocab) -> Iterator[Doc]:
    content = Path(path).read_bytes()
    try:
        yield from DocBin().from_bytes(content).get_docs(vocab)
    except Exception as error:  # of zlib, msgpack, numpy or spaCy, wherever the damage shows
        problem = f"spaCy cannot read it as a .spacy file ({type(error).__name__}: {error})"
        raise FormatError(path, None, problem) from error
