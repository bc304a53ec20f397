"""What a parser writes on a document about its confidence, if its setting ``confidence`` says so.

``doc._.head_probs`` (a list, one probability a token), ``token._.head_prob`` (that of the token),
``doc._.tree_entropy`` (nats) and ``doc._.arc_probs`` (what ``soft_tree`` reads: the probability of every arc,
in the tree or not) are ``None`` where nothing is known. They are plain data: they survive ``to_bytes``,
``nlp.pipe`` with ``n_process``, and a ``DocBin(store_user_data=True)``.

Of a graph under the key ``sdp``, ``doc._.sdp_arc_probs`` has the probabilities of its arcs and tops in their
order, ``{"arcs": [...], "tops": [...]}``, and ``doc._.sdp_entropy`` is a number of nats.
"""

from collections.abc import Mapping, Sequence

from spacy.tokens import Doc, Token

from spacy_components.ml.trees.soft_trees import SoftTree
from spacy_components.sdp_graph import DEFAULT_KEY, get_graph

HEAD_PROBS, TREE_ENTROPY, ARC_PROBS = "head_probs", "tree_entropy", "arc_probs"
CONFIDENCE = (HEAD_PROBS, TREE_ENTROPY, ARC_PROBS)
"""Extensions of a document, which are also the values of the setting."""
GRAPH_ENTROPY = "entropy"
GRAPH_CONFIDENCE = (ARC_PROBS, GRAPH_ENTROPY)
"""The same for graphs; the extension has the graph's key before it."""


def head_prob(token: Token) -> float | None:
    """The probability of the token's head, or ``None`` where it is not known.

    Args:
        token: the token.

    Raises:
        ValueError: the document was retokenised after it was parsed.
    """
    probabilities = token.doc._.get(HEAD_PROBS)
    if probabilities is None:
        return None
    if len(probabilities) != len(token.doc):
        raise ValueError(_retokenised(HEAD_PROBS, len(probabilities), token.doc))
    return probabilities[token.i]


for name in CONFIDENCE:
    if not Doc.has_extension(name):
        Doc.set_extension(name, default=None)
if not Token.has_extension("head_prob"):
    Token.set_extension("head_prob", getter=head_prob)


def soft_tree(doc: Doc) -> SoftTree | None:
    """The probabilities of all arcs between words of a document, or ``None`` where they are not known.

    Args:
        doc: the document.

    Raises:
        ValueError: the document was retokenised after it was parsed.
    """
    known = doc._.get(ARC_PROBS)
    if known is None:
        return None
    if known["tokens"] != len(doc):
        raise ValueError(_retokenised(ARC_PROBS, known["tokens"], doc))
    return SoftTree(*(known[name] for name in SoftTree._fields))


def _retokenised(name: str, tokens: int, doc: Doc) -> str:
    return (
        f"doc._.{name} has values of {tokens} tokens and {doc.text!r:.60} has {len(doc)}: it was retokenised "
        "since. Parse it again, or set it to None."
    )


def graph_extension(key: str, name: str) -> str:
    """The extension, which is made if there is none, for what is known of graphs.

    Args:
        key: of the graphs.
        name: in ``GRAPH_CONFIDENCE``.
    """
    extension = f"{key}_{name}"
    if not Doc.has_extension(extension):
        Doc.set_extension(extension, default=None)
    return extension


for name in GRAPH_CONFIDENCE:
    graph_extension(DEFAULT_KEY, name)


def arc_probs(doc: Doc, key: str = DEFAULT_KEY) -> dict[tuple[int, int, str], float] | None:
    """Probabilities of a graph's arcs, by head (-1: a top), dependent and label ("" of a top).

    Args:
        doc: the document.
        key: of the graph.

    Returns:
        them, or ``None`` where they are not known.

    Raises:
        ValueError: the document has another graph by now.
    """
    known, graph = doc._.get(graph_extension(key, ARC_PROBS)), get_graph(doc, key)
    if known is None or graph is None:
        return None
    if (len(known["arcs"]), len(known["tops"])) != (len(graph.arcs), len(graph.top)):
        raise ValueError(
            f"doc._.{key}_{ARC_PROBS} is of another graph than doc._.{key} of {doc.text!r:.60}: parse it "
            "again, or set it to None"
        )
    tops = {(-1, top, ""): p for top, p in zip(graph.top, known["tops"])}
    return {tuple(arc): p for arc, p in zip(graph.arcs, known["arcs"])} | tops


def write_graphs(docs: Sequence[Doc], key: str, measured: Mapping[str, Sequence]) -> None:
    """As ``write``, of graphs that are written already.

    Args:
        docs: the documents.
        key: of the graphs.
        measured: by the names in ``GRAPH_CONFIDENCE``, a value for each document; of ``ARC_PROBS``, what
            ``arc_probs`` gives back.
    """
    for number, doc in enumerate(docs):
        for name in GRAPH_CONFIDENCE:
            extension = graph_extension(key, name)
            value = measured[name][number] if name in measured else None
            if name == ARC_PROBS and value is not None:
                graph = get_graph(doc, key)
                value = {
                    "arcs": [value[tuple(arc)] for arc in graph.arcs],
                    "tops": [value[-1, top, ""] for top in graph.top],
                }
            if value is not None or doc._.get(extension) is not None:
                doc._.set(extension, value)


def write(docs: Sequence[Doc], measured: Mapping[str, Sequence]) -> None:
    """Write what was measured of the trees that are written now; what was known of others is forgotten.

    Args:
        docs: the documents.
        measured: by the names in ``CONFIDENCE``, a value for each document.
    """
    for number, doc in enumerate(docs):
        for name in CONFIDENCE:
            if name in measured:
                doc._.set(name, measured[name][number])
            elif doc.user_data and doc._.get(name) is not None:
                doc._.set(name, None)
