"""Graphs and trees drawn with displaCy."""

from html import unescape
from xml.etree import ElementTree

import pytest
import spacy
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from spacy_components.cli.compare_parses import html_page
from spacy_components.display import render_svg, to_displacy
from spacy_components.sdp_graph import get_graph, set_graph
from spacy_components.training.parse_changes import compare_parses

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


def test_another_graph_is_drawn_by_its_key(doc):
    set_graph(doc, [(3, 0, "ACT-arg")], top=[1], key="psd")
    (arc,) = to_displacy(doc, "psd")["arcs"]
    assert arc == {"start": 0, "end": 3, "label": "ACT-arg", "dir": "left"}
    assert "ACT-arg" in render_svg(doc, "psd") and "ACT-arg" not in render_svg(doc)
    with pytest.raises(ValueError, match="expected 'sdp' or 'tree' or 'psd'"):
        to_displacy(doc, "ucca")


def test_svg_has_every_arc(doc):
    svg = render_svg(doc)
    assert svg.startswith("<svg") and svg.count('class="displacy-arc"') == 3 and "ARG2" in svg


def test_arcs_are_shaded_by_their_probability(doc):
    plain = render_svg(doc, "tree")
    assert "opacity" not in plain
    doc._.head_probs = [0.25, 0.9, 1.0, 0.5]
    svg = ElementTree.fromstring(render_svg(doc, "tree"))
    arrows = [g for g in svg.iter() if g.get("class") == "displacy-arrow"]
    labels = ["".join(arrow.itertext()).split() for arrow in arrows]
    assert labels == [["0.250", "nsubj"], ["1.000", "mark"], ["0.500", "xcomp"]]
    assert [arrow.get("opacity") for arrow in arrows] == ["0.36", "1.00", "0.57"]
    assert "opacity" not in render_svg(doc, "tree", shade=False) + render_svg(doc)


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


TEXTS = st.text(st.sampled_from("a<>&\"'{}\n\x00\x0b\u2028\ufffe") | st.characters(codec="utf-8"), max_size=4)


@st.composite
def any_docs(draw):
    words = draw(st.lists(TEXTS.filter(bool), max_size=4))
    heads = [draw(st.integers(0, i)) for i in range(len(words))]
    texts = [[draw(TEXTS) for _ in words] for _ in range(2)]
    doc = Doc(NLP.vocab, words=words, tags=texts[0], heads=heads, deps=[dep or "x" for dep in texts[1]])
    tokens = st.integers(0, max(len(words) - 1, 0))
    pairs = draw(st.sets(st.tuples(tokens, tokens), max_size=5)) if words else []
    set_graph(
        doc,
        [(h, d, draw(TEXTS.filter(bool))) for h, d in pairs if h != d],
        draw(st.sets(tokens)) if words else (),
    )
    return doc


@settings(max_examples=cases(40, 150))
@given(doc=any_docs(), source=st.sampled_from(["sdp", "tree"]))
def test_every_graph_and_tree_is_a_well_formed_picture_of_itself(doc, source):
    parsed = to_displacy(doc, source)
    arcs = {(a["end"], a["start"]) if a["dir"] == "left" else (a["start"], a["end"]) for a in parsed["arcs"]}
    if source == "sdp":
        expected = {(head, dep) for head, dep, _ in get_graph(doc).arcs}
    else:
        expected = {(token.head.i, token.i) for token in doc if token.head.i != token.i}
    assert arcs == expected
    svg = ElementTree.fromstring(render_svg(doc, source))
    name = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f"{name}g")) == len(parsed["arcs"])
    assert len(svg.findall(f"{name}text")) == len(doc)


@settings(max_examples=cases(20, 60))
@given(doc=any_docs().filter(lambda doc: len(doc) > 1))
def test_the_page_of_changes_says_only_what_is_in_the_trees(doc):
    other = Doc(
        NLP.vocab, words=[t.text for t in doc], heads=[len(doc) - 1] * len(doc), deps=["y"] * len(doc)
    )
    page = html_page(compare_parses([doc], [other], [doc]))
    assert (
        page.count("<svg")
        == page.count("</svg>")
        == (0 if [t.head.i for t in doc] == [t.head.i for t in other] else 2)
    )
    assert page.count("<h2>") <= 1 and page.count("<h1>") == 1 and "\0" not in page
    assert unescape(page).startswith("<!DOCTYPE html>")
