"""The labels of a corpus of semantic graphs, and which of them are deterministic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from spacy import registry
from spacy.tokens import Doc
from spacy.vocab import Vocab

from diffdecode.files.text import FormatError
from spacy_components.sdp_graph import DEFAULT_KEY, get_graph, has_graph
from spacy_components.training.formats import read_docs

TOP = "<top>"
"""Label of the arcs from the root to the top words."""


def label_inventory(docs: Iterable[Doc], key: str = DEFAULT_KEY) -> dict[str, list[str]]:
    """The labels of documents' graphs, and which of them no predicate ever gives to two arguments.

    Args:
        docs: the documents.
        key: the key of the graphs.

    Returns:
        ``labels`` and ``deterministic`` (which may hold ``TOP``).
    """
    labels, repeated = set(), set()
    for doc in docs:
        graph = get_graph(doc, key)
        if graph is not None:
            uses = Counter((head, label) for head, _, label in graph.arcs)
            uses[(-1, TOP)] = len(graph.top)
            labels |= {label for _, label in uses}
            repeated |= {label for (_, label), count in uses.items() if count > 1}
    return {"labels": sorted(labels - {TOP}), "deterministic": sorted(labels - repeated)}


def require_labels(owner: str, labels: Collection[str], key: str) -> None:
    """Check that a component has labels to begin with.

    Args:
        owner: its name.
        labels: those that were found or given.
        key: the key of the graphs.

    Raises:
        ValueError: there are none.
    """
    if not labels:
        raise ValueError(
            f"'{owner}': no label found. At least one training example needs a graph with an arc in "
            f"doc._.{key}, or [initialize.components] its labels."
        )


@registry.readers("diffdecode.GraphLabels.v1")
def read_graph_labels(path: Path, subtypes: bool = True, key: str = DEFAULT_KEY) -> dict[str, list[str]]:
    """The ``labels`` of ``spigot_sdp`` for ``[initialize.components]``, from all of a corpus.

    spaCy initializes from the first 100 examples of a streamed corpus (``max_epochs = -1``), which is too few
    to tell which labels are deterministic.

    Args:
        path: ``.spacy``, ``.sdp`` or (enhanced) ``.conllu``, ``.gz`` too.
        subtypes: for CoNLL-U, as in ``read_conllu``: as the corpus has it.
        key: the key of the graphs.

    Returns:
        ``labels`` and ``deterministic``.

    Raises:
        ValueError: bad input and if no document has a graph.
    """
    docs = list(read_docs(path, Vocab(), graph=True, subtypes=subtypes, key=key))
    if not any(has_graph(doc, key) for doc in docs):
        raise FormatError(path, None, f"no document has a graph in doc._.{key}")
    return label_inventory(docs, key)
