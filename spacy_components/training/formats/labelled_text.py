"""One text a line with its class: ``label<TAB>text``, as in the binary Stanford Sentiment Treebank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_components.training.formats.files import FormatError, numbered_lines


def read_labelled_text(path: str | Path, vocab: Vocab) -> Iterator[Doc]:
    """Yields one document per line, words split at white space, with exclusive ``doc.cats``.

    Every document gets all labels of the file (1.0 for its own, 0.0 for the others), so the file is read
    twice.
    Raises FormatError (a ValueError) that names the file and line of bad input.
    """
    labels = sorted({label for label, _ in _rows(path)})
    for label, words in _rows(path):
        doc = Doc(vocab, words=words, spaces=[True] * (len(words) - 1) + [False])
        doc.cats = {name: float(name == label) for name in labels}
        yield doc


def _rows(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        label, tab, text = line.partition("\t")
        if not tab:
            raise FormatError(path, number, f"no tab in {line!r:.60}; expected label<TAB>text")
        if not label.strip() or not text.split():
            raise FormatError(path, number, f"empty label or text in {line!r:.60}")
        yield label.strip(), text.split()
