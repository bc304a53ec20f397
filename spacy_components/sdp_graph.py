"""Semantic graphs on a spaCy ``Doc``: the extension ``doc._.sdp`` and the ways to read, write and align it.

The value of ``doc._.sdp`` is ``None`` (no graph is known) or plain data that survives ``to_bytes``,
``nlp.pipe`` with ``n_process``, JSON, and a ``DocBin(store_user_data=True)``::

    {"arcs": [[head, dep, label], ...], "top": [token, ...], "length": number_of_tokens}

Positions count tokens from 0 and there is no artificial root: ``top`` lists the tokens that would hang from
it. ``length`` is optional; ``set_graph`` writes it so that a graph from before a retokenisation is found out.
An empty ``arcs`` is a graph without arcs, which is something else than ``None``.

spaCy forgets ``doc._.sdp`` in ``Span.as_doc``, in ``Doc.from_docs`` and in a ``DocBin`` without
``store_user_data``. ``as_doc`` and ``join_docs`` below keep it, and ``require_graphs`` says what may have
happened when a corpus has lost it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, NamedTuple

import numpy as np
from spacy.tokens import Doc, Span
from spacy.training import Example

EXTENSION = "sdp"

if not Doc.has_extension(EXTENSION):
    Doc.set_extension(EXTENSION, default=None)


class Arc(NamedTuple):
    """A labelled arc between two tokens, counted from 0."""

    head: int
    dep: int
    label: str


class SdpGraph(NamedTuple):
    """A graph over the tokens of one document, arcs sorted by dependent, head and label."""

    arcs: tuple[Arc, ...]
    top: tuple[int, ...]


class AlignedGraph(NamedTuple):
    """The reference's graph on the tokens of ``example.predicted`` (``N`` of them).

    ``known`` ``[N]`` (bool) marks the tokens that stand one to one for a token of the reference. Whether
    there is an arc from h to d is known exactly where both ends are: the mask of pairs is
    ``known[:, None] & known[None, :]``.
    """

    arcs: tuple[Arc, ...]
    top: tuple[int, ...]
    known: np.ndarray


def set_graph(doc: Doc, arcs: Iterable[Sequence[Any]], top: Iterable[int] = ()) -> None:
    """Stores a graph on the document as ``doc._.sdp``.

    arcs: triples ``(head, dep, label)``. top: tokens under the artificial root.
    Raises ValueError for a token outside of the document, a loop, an empty label or an arc given twice.
    """
    graph = _checked(doc, arcs, top)
    doc._.sdp = {"arcs": [list(arc) for arc in graph.arcs], "top": list(graph.top), "length": len(doc)}


def get_graph(doc: Doc) -> SdpGraph | None:
    """The graph of the document, or None where it has none.

    Raises ValueError if ``doc._.sdp`` is not a graph over this document's tokens (see ``set_graph``), for
    example because the document was retokenised after the graph was stored.
    """
    value = doc._.sdp
    if value is None:
        return None
    if not isinstance(value, dict) or "arcs" not in value:
        raise ValueError(
            f'doc._.sdp is {value!r:.60}; expected {{"arcs": [[head, dep, label], ...], "top": [token, ...]}}'
        )
    length = value.get("length", len(doc))
    if length != len(doc):
        raise ValueError(
            f"doc._.sdp was stored when the document had {length} tokens and now it has {len(doc)}: "
            "it was retokenised since. Set the graph again with set_graph, or doc._.sdp = None to forget it."
        )
    return _checked(doc, value["arcs"], value.get("top", ()))


def has_graph(doc: Doc) -> bool:
    """Whether the document is annotated with a graph (one without arcs counts)."""
    return doc._.sdp is not None


def _checked(doc: Doc, arcs: Iterable[Sequence[Any]], top: Iterable[int]) -> SdpGraph:
    checked = set()
    for triple in arcs:
        arc = _checked_arc(doc, triple)
        if arc in checked:
            raise ValueError(f"arc {tuple(arc)} is given twice in the graph of {doc.text!r:.60}")
        checked.add(arc)
    tops = sorted({_token(doc, token, f"top {token!r}") for token in top})
    return SdpGraph(tuple(sorted(checked, key=lambda arc: (arc.dep, arc.head, arc.label))), tuple(tops))


def _checked_arc(doc: Doc, triple: Sequence[Any]) -> Arc:
    if isinstance(triple, str) or len(triple) != 3:
        raise ValueError(f"{triple!r} is not an arc (head, dep, label)")
    head, dep, label = triple
    arc = Arc(_token(doc, head, f"head of arc {triple!r}"), _token(doc, dep, f"dep of arc {triple!r}"), label)
    if arc.head == arc.dep:
        raise ValueError(f"arc {triple!r} is a loop; tokens under the artificial root belong into top")
    if not isinstance(label, str) or not label:
        raise ValueError(f"arc {triple!r} needs a non-empty string as label")
    return arc


def _token(doc: Doc, position: Any, what: str) -> int:
    try:
        token = index(position)
    except TypeError:
        raise ValueError(f"{what}: {position!r} is not a token position") from None
    if not 0 <= token < len(doc):
        raise ValueError(f"{what} lies outside of the {len(doc)} tokens of {doc.text!r:.60}")
    return token


def one_to_one(example: Example) -> np.ndarray:
    """For each token of ``example.reference`` its one token in ``example.predicted``, integers ``[M]``.

    -1 where the alignment is not one to one.
    """
    y2x, x2y = example.alignment.y2x, example.alignment.x2y
    partner = np.full(len(example.reference), -1, dtype=np.int64)
    single = np.flatnonzero(np.asarray(y2x.lengths) == 1)
    others = np.asarray(y2x.data)[(np.cumsum(y2x.lengths) - y2x.lengths)[single]]
    mutual = np.asarray(x2y.lengths)[others] == 1
    partner[single[mutual]] = others[mutual]
    return partner


def aligned_graph(example: Example) -> AlignedGraph | None:
    """The reference's graph moved to the tokens of ``example.predicted``; None if the reference has no graph.

    Arcs and tops that touch a token without a one-to-one partner are left out; ``known`` marks the others.
    """
    graph = get_graph(example.reference)
    if graph is None:
        return None
    partner = one_to_one(example)
    known = np.zeros(len(example.predicted), dtype=bool)
    known[partner[partner >= 0]] = True
    moved = [Arc(int(partner[head]), int(partner[dep]), label) for head, dep, label in graph.arcs]
    arcs = sorted(
        (arc for arc in moved if arc.head >= 0 and arc.dep >= 0),
        key=lambda arc: (arc.dep, arc.head, arc.label),
    )
    top = sorted(int(partner[token]) for token in graph.top if partner[token] >= 0)
    return AlignedGraph(tuple(arcs), tuple(top), known)


def as_doc(span: Span) -> Doc:
    """``span.as_doc()`` with the part of the graph inside the span (arcs across its border are left out)."""
    doc = span.as_doc()
    graph = get_graph(span.doc)
    if graph is not None:
        inside = range(span.start, span.end)
        arcs = [
            (h - span.start, d - span.start, label)
            for h, d, label in graph.arcs
            if h in inside and d in inside
        ]
        set_graph(doc, arcs, [token - span.start for token in graph.top if token in inside])
    return doc


def join_docs(docs: Sequence[Doc]) -> Doc:
    """``Doc.from_docs(docs)`` with the graphs joined; no graph if one of the documents has none.

    Raises ValueError if ``docs`` is empty.
    """
    if not docs:
        raise ValueError("join_docs needs at least one document")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=rf"\[W101\].*'{EXTENSION}'"
        )  # spaCy: it drops the extension
        joined = Doc.from_docs(list(docs), ensure_whitespace=True)
    graphs = [get_graph(doc) for doc in docs]
    if all(graph is not None for graph in graphs):
        offsets = np.cumsum([0, *(len(doc) for doc in docs)]).tolist()
        arcs = [(h + o, d + o, label) for graph, o in zip(graphs, offsets) for h, d, label in graph.arcs]
        set_graph(joined, arcs, [token + o for graph, o in zip(graphs, offsets) for token in graph.top])
    return joined


def require_graphs(examples: Iterable[Example], component: str) -> None:
    """Raises ValueError, with the usual causes, if no reference in ``examples`` has a graph."""
    if not any(has_graph(example.reference) for example in examples):
        raise ValueError(
            f"'{component}': no example has a graph in doc._.sdp. The usual causes: the .spacy file was "
            "written by a DocBin without store_user_data=True; the reader is spacy.Corpus.v1 with max_length "
            "or gold_preproc, which splits documents with Span.as_doc and so drops extensions (use "
            "diffdecode.Corpus.v1); the corpus is streamed (max_epochs = -1) and none of its first 100 "
            "examples has one."
        )
