"""Trees and semantic graphs as pictures, drawn by spaCy's displaCy."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from html import escape
from typing import Any

from spacy import displacy
from spacy.tokens import Doc

from spacy_components.confidence.annotations import HEAD_PROBS, arc_probs
from spacy_components.sdp_graph import DEFAULT_KEY, SdpGraph, get_graph, graph_keys

CHANGED = " ✱"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_displacy(doc: Doc, source: str = DEFAULT_KEY, marked: Collection[int] = ()) -> dict[str, Any]:
    """The input of ``displacy.render(..., style="dep", manual=True)`` for a document's graph or tree.

    Args:
        source: ``"tree"`` for the heads, or the key of a graph, such as ``"sdp"`` for ``doc._.sdp``;
            words under the root are tagged ``top``.
        marked: tokens whose incoming arcs get a star.

    Raises:
        ValueError: the document has no such annotation.
    """
    if source == "tree":
        if not doc.has_annotation("DEP"):
            raise ValueError(f"{doc.text!r:.60} has no dependency parse")
        arcs = [(token.head.i, token.i, token.dep_) for token in doc if token.head.i != token.i]
        top = [token.i for token in doc if token.head.i == token.i]
    else:
        arcs, top = _graph(doc, source)
    words = [{"text": drawable(token.text), "tag": _tag(token.tag_, token.i, top, marked)} for token in doc]
    return {"words": words, "arcs": [_arc(*arc, marked) for arc in arcs]}


def _graph(doc: Doc, key: str) -> SdpGraph:
    if key == DEFAULT_KEY or key in graph_keys(doc):
        graph = get_graph(doc, key)
        if graph is not None:
            return graph
        raise ValueError(f"{doc.text!r:.60} has no graph in doc._.{key}")
    others = "".join(f" or {other!r}" for other in graph_keys(doc) if other != DEFAULT_KEY)
    raise ValueError(f"source {key!r}, expected '{DEFAULT_KEY}' or 'tree'{others}")


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


def render_svg(
    doc: Doc, source: str = DEFAULT_KEY, marked: Collection[int] = (), *, shade: bool = True, **options: Any
) -> str:
    """The picture as SVG.

    Args:
        source, marked: as for ``to_displacy``.
        shade: draw arcs the fainter the less probable they are, where the document says how probable they
            are; the number itself is shown under the pointer.
        options: displaCy's, such as ``distance=90`` or ``color="#09a3d5"``.
    """
    options = {"compact": True, "distance": 90} | options
    parsed = to_displacy(doc, source, marked)
    svg = displacy.render(parsed, style="dep", manual=True, jupyter=False, options=options)
    probs = _arc_probs(doc, source) if shade else None
    return svg if probs is None else _shaded(svg, probs)


ARROW = '<g class="displacy-arrow">'
FAINTEST = 0.15
"""Opacity of an arc that is all but impossible: it has to be seen."""


def _arc_probs(doc: Doc, source: str) -> list[float] | None:
    """Probabilities of the arcs that ``to_displacy`` draws, in their order."""
    if source == "tree":
        known = doc._.get(HEAD_PROBS) is not None
        return [token._.head_prob for token in doc if token.head.i != token.i] if known else None
    probs = arc_probs(doc, source)
    return None if probs is None else [p for (head, _, _), p in probs.items() if head >= 0]


def _shaded(svg: str, probs: Sequence[float]) -> str:
    """The picture with its arrows, which are in the order of the arcs, as faint as they are improbable."""
    before, *arrows = svg.split(ARROW)
    opened = (
        f'<g class="displacy-arrow" opacity="{FAINTEST + (1 - FAINTEST) * p:.2f}"><title>{p:.3f}</title>'
        for p in probs
    )
    return before + "".join(start + rest for start, rest in zip(opened, arrows, strict=True))
