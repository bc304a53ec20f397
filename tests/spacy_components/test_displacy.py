"""Graphs and trees drawn with displaCy."""

import pytest
import spacy
from spacy.tokens import Doc

from spacy_components.display import render_svg, to_displacy
from spacy_components.sdp_graph import set_graph

NLP = spacy.blank("en")


@pytest.fixture
def doc():
    words, tags = ["Mary", "wants", "to", "sing"], ["NNP", "VBZ", "TO", "VB"]
    doc = Doc(NLP.vocab, words=words, tags=tags, heads=[1, 1, 3, 1], deps=["nsubj", "ROOT", "mark", "xcomp"])
    set_graph(doc, [(1, 0, "ARG1"), (3, 0, "ARG1"), (1, 3, "ARG2")], top=[1])
    return doc


def test_graph_to_displacy_keeps_all_heads(doc):
    parsed = to_displacy(doc)
    assert {"start": 0, "end": 3, "label": "ARG1", "dir": "left"} in parsed["arcs"] and len(
        parsed["arcs"]
    ) == 3
    assert {"start": 1, "end": 3, "label": "ARG2", "dir": "right"} in parsed["arcs"]
    assert [word["tag"] for word in parsed["words"]] == ["NNP", "VBZ top", "TO", "VB"]


def test_tree_to_displacy_marks_changes(doc):
    parsed = to_displacy(doc, "tree", marked=[1, 3])
    assert [arc["label"] for arc in parsed["arcs"]] == ["nsubj", "mark", "xcomp ✱"]
    assert parsed["words"][1]["tag"] == "VBZ top ✱"


def test_svg_has_every_arc(doc):
    svg = render_svg(doc)
    assert svg.startswith("<svg") and svg.count('class="displacy-arc"') == 3 and "ARG2" in svg


def test_svg_escapes_words():
    doc = Doc(NLP.vocab, words=["<b>", "x"])
    set_graph(doc, [(0, 1, "A&B")])
    svg = render_svg(doc)
    assert "<b>" not in svg and "A&amp;B" in svg


def test_missing_annotation_is_named():
    doc = Doc(NLP.vocab, words=["a"])
    with pytest.raises(ValueError, match="no graph"):
        to_displacy(doc)
    with pytest.raises(ValueError, match="no dependency parse"):
        to_displacy(doc, "tree")
    with pytest.raises(ValueError, match="expected 'sdp' or 'tree'"):
        to_displacy(doc, "ucca")
