"""Trees and semantic graphs as pictures, drawn by spaCy's displaCy."""

from __future__ import annotations

import re
from collections.abc import Collection
from html import escape
from typing import Any

from spacy import displacy
from spacy.tokens import Doc

from spacy_components.sdp_graph import get_graph

CHANGED = " ✱"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_displacy(doc: Doc, source: str = "sdp", marked: Collection[int] = ()) -> dict[str, Any]:
    """The input of ``displacy.render(..., style="dep", manual=True)`` for a document's graph or tree.

    source: ``"sdp"`` for ``doc._.sdp`` (words under the root are tagged ``top``) or ``"tree"`` for the heads.
    marked: tokens whose incoming arcs get a star. Raises ValueError if the document has no such annotation.
    """
    if source == "sdp":
        graph = get_graph(doc)
        if graph is None:
            raise ValueError(f"{doc.text!r:.60} has no graph in doc._.sdp")
        arcs, top = graph.arcs, graph.top
    elif source == "tree":
        if not doc.has_annotation("DEP"):
            raise ValueError(f"{doc.text!r:.60} has no dependency parse")
        arcs = [(token.head.i, token.i, token.dep_) for token in doc if token.head.i != token.i]
        top = [token.i for token in doc if token.head.i == token.i]
    else:
        raise ValueError(f"source {source!r}, expected 'sdp' or 'tree'")
    words = [{"text": drawable(token.text), "tag": _tag(token.tag_, token.i, top, marked)} for token in doc]
    return {"words": words, "arcs": [_arc(*arc, marked) for arc in arcs]}


def drawable(text: str) -> str:
    """The text with a replacement character for each control character that XML cannot hold."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


# displaCy escapes words, but puts tags and labels such as conj>nsubj into the SVG as they are.


def _tag(tag: str, token: int, top: Collection[int], marked: Collection[int]) -> str:
    root = ["top" + (CHANGED if token in marked else "")] if token in top else []
    return " ".join([part for part in [escape(drawable(tag)), *root] if part])


def _arc(head: int, dep: int, label: str, marked: Collection[int]) -> dict[str, Any]:
    return {
        "start": min(head, dep),
        "end": max(head, dep),
        "label": escape(drawable(label)) + (CHANGED if dep in marked else ""),
        "dir": "left" if dep < head else "right",
    }


def render_svg(doc: Doc, source: str = "sdp", marked: Collection[int] = (), **options: Any) -> str:
    """The picture as SVG. options: displaCy's, such as ``distance=90`` or ``color="#09a3d5"``."""
    options = {"compact": True, "distance": 90} | options
    parsed = to_displacy(doc, source, marked)
    return displacy.render(parsed, style="dep", manual=True, jupyter=False, options=options)
