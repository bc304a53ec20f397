"""Semantic graphs on a spaCy ``Doc``: the extension ``doc._.sdp`` and the ways to read, write and align it.

The value of ``doc._.sdp`` is ``None`` (no graph is known) or plain data that survives ``to_bytes``,
``nlp.pipe`` with ``n_process``, JSON, and a ``DocBin(store_user_data=True)``::

    {"arcs": [[head, dep, label], ...], "top": [token, ...], "length": number_of_tokens}

Positions count tokens from 0 and there is no artificial root: ``top`` lists the tokens that would hang from
it. ``length`` is optional; ``set_graph`` writes it so that a graph from before a retokenisation is found out.
An empty ``arcs`` is a graph without arcs, which is something else than ``None``.

A document can have several graphs, such as DM and PSD, each by its key: key ``psd`` is ``doc._.psd``. The
functions here take the key, by default ``sdp``, and make the extension of a new one.

spaCy forgets extensions in ``Span.as_doc``, in ``Doc.from_docs`` and in a ``DocBin`` without
``store_user_data``. ``as_doc`` and ``join_docs`` below keep the graphs, and ``require_graphs`` says what may
have happened when a corpus has lost them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from operator import index
from typing import Any, NamedTuple

import numpy as np
from spacy.tokens import Doc, Span
from spacy.training import Example

DEFAULT_KEY = "sdp"
RESERVED_KEYS = frozenset({"tree"})  # which the functions that draw take for the tree
VALUE_KEYS = frozenset({"arcs", "top", "length"})
PLAIN_EXTENSION = (None, None, None, None)  # default, method, getter, setter of spaCy


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


def set_graph(
    doc: Doc, arcs: Iterable[Sequence[Any]], top: Iterable[int] = (), key: str = DEFAULT_KEY
) -> None:
    """Stores a graph on the document, by default as ``doc._.sdp``.

    Args:
        arcs: triples ``(head, dep, label)``.
        top: tokens under the artificial root.

    Raises:
        ValueError: a token outside of the document, a loop, an empty label, an arc given twice or a key
            that cannot be one.
    """
    graph = _checked(doc, arcs, top)
    value = {"arcs": [list(arc) for arc in graph.arcs], "top": list(graph.top), "length": len(doc)}
    doc._.set(make_key(key), value)


def get_graph(doc: Doc, key: str = DEFAULT_KEY) -> SdpGraph | None:
    """The graph of the document, or None where it has none.

    Raises ValueError if ``doc._.sdp`` is not a graph over this document's tokens (see ``set_graph``), for
    example because the document was retokenised after the graph was stored.
    """
    value = doc._.get(make_key(key))
    if value is None:
        return None
    if not isinstance(value, Mapping) or "arcs" not in value:
        expected = '{"arcs": [[head, dep, label], ...], "top": [token, ...]}'
        raise ValueError(f"doc._.{key} is {value!r:.60}; expected {expected}")
    length = value.get("length", len(doc))
    if length != len(doc):
        raise ValueError(
            f"doc._.{key} was stored when the document had {length} tokens and now it has {len(doc)}: it was "
            f"retokenised since. Set the graph again with set_graph, or doc._.{key} = None to forget it."
        )
    return _checked(doc, value["arcs"], value.get("top", ()))


def has_graph(doc: Doc, key: str = DEFAULT_KEY) -> bool:
    """Whether the document is annotated with a graph (one without arcs counts)."""
    return doc._.get(make_key(key)) is not None


def graph_keys(doc: Doc) -> list[str]:
    """The keys of all graphs on the document, in alphabetical order, also of those of another process."""
    extensions = (key[1:] for key in doc.user_data if isinstance(key, tuple) and key[0] == "._.")
    names = (name for name, *place in extensions if place == [None, None])
    return sorted(name for name in names if _may_be_graph(name, doc.user_data["._.", name, None, None]))


def _may_be_graph(key: str, value: Any) -> bool:
    if key == DEFAULT_KEY:
        return value is not None
    return isinstance(value, Mapping) and "arcs" in value and set(value) <= VALUE_KEYS


def make_key(key: str) -> str:
    """The key, with an extension of ``Doc`` for it.

    Raises ValueError for a name that Python cannot write after ``doc._.``, for ``tree``, and where the
    extension exists already and is one of another kind.
    """
    if not isinstance(key, str) or not key.isidentifier() or key in RESERVED_KEYS:
        raise ValueError(f"{key!r} cannot be the key of a graph; take a word such as psd")
    if not Doc.has_extension(key):
        Doc.set_extension(key, default=None)
    elif Doc.get_extension(key) != PLAIN_EXTENSION:
        raise ValueError(f"{key!r} cannot be the key of a graph: doc._.{key} is another extension already")
    return key


make_key(DEFAULT_KEY)


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


def aligned_graph(example: Example, key: str = DEFAULT_KEY) -> AlignedGraph | None:
    """The reference's graph moved to the tokens of ``example.predicted``; None if the reference has no graph.

    Arcs and tops that touch a token without a one-to-one partner are left out; ``known`` marks the others.
    """
    graph = get_graph(example.reference, key)
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
    """``span.as_doc()`` with the part of each graph inside the span (arcs across its border are left out)."""
    doc = span.as_doc()
    inside = range(span.start, span.end)
    for key in graph_keys(span.doc):
        graph = get_graph(span.doc, key)
        arcs = [
            (h - span.start, d - span.start, label)
            for h, d, label in graph.arcs
            if h in inside and d in inside
        ]
        set_graph(doc, arcs, [token - span.start for token in graph.top if token in inside], key)
    return doc


def join_docs(docs: Sequence[Doc]) -> Doc:
    """``Doc.from_docs(docs)`` with the graphs joined that all of the documents have.

    Raises ValueError if ``docs`` is empty.
    """
    if not docs:
        raise ValueError("join_docs needs at least one document")
    keys = [graph_keys(doc) for doc in docs]
    with warnings.catch_warnings():  # spaCy: it drops the extensions
        for key in {key for of_doc in keys for key in of_doc}:
            warnings.filterwarnings("ignore", message=rf"\[W101\].*'{key}'")
        joined = Doc.from_docs(list(docs), ensure_whitespace=True)
    offsets = np.cumsum([0, *(len(doc) for doc in docs)]).tolist()
    for key in sorted(set.intersection(*map(set, keys))):
        graphs = [get_graph(doc, key) for doc in docs]
        arcs = [(h + o, d + o, label) for graph, o in zip(graphs, offsets) for h, d, label in graph.arcs]
        set_graph(joined, arcs, [token + o for graph, o in zip(graphs, offsets) for token in graph.top], key)
    return joined


def add_graphs(docs: Iterable[Doc], others: Iterable[Doc], key: str) -> Iterator[Doc]:
    """Yields ``docs``, each with the graph of its partner in ``others``, under the key on both.

    Raises ValueError if the two are not as many, or do not have the same tokens.
    """
    for number, (doc, other) in enumerate(zip_longest(docs, others), start=1):
        if doc is None or other is None:
            raise ValueError(f"graphs '{key}': one side has {number - 1} documents, the other has more")
        if [token.text for token in doc] != [token.text for token in other]:
            raise ValueError(f"graphs '{key}', document {number}: {doc.text!r:.60} is not {other.text!r:.60}")
        graph = get_graph(other, key)
        if graph is not None:
            set_graph(doc, graph.arcs, graph.top, key)
        yield doc


def require_graphs(examples: Iterable[Example], component: str, key: str = DEFAULT_KEY) -> None:
    """Raises ValueError, with the usual causes, if no reference in ``examples`` has a graph."""
    if not any(has_graph(example.reference, key) for example in examples):
        raise ValueError(
            f"'{component}': no example has a graph in doc._.{key}. The usual causes: the .spacy file was "
            "written by a DocBin without store_user_data=True; the reader is spacy.Corpus.v1 with max_length "
            "or gold_preproc, which splits documents with Span.as_doc and so drops extensions (use "
            "diffdecode.Corpus.v1); the corpus is streamed (max_epochs = -1) and none of its first 100 "
            "examples has one; its graphs have another key."
        )
