"""CoNLL-U: trees (columns HEAD, DEPREL) and enhanced graphs (column DEPS), read with the ``conllu`` library.

Documents have syntactic words: the parts of a multi-word token follow each other without a space. Empty
nodes of an enhanced graph become paths: what hangs from node 8.1 by ``nsubj``, where 8.1 hangs from h by
``conj``, hangs from h by ``conj>nsubj`` (the convention of the IWPT 2020 shared task, Bouma et al., 2020).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import conllu
from conllu.exceptions import ParseException
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_components.sdp_graph import set_graph
from spacy_components.training.formats.files import Block, FormatError, blocks

Edge = tuple[str, str]  # id of the head, label

COLUMNS = 10
DEPS_ITEM = re.compile(r"(\d+(?:\.\d+)?):(\S+)")
REPEATED_SPACES = re.compile(" {2,}")
FIELD_PARSERS = {"deps": lambda columns, i: columns[i]}


class _Row(NamedTuple):
    """A line of the file: its number, its id as written (``3``, ``3-4`` or ``8.1``) and its parsed token."""

    line: int
    id: str
    token: conllu.Token


def read_conllu(
    path: str | Path, vocab: Vocab, *, tree: bool = True, graph: bool = False, subtypes: bool = True
) -> Iterator[Doc]:
    """Yields one document per sentence with words, tags, pos, morphology and what is asked for.

    tree: set heads and relations (those of a sentence whose HEAD column is all ``_`` stay unset). graph: set
    ``doc._.sdp`` from DEPS, with the words under the root as top. subtypes: keep what follows the first
    ``:`` of a graph's labels, such as the preposition of ``nmod:about``.
    Raises FormatError (a ValueError) that names the file and line of bad input.
    """
    for block in blocks(path):
        rows = _parse(path, block)
        words = [row for row in rows if row.id.isdigit()]
        _check_ids(path, block, words)
        columns = _annotations(rows, words) | (_tree(path, words) if tree else {})
        try:
            doc = Doc(vocab, **columns)
        except ValueError as error:  # such as a part of speech that spaCy does not know
            raise FormatError(path, block.start, str(error)) from error
        if graph:
            _set_enhanced_graph(path, doc, rows, subtypes)
        yield doc


def _parse(path: str | Path, block: Block) -> list[_Row]:
    texts = {n: text for n, text in enumerate(block.lines, block.start) if not text.startswith("#")}
    for line, text in texts.items():
        found = text.count("\t") + 1
        if found != COLUMNS:
            raise FormatError(path, line, f"{found} tab-separated columns, expected {COLUMNS}")
    try:
        tokens = _conllu_tokens(texts.values())
    except ParseException:
        for line, text in texts.items():  # once more, one by one: which line is it?
            try:
                _conllu_tokens([text])
            except ParseException as error:
                raise FormatError(path, line, str(error)) from error
        raise
    return [_Row(line, text.split("\t")[0], token) for (line, text), token in zip(texts.items(), tokens)]


def _conllu_tokens(lines: Iterable[str]) -> list[conllu.Token]:
    # The library takes two spaces for a tab, and reads only some relations in DEPS (so we read that column).
    text = "\n".join(REPEATED_SPACES.sub(" ", line) for line in lines)
    return [token for sentence in conllu.parse(text, field_parsers=FIELD_PARSERS) for token in sentence]


def _check_ids(path: str | Path, block: Block, words: list[_Row]) -> None:
    if not words:
        raise FormatError(path, block.start, "a sentence without words")
    for number, row in enumerate(words, start=1):
        if row.id != str(number):
            raise FormatError(path, row.line, f"token id {row.id!r}, expected {number}")


def _annotations(rows: list[_Row], words: list[_Row]) -> dict[str, list]:
    """Keyword arguments of ``Doc`` for everything but the tree."""
    followed = {row.id: (row.token["misc"] or {}).get("SpaceAfter") != "No" for row in rows}
    for row in rows:
        if "-" in row.id:
            first, last = map(int, row.id.split("-"))
            followed.update(
                dict.fromkeys(map(str, range(first, last)), False) | {str(last): followed[row.id]}
            )
    feats = [row.token["feats"] or {} for row in words]
    return {
        "words": [row.token["form"] for row in words],
        "spaces": [followed[row.id] for row in words],
        "tags": [row.token["xpos"] or "" for row in words],
        "pos": [row.token["upos"].replace("_", "") if row.token["upos"] else "" for row in words],
        "morphs": ["|".join(f"{key}={value}" for key, value in feat.items()) for feat in feats],
    }


def _tree(path: str | Path, words: list[_Row]) -> dict[str, list]:
    """Keyword arguments of ``Doc`` for the tree; none where no word has a head."""
    heads = [row.token["head"] for row in words]
    if all(head is None for head in heads):
        return {}
    for row, head in zip(words, heads):
        if head is None or not 0 <= head <= len(words) or str(head) == row.id:
            raise FormatError(path, row.line, f"head {head!r} of word {row.id} in a sentence of {len(words)}")
        if not row.token["deprel"] or row.token["deprel"] == "_":
            raise FormatError(path, row.line, f"word {row.id} has a head and no relation")
    _check_tree(path, words, heads)
    relations = ["ROOT" if head == 0 else row.token["deprel"] for row, head in zip(words, heads)]
    return {"heads": [i if head == 0 else head - 1 for i, head in enumerate(heads)], "deps": relations}


def _check_tree(path: str | Path, words: list[_Row], heads: list[int]) -> None:
    roots = heads.count(0)
    if roots != 1:
        raise FormatError(path, words[0].line, f"{roots} words with head 0, expected one root per sentence")
    reaches_root = {0}
    for row in words:
        path_up, node = [], int(row.id)
        while node not in reaches_root and node not in path_up:
            path_up.append(node)
            node = heads[node - 1]
        if node not in reaches_root:
            raise FormatError(path, row.line, f"the heads of word {row.id} run in a circle")
        reaches_root.update(path_up)


def _set_enhanced_graph(path: str | Path, doc: Doc, rows: list[_Row], subtypes: bool) -> None:
    nodes = [row for row in rows if "-" not in row.id]
    edges = {row.id: _deps(path, row, {"0", *(node.id for node in nodes)}) for row in nodes}
    if not any(edges.values()):
        raise FormatError(path, rows[0].line, "no enhanced graph: the column DEPS of the sentence is all _")
    arcs, top = set(), set()
    for row in nodes:
        if "." in row.id:
            continue
        dep = int(row.id) - 1
        for head, labels in _without_empty_nodes(edges, row.id):
            if head == 0:
                top.add(dep)
            elif head - 1 != dep:  # a path through an empty node may lead back to the word
                arcs.add((head - 1, dep, ">".join(x if subtypes else x.split(":")[0] for x in labels)))
    set_graph(doc, arcs, top)


def _deps(path: str | Path, row: _Row, known: set[str]) -> list[Edge]:
    """The (head id, label) pairs in column DEPS of a row."""
    if row.token["deps"] == "_":
        return []
    pairs = []
    for item in row.token["deps"].split("|"):
        match = DEPS_ITEM.fullmatch(item)
        if not match or match[1] not in known or match[1] == row.id:
            raise FormatError(
                path, row.line, f"{item!r} in column DEPS is not head:relation with a head in reach"
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
