"""The format of SemEval 2015 Task 18: ``#SDP 2015``, then tab-separated tokens with one column per predicate.

Columns: id, form, lemma, pos, top (+/-), pred (+/-), frame, and then, for the k-th token with pred ``+`` in
order, the label of the arc from that predicate to the row's token, or ``_``. Lemmas and frames are part of
the annotation, not of the input, so they do not go into the documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_components.sdp_graph import get_graph, set_graph
from spacy_components.training.formats.files import Block, FormatError, blocks

HEADER = "#SDP 2015"
FIXED_COLUMNS = 7
SENTENCE_ID = "sent_id"


def read_sdp2015(path: str | Path, vocab: Vocab) -> Iterator[Doc]:
    """Yields one document per sentence with words, tags, ``doc._.sdp`` and ``doc.user_data["sent_id"]``.

    Raises FormatError (a ValueError) that names the file and line of bad input.
    """
    sentences = blocks(path)
    first = next(sentences, Block(1, [""]))
    if first.lines[0].strip() != HEADER:
        raise FormatError(path, first.start, f"expected the header {HEADER!r}, found {first.lines[0]!r:.60}")
    rest = Block(first.start + 1, first.lines[1:])
    for block in (rest, *sentences) if rest.lines else sentences:
        yield _read_sentence(path, block, vocab)


def _read_sentence(path: str | Path, block: Block, vocab: Vocab) -> Doc:
    comments = [line for line in block.lines if line.startswith("#")]
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
        arcs += [(head, i, label) for head, label in zip(predicates, labels) if label != "_"]
    doc = Doc(
        vocab,
        words=[row[1] for row in rows],
        tags=[row[3] for row in rows],
        sent_starts=[i == 0 for i in range(len(rows))],
    )
    set_graph(doc, arcs, [i for i, row in enumerate(rows) if row[4] == "+"])
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
    if own is not False and labels[own] != "_":
        raise FormatError(path, line, f"arc {labels[own]!r} from the token to itself")


def write_sdp2015(docs: Iterable[Doc], file: TextIO) -> None:
    """Writes documents with a graph in the same format, lemma and frame as ``_``.

    Raises ValueError for a document without a graph, for two labels on one pair of tokens (the format has
    room for one) and for a word with a tab or line end.
    """
    file.write(f"{HEADER}\n")
    for number, doc in enumerate(docs, start=1):
        name = doc.user_data.get(SENTENCE_ID, number)
        file.write(f"#{name}\n" + "".join("\t".join(row) + "\n" for row in _rows(doc, name)) + "\n")


def _rows(doc: Doc, name: str | int) -> Iterator[list[str]]:
    graph = get_graph(doc)
    if graph is None:
        raise ValueError(f"document {name} has no graph in doc._.sdp")
    predicates = sorted({arc.head for arc in graph.arcs})
    labels = {(arc.head, arc.dep): arc.label for arc in graph.arcs}
    if len(labels) < len(graph.arcs):
        raise ValueError(
            f"document {name} has two arcs between the same two tokens; SDP 2015 cannot write that"
        )
    for token in doc:
        if {"\t", "\n", "\r"} & set(token.text):
            raise ValueError(
                f"document {name}: word {token.text!r} cannot be written in a tab-separated file"
            )
        top, pred = ("+" if token.i in tokens else "-" for tokens in (graph.top, predicates))
        fixed = [str(token.i + 1), token.text, "_", token.tag_ or "_", top, pred, "_"]
        yield fixed + [labels.get((head, token.i), "_") for head in predicates]
