"""The two kinds of decisions that can be listened to, as they are found on documents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from spacy.attrs import HEAD, IS_SPACE
from spacy.tokens import Doc
from thinc.api import Model, Ops

from spacy_components.confidence.annotations import ARC_PROBS, soft_tree
from spacy_components.ml.segments import split_rows
from spacy_components.ml.trees.soft_trees import SoftTree, soft_trees
from spacy_components.sdp_graph import DEFAULT_KEY, get_graph, has_graph


@dataclass(frozen=True)
class Annotation:
    """A kind of decision.

    Args:
        noun: what a document has, or has not.
        maker: what is called a component that makes it.
        attributes: what a component that makes it says it ``assigns``.
        is_on: whether a document has it, or a part of it.
        read: it, for a listener.
        together: what is read of several documents, for a listener, with few transfers to its device.
    """

    noun: str
    maker: str
    attributes: tuple[str, ...]
    is_on: Callable[[Doc], bool]
    read: Callable[[Model, Doc], Any]
    together: Callable[[Ops, Sequence[Any]], list]

    def is_missing(self, doc: Doc) -> bool:
        """Whether a document lacks it. Where there are not two words there is nothing to decide.

        Args:
            doc: the document.

        Returns:
            Whether it has two or more words (white space is none) and no such annotation.
        """
        return len(doc) > 1 and not self.is_on(doc) and (doc.to_array(IS_SPACE) == 0).sum() > 1


def has_parse(doc: Doc) -> bool:
    """Whether a document has a parse, or a part of one.

    Args:
        doc: the document.

    Returns:
        Whether a token has a label or a head; spaCy itself only looks at the labels.
    """
    return doc.has_annotation("DEP") or bool(doc.to_array(HEAD).any())


def read_heads(model: Model, doc: Doc) -> np.ndarray:
    """The parse on a document.

    Args:
        model: the listener.
        doc: the document; one without a parse has no heads.

    Returns:
        ``[n]`` int64 heads, -1 for the root.
    """
    relative = doc.to_array(HEAD).astype(np.int64)
    return np.where(relative == 0, -1, np.arange(len(doc)) + relative)


def read_arcs(model: Model, doc: Doc, key: str = DEFAULT_KEY) -> np.ndarray:
    """The semantic graph on a document.

    Args:
        model: the listener, which knows the labels' numbers.
        doc: the document; one without a graph has no arcs.
        key: the key of the graph.

    Returns:
        ``[arcs, 3]`` int64: head, dependent and label (-1 if unknown).
    """
    graph = get_graph(doc, key)
    if graph is None:
        return np.zeros((0, 3), dtype=np.int64)
    number = {label: i for i, label in enumerate(model.attrs["labels"])}
    arcs = [(head, dep, number.get(label, -1)) for head, dep, label in graph.arcs]
    return np.array(arcs, dtype=np.int64).reshape(-1, 3)


def has_soft_tree(doc: Doc) -> bool:
    """Whether a document has the probabilities of all arcs."""
    return doc._.get(ARC_PROBS) is not None


def read_soft_tree(model: Model, doc: Doc) -> SoftTree:
    """The probabilities of all arcs of a document.

    Args:
        model: the listener.
        doc: the document; without them it has no arcs.

    Raises:
        ValueError: the document was retokenised after they were written.
    """
    return soft_tree(doc) or SoftTree(*(np.zeros(0, dtype) for dtype in ("i4", "i4", "f4")))


def rows_together(ops: Ops, found: Sequence[np.ndarray]) -> list:
    """Arrays on the device of ``ops``."""
    together = ops.asarray(np.concatenate(found)) if found else []
    return split_rows(together, [len(rows) for rows in found])


def soft_trees_together(ops: Ops, found: Sequence[SoftTree]) -> list[SoftTree]:
    """Trees on the device of ``ops``."""
    columns = [ops.asarray(np.concatenate(column)) for column in zip(*found)]
    return soft_trees(columns, [len(tree.probs) for tree in found]) if found else []


PARSE = Annotation("parse", "parser", ("token.head", "token.dep"), has_parse, read_heads, rows_together)
SOFT_PARSE = Annotation(
    "parse with probabilities",
    "parser of this package",
    (f"doc._.{ARC_PROBS}",),
    has_soft_tree,
    read_soft_tree,
    soft_trees_together,
)


@cache
def graph_under(key: str = DEFAULT_KEY) -> Annotation:
    """The graph that a document has under a key.

    Args:
        key: the key, as ``set_graph`` takes it.
    """
    is_on, read = partial(has_graph, key=key), partial(read_arcs, key=key)
    return Annotation("semantic graph", "semantic parser", (f"doc._.{key}",), is_on, read, rows_together)


ANNOTATIONS = {"parse": PARSE, "graph": graph_under()}
