"""The format of SemEval 2015 Task 18: ``#SDP 2015``, then tab-separated tokens with one column per predicate.

Columns: id, form, lemma, pos, top (+/-), pred (+/-), frame, and then, for the k-th token with pred ``+`` in
order, the label of the arc from that predicate to the row's token, or ``_``. Lemmas and frames are part of
the annotation, not of the input, so they do not go into the documents. A pos ``_`` is no tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, takewhile
from pathlib import Path
from typing import TextIO

from spacy.tokens import Doc
from spacy.vocab import Vocab

from diffdecode.files.text import UNWRITABLE, Block, FormatError, blocks
from spacy_components.sdp_graph import DEFAULT_KEY, get_graph, set_graph
from spacy_components.training.formats.base import FORMATS, Format

HEADER = "#SDP 2015"
FIXED_COLUMNS = 7
NOTHING = "_"
SENTENCE_ID = "sent_id"


def read_sdp2015(path: str | Path, vocab: Vocab, *, key: str = DEFAULT_KEY) -> Iterator[Doc]:
    """Yields one document per sentence with words, tags, ``doc._.sdp`` and ``doc.user_data["sent_id"]``.

    Args:
        key: of the graph on the document, if it is not to be ``sdp``. Raises FormatError (a ValueError)
            that names the file and line of bad input.
    """
    sentences = blocks(path)
    first = next(sentences, Block(1, [""]))
    if first.lines[0].strip() != HEADER:
        raise FormatError(path, first.start, f"expected the header {HEADER!r}, found {first.lines[0]!r:.60}")
    rest = Block(first.start + 1, first.lines[1:])
    for block in chain([rest] if rest.lines else [], sentences):
        yield _read_sentence(path, block, vocab, key)


def _read_sentence(path: str | Path, block: Block, vocab: Vocab, key: str) -> Doc:
    comments = list(takewhile(lambda line: line.startswith("#"), block.lines))
    start = block.start + len(comments)
    rows = [line.split("\t") for line in block.lines[len(comments) :]]
    if not rows:
        raise FormatError(path, block.start, f"sentence {comments[0]!r:.60} has no tokens")
    for i, row in enumerate(rows):
        _check_columns(path, start + i, row, i + 1)
    predicates = [i for i, row in enumerate(rows) if row[5] == "+"]
    arcs = []
    for i, row in enumerate(rows):
        _check_arguments(path, start + i, row, len(predicates), i in predicates and predicates.index(i))
        labels = row[FIXED_COLUMNS:]
        arcs += [(head, i, label) for head, label in zip(predicates, labels) if label != NOTHING]
    doc = Doc(
        vocab,
        words=[row[1] for row in rows],
        tags=["" if row[3] == NOTHING else row[3] for row in rows],
        sent_starts=[i == 0 for i in range(len(rows))],
    )
    set_graph(doc, arcs, [i for i, row in enumerate(rows) if row[4] == "+"], key)
    if comments:
        doc.user_data[SENTENCE_ID] = comments[0][1:].strip()
    return doc


def _check_columns(path: str | Path, line: int, row: list[str], number: int) -> None:
    if len(row) < FIXED_COLUMNS:
        raise FormatError(path, line, f"{len(row)} tab-separated columns, expected at least {FIXED_COLUMNS}")
    if row[0] != str(number):
        raise FormatError(path, line, f"token id {row[0]!r}, expected {number}")
    for name, value in (("top", row[4]), ("pred", row[5])):
        if value not in ("+", "-"):
            raise FormatError(path, line, f"column {name} is {value!r}, expected + or -")
    if not row[1]:
        raise FormatError(path, line, "empty word form")


def _check_arguments(path: str | Path, line: int, row: list[str], predicates: int, own: int | bool) -> None:
    labels = row[FIXED_COLUMNS:]
    if len(labels) != predicates:
        raise FormatError(
            path, line, f"{len(labels)} argument columns, but the sentence has {predicates} predicates"
        )
    if "" in labels:
        raise FormatError(path, line, "empty argument column, expected a label or _")
    if own is not False and labels[own] != NOTHING:
        raise FormatError(path, line, f"arc {labels[own]!r} from the token to itself")


def write_sdp2015(docs: Iterable[Doc], file: TextIO, *, key: str = DEFAULT_KEY) -> None:
    """Writes documents with a graph in the same format, one sentence each, lemma and frame as ``_``.

    Args:
        key: of the graph that is written. Nothing is written then.

    Raises:
        ValueError: what :func:`read_sdp2015` could not give back: a document without tokens or without a
            graph, two labels on one pair of tokens (the format has room for one), the label or tag ``_``
            (which means that there is none), and a tab, line end or NUL in a word, tag, label or sentence
            id.
    """
    sentences = []
    for number, doc in enumerate(docs, start=1):
        name = str(doc.user_data.get(SENTENCE_ID, number))
        if UNWRITABLE & set(name) or name != name.strip():
            raise ValueError(f"document {number}: the sentence id {name!r:.60} cannot be written in one line")
        sentences.append(
            f"#{name}\n" + "".join("\t".join(row) + "\n" for row in _rows(doc, name, key)) + "\n"
        )
    file.write("".join([f"{HEADER}\n", *sentences]))


def _rows(doc: Doc, name: str, key: str) -> Iterator[list[str]]:
    graph = get_graph(doc, key)
    if graph is None:
        raise ValueError(f"document {name} has no graph in doc._.{key}")
    if not len(doc):
        raise ValueError(f"document {name} has no tokens; SDP 2015 cannot write that")
    predicates = sorted({arc.head for arc in graph.arcs})
    labels = {(arc.head, arc.dep): _cell(name, "label", arc.label) for arc in graph.arcs}
    if len(labels) < len(graph.arcs):
        raise ValueError(
            f"document {name} has two arcs between the same two tokens; SDP 2015 cannot write that"
        )
    for token in doc:
        word = token.text if token.text == NOTHING else _cell(name, "word", token.text)
        tag = _cell(name, "tag", token.tag_) if token.tag_ else NOTHING
        top, pred = ("+" if token.i in tokens else "-" for tokens in (graph.top, predicates))
        fixed = [str(token.i + 1), word, NOTHING, tag, top, pred, NOTHING]
        yield fixed + [labels.get((head, token.i), NOTHING) for head in predicates]


def _cell(name: str, kind: str, text: str) -> str:
    if text == NOTHING or UNWRITABLE & set(text):
        raise ValueError(f"document {name}: {kind} {text!r:.60} cannot be written in this format")
    return text


FORMATS.register(
    "sdp2015", Format(".sdp", lambda path, vocab, wanted: read_sdp2015(path, vocab, key=wanted.key))
)
