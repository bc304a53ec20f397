"""One text a line with its class: ``label<TAB>text``, as in the binary Stanford Sentiment Treebank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc
from spacy.vocab import Vocab

from diffdecode.files.text import FormatError, is_blank, numbered_lines, spaced_words
from spacy_components.training.formats.base import FORMATS, Format

MANY_LINES = 10
"""From so many lines on, a file with one class a line can only be a mistake."""


def read_labelled_text(path: str | Path, vocab: Vocab) -> Iterator[Doc]:
    """Yields one document per line, words split at spaces and tabs, with exclusive ``doc.cats``.

    Every document gets all labels of the file (1.0 for its own, 0.0 for the others), so the file is read
    twice.
    Raises FormatError (a ValueError) that names the file and line of bad input, and for a file in which the
    columns seem to be the other way round.
    """
    labels, texts = Counter[str](), Counter[str]()
    for label, words in _rows(path):
        labels[label] += 1
        texts[" ".join(words)] += 1
    _check_order(path, labels, texts)
    classes = sorted(labels)
    for label, words in _rows(path):
        doc = Doc(vocab, words=words, spaces=[True] * (len(words) - 1) + [False])
        doc.cats = {name: float(name == label) for name in classes}
        yield doc


def _rows(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in numbered_lines(path):
        if is_blank(line):
            continue
        label, tab, text = line.partition("\t")
        if not tab:
            raise FormatError(path, number, f"no tab in {line!r:.60}; expected label<TAB>text")
        if not label.strip() or not text.strip():
            raise FormatError(path, number, f"empty label or text in {line!r:.60}")
        yield label.strip(), spaced_words(text)


def _check_order(path: str | Path, labels: Counter[str], texts: Counter[str]) -> None:
    """Raises FormatError where the classes are as many as the lines, or more than the texts."""
    lines = labels.total()
    one_each = len(labels) == lines > 1
    longer = _words(labels) > _words(texts)
    if len(labels) > max(len(texts), 2) or (one_each and (longer or lines >= MANY_LINES)):
        raise FormatError(
            path,
            None,
            f"{len(labels)} classes in {lines} lines, with {len(texts)} different texts: are the two columns "
            "the other way round? Expected label<TAB>text",
        )


def _words(lines: Counter[str]) -> int:
    return sum(line.count(" ") + 1 for line in lines.elements())


FORMATS.register("labelled-text", Format(".tsv", lambda path, vocab, wanted: read_labelled_text(path, vocab)))
