"""CoNLL-U: trees (columns HEAD, DEPREL) and enhanced graphs (column DEPS).

Documents have syntactic words: the parts of a multi-word token follow each other without a space. Empty
nodes of an enhanced graph become paths: what hangs from node 8.1 by ``nsubj``, where 8.1 hangs from h by
``conj``, hangs from h by ``conj>nsubj`` (the convention of the IWPT 2020 shared task, Bouma et al., 2020).
A column that is empty is read as ``_``, which stands for no annotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spacy.parts_of_speech import IDS as PARTS_OF_SPEECH
from spacy.tokens import Doc
from spacy.vocab import Vocab

from diffdecode.files.text import Block, FormatError, blocks
from spacy_components.sdp_graph import DEFAULT_KEY, set_graph
from spacy_components.training.formats.base import FORMATS, Format, Wanted

Edge = tuple[str, str]  # id of the head, label

COLUMNS = 10
NUMBER = r"(?:0|[1-9][0-9]{0,8})"
ID = re.compile(rf"{NUMBER}|({NUMBER})-({NUMBER})|{NUMBER}\.[1-9][0-9]{{0,8}}")
HEAD = re.compile(NUMBER)
FEATURE = re.compile(r"([^=|]+)=([^=|]+)")
DEPS_ITEM = re.compile(rf"({NUMBER}(?:\.{NUMBER})?):([^\s:]\S*)")


class _Row(NamedTuple):
    """A line of the file: its number, its id (``3``, ``3-4`` or ``8.1``) and its columns, "" for none."""

    line: int
    id: str
    form: str
    lemma: str
    upos: str
    xpos: str
    feats: str
    head: str
    deprel: str
    deps: str
    misc: str

    @property
    def is_word(self) -> bool:
        return not self.is_range and not self.is_empty_node

    @property
    def is_range(self) -> bool:
        return "-" in self.id

    @property
    def is_empty_node(self) -> bool:
        return "." in self.id


def read_conllu(
    path: str | Path,
    vocab: Vocab,
    *,
    tree: bool = True,
    graph: bool = False,
    subtypes: bool = True,
    key: str = DEFAULT_KEY,
) -> Iterator[Doc]:
    """Yields one document per sentence with words, tags, pos, morphology and what is asked for.

    Args:
        tree: set heads and relations (those of a sentence whose HEAD column is all ``_`` stay unset).
        graph: set ``doc._.sdp`` from DEPS, with the words under the root as top.
        subtypes: keep what follows the first ``:`` of a graph's labels, such as the preposition of
            ``nmod:about``.
        key: of the graph on the document, if it is not to be ``sdp``. Raises FormatError (a ValueError)
            that names the file and line of bad input.
    """
    for block in blocks(path):
        rows = [_row(path, n, text) for n, text in enumerate(block.lines, block.start) if text[0] != "#"]
        words = [row for row in rows if row.is_word]
        _check_ids(path, block, rows, words)
        columns = _annotations(path, rows, words) | (_tree(path, words) if tree else {})
        doc = Doc(vocab, **columns)
        if graph:
            _set_enhanced_graph(path, doc, rows, subtypes, key)
        yield doc


def _row(path: str | Path, line: int, text: str) -> _Row:
    columns = text.split("\t")
    if len(columns) != COLUMNS:
        raise FormatError(path, line, f"{len(columns)} tab-separated columns, expected {COLUMNS}")
    if not ID.fullmatch(columns[0]):
        raise FormatError(path, line, f"token id {columns[0]!r:.60}, expected a number, a range or 8.1")
    if not columns[1]:
        raise FormatError(path, line, "empty word form")
    return _Row(line, *columns[:2], *("" if column == "_" else column for column in columns[2:]))


def _check_ids(path: str | Path, block: Block, rows: list[_Row], words: list[_Row]) -> None:
    """Words are 1, 2, ..., the empty nodes after word 4 are 4.1, 4.2, ...; ranges precede their words."""
    if not words:
        raise FormatError(path, block.start, "a sentence without words")
    word = empty = covered = 0
    for row in rows:
        if row.is_range:
            first, last = map(int, row.id.split("-"))
            if first != word + 1 or not covered < first <= last <= len(words):
                raise FormatError(path, row.line, f"range {row.id} before word {word + 1} of {len(words)}")
            covered = last
            continue
        word, empty = (word, empty + 1) if row.is_empty_node else (word + 1, 0)
        expected = f"{word}.{empty}" if empty else str(word)
        if row.id != expected:
            raise FormatError(path, row.line, f"token id {row.id!r}, expected {expected}")


def _annotations(path: str | Path, rows: list[_Row], words: list[_Row]) -> dict[str, list[Any]]:
    """Keyword arguments of ``Doc`` for everything but the tree."""
    followed = {row.id: "SpaceAfter=No" not in row.misc.split("|") for row in rows}
    for row in rows:
        if row.is_range:
            first, last = map(int, row.id.split("-"))
            followed.update(dict.fromkeys(map(str, range(first, last)), False))
            followed[str(last)] = followed[row.id]
    for row in words:
        if row.upos not in PARTS_OF_SPEECH:
            raise FormatError(path, row.line, f"unknown part of speech {row.upos!r:.60} in column UPOS")
    return {
        "words": [row.form for row in words],
        "spaces": [followed[row.id] for row in words],
        "tags": [row.xpos for row in words],
        "pos": [row.upos for row in words],
        "morphs": [_features(path, row) for row in words],
    }


def _features(path: str | Path, row: _Row) -> str:
    names = set()
    for feature in row.feats.split("|") if row.feats else ():
        match = FEATURE.fullmatch(feature)
        if not match or match[1] in names:
            problem = f"{feature!r:.60} in column FEATS is not Name=Value, or its name is given twice"
            raise FormatError(path, row.line, problem)
        names.add(match[1])
    return row.feats


def _tree(path: str | Path, words: list[_Row]) -> dict[str, list[Any]]:
    """Keyword arguments of ``Doc`` for the tree; none where no word has a head."""
    if not any(row.head for row in words):
        return {}
    for row in words:
        if not HEAD.fullmatch(row.head):
            raise FormatError(path, row.line, f"{row.head or '_'!r:.60} is not a valid head of word {row.id}")
        if int(row.head) > len(words) or row.head == row.id:
            problem = f"head {row.head} of word {row.id} in a sentence of {len(words)}"
            raise FormatError(path, row.line, problem)
        if not row.deprel:
            raise FormatError(path, row.line, f"word {row.id} has a head and no relation")
    heads = [int(row.head) for row in words]
    _check_tree(path, words, heads)
    relations = ["ROOT" if head == 0 else row.deprel for row, head in zip(words, heads)]
    return {"heads": [i if head == 0 else head - 1 for i, head in enumerate(heads)], "deps": relations}


def _check_tree(path: str | Path, words: list[_Row], heads: list[int]) -> None:
    roots = heads.count(0)
    if roots != 1:
        raise FormatError(path, words[0].line, f"{roots} words with head 0, expected one root per sentence")
    reaches_root = {0}
    for row in words:
        path_up, node = set(), int(row.id)
        while node not in reaches_root and node not in path_up:
            path_up.add(node)
            node = heads[node - 1]
        if node not in reaches_root:
            raise FormatError(path, row.line, f"the heads of word {row.id} run in a circle")
        reaches_root |= path_up


def _set_enhanced_graph(path: str | Path, doc: Doc, rows: list[_Row], subtypes: bool, key: str) -> None:
    nodes = [row for row in rows if not row.is_range]
    known = {"0", *(node.id for node in nodes)}
    edges = {row.id: _deps(path, row, known) for row in nodes}
    if not any(edges.values()):
        raise FormatError(path, rows[0].line, "no enhanced graph: the column DEPS of the sentence is all _")
    arcs, top = set(), set()
    for row in nodes:
        if row.is_empty_node:
            continue
        dep = int(row.id) - 1
        for head, labels in _without_empty_nodes(edges, row.id):
            if head == 0:
                top.add(dep)
            elif head - 1 != dep:  # a path through an empty node may lead back to the word
                arcs.add((head - 1, dep, ">".join(x if subtypes else x.split(":")[0] for x in labels)))
    set_graph(doc, arcs, top, key)


def _deps(path: str | Path, row: _Row, known: set[str]) -> list[Edge]:
    """The (head id, label) pairs in column DEPS of a row."""
    pairs = []
    for item in row.deps.split("|") if row.deps else ():
        match = DEPS_ITEM.fullmatch(item)
        if not match or match[1] not in known or match[1] == row.id:
            raise FormatError(
                path, row.line, f"{item!r:.60} in column DEPS is not head:relation with a head in reach"
            )
        pairs.append((match[1], match[2]))
    return pairs


def _without_empty_nodes(
    edges: dict[str, list[Edge]], node: str, passed: tuple[str, ...] = ()
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The words above a node, with the labels from the word down to the node; no empty node twice."""
    for head, label in edges[node]:
        if "." not in head:
            yield int(head), (label,)
        elif head not in passed:
            for above, labels in _without_empty_nodes(edges, head, (*passed, head)):
                yield above, (*labels, label)


def _read(path: str | Path, vocab: Vocab, wanted: Wanted) -> Iterator[Doc]:
    return read_conllu(
        path, vocab, tree=wanted.tree, graph=wanted.graph, subtypes=wanted.subtypes, key=wanted.key
    )


FORMATS.register("conllu", Format(".conllu", _read))
