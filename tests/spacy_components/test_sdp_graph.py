"""doc._.sdp: what is stored, what spaCy drops, and how it moves to another tokenisation."""

import numpy as np
import pytest
import spacy
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from spacy.training import Example

from spacy_components.sdp_graph import (
    add_graphs,
    aligned_graph,
    as_doc,
    get_graph,
    graph_keys,
    has_graph,
    join_docs,
    make_key,
    one_to_one,
    require_graphs,
    set_graph,
)

NLP = spacy.blank("xx")
ARCS = [(1, 0, "ARG1"), (3, 0, "ARG1"), (1, 3, "ARG2")]


@pytest.fixture
def doc():
    doc = Doc(NLP.vocab, words=["Mary", "wants", "to", "sing", "."])
    set_graph(doc, ARCS, top=[1])
    return doc


@spacy.Language.component("graph_of_neighbours")
def graph_of_neighbours(doc):
    set_graph(doc, [(0, i, "X") for i in range(1, len(doc))], top=[0])
    return doc


def same_graph(doc, other):
    return get_graph(doc) == get_graph(other) and get_graph(doc) is not None


def test_stored_value_is_plain_data_in_a_fixed_order(doc):
    assert doc._.sdp == {"arcs": [[1, 0, "ARG1"], [3, 0, "ARG1"], [1, 3, "ARG2"]], "top": [1], "length": 5}
    assert get_graph(doc).arcs[0].label == "ARG1"


def test_no_graph_is_not_an_empty_graph():
    doc = Doc(NLP.vocab, words=["a"])
    assert get_graph(doc) is None and not has_graph(doc)
    set_graph(doc, [])
    assert get_graph(doc).arcs == () and has_graph(doc)


@pytest.mark.parametrize(
    ("arcs", "top", "message"),
    [
        ([(5, 0, "X")], [], "head of arc .* outside of the 5 tokens"),
        ([(0, -1, "X")], [], "dep of arc .* outside"),
        ([(2, 2, "X")], [], "loop"),
        ([(1, 0, "")], [], "non-empty"),
        ([(1, 0, 7)], [], "non-empty"),
        ([(1, 0)], [], "not an arc"),
        ([(1.5, 0, "X")], [], "not a token position"),
        ([(1, 0, "X"), (1, 0, "X")], [], "twice"),
        ([], [5], "top 5 lies outside"),
    ],
)
def test_bad_graphs_are_named(doc, arcs, top, message):
    with pytest.raises(ValueError, match=message):
        set_graph(doc, arcs, top)
    doc._.sdp = {"arcs": arcs, "top": top}
    with pytest.raises(ValueError, match=message):
        get_graph(doc)


def test_a_value_that_is_no_graph_is_named(doc):
    doc._.sdp = [(1, 0, "ARG1")]
    with pytest.raises(ValueError, match="expected"):
        get_graph(doc)


def test_numpy_positions_become_plain_integers(doc):
    set_graph(doc, [(np.int64(1), np.int32(0), "X")], top=np.array([1]))
    assert doc.to_json(underscore=["sdp"])["_"]["sdp"]["arcs"] == [[1, 0, "X"]]


def test_survives_docbin_with_user_data_only(doc, tmp_path):
    path = tmp_path / "docs.spacy"
    DocBin(docs=[doc], store_user_data=True).to_disk(path)
    (kept,) = DocBin().from_disk(path).get_docs(NLP.vocab)
    assert isinstance(kept._.sdp["arcs"], tuple)  # spaCy hands back tuples for lists
    assert same_graph(kept, doc)
    DocBin(docs=[doc]).to_disk(path)
    (lost,) = DocBin().from_disk(path).get_docs(NLP.vocab)
    assert lost._.sdp is None
    with pytest.raises(ValueError, match="store_user_data=True"):
        require_graphs([Example(lost.copy(), lost)], "spigot_sdp")
    require_graphs([Example(kept.copy(), kept)], "spigot_sdp")


def test_survives_bytes_copy_and_json(doc):
    assert same_graph(Doc(NLP.vocab).from_bytes(doc.to_bytes()), doc)
    assert same_graph(doc.copy(), doc)
    assert same_graph(Doc(NLP.vocab).from_json(doc.to_json(underscore=["sdp"])), doc)


def test_survives_several_processes():
    nlp = spacy.blank("xx")
    nlp.add_pipe("graph_of_neighbours")
    docs = list(nlp.pipe(["a b c", "d e"], n_process=2))
    assert [len(get_graph(doc).arcs) for doc in docs] == [2, 1]


def test_as_doc_keeps_what_spacy_drops(doc):
    assert doc[1:4].as_doc()._.sdp is None
    assert doc[1:4].as_doc(copy_user_data=True)._.sdp is None
    part = as_doc(doc[1:4])
    assert get_graph(part).arcs == ((0, 2, "ARG2"),) and get_graph(part).top == (0,)
    assert same_graph(as_doc(doc[:]), doc)
    assert not has_graph(as_doc(Doc(NLP.vocab, words=["a", "b"])[:1]))


def test_join_docs_keeps_what_spacy_drops(doc):
    with pytest.warns(UserWarning, match="W101"):
        assert Doc.from_docs([doc, doc])._.sdp is None
    joined = join_docs([doc, doc])
    assert joined._.sdp["top"] == [1, 6]
    assert same_graph(as_doc(joined[5:]), doc)
    assert not has_graph(join_docs([doc, Doc(NLP.vocab, words=["a"])]))
    with pytest.raises(ValueError, match="at least one"):
        join_docs([])


def test_a_graph_from_before_retokenisation_is_an_error(doc):
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[2:4])
    assert doc._.sdp["arcs"] == [[1, 0, "ARG1"], [3, 0, "ARG1"], [1, 3, "ARG2"]]  # stale, and spaCy is silent
    with pytest.raises(ValueError, match="had 5 tokens and now it has 4"):
        get_graph(doc)


def test_aligned_graph_marks_what_is_not_one_to_one():
    words, spaces = ["can", "not", "go", "ice-cream"], [False, True, True, False]
    reference = Doc(NLP.vocab, words=words, spaces=spaces)
    set_graph(reference, [(2, 0, "A"), (2, 3, "B"), (2, 1, "C")], top=[2])
    example = Example(Doc(NLP.vocab, words=["can", "not", "go", "ice", "-", "cream"]), reference)
    graph = aligned_graph(example)
    assert graph.arcs == ((2, 0, "A"), (2, 1, "C")) and graph.top == (2,)
    assert graph.known.tolist() == [True, True, True, False, False, False]
    assert one_to_one(example).tolist() == [0, 1, 2, -1]


def test_aligned_graph_of_an_unannotated_reference_is_none():
    doc = Doc(NLP.vocab, words=["a"])
    assert aligned_graph(Example(doc.copy(), doc)) is None


@st.composite
def two_tokenisations(draw):
    """One string of letters, cut into tokens in two ways, and a graph on the second."""
    size = draw(st.integers(2, 9))

    def cut():
        ends = [*sorted(draw(st.sets(st.integers(1, size - 1), max_size=size - 1))), size]
        return ["abcdefghi"[a:b] for a, b in zip([0, *ends], ends)]

    words, others = cut(), cut()
    tokens = st.integers(0, len(others) - 1)
    arcs = draw(st.sets(st.tuples(tokens, tokens, st.sampled_from("XY")), max_size=8))
    return words, others, [arc for arc in arcs if arc[0] != arc[1]], draw(st.sets(tokens, max_size=2))


@settings(max_examples=cases(60, 200))
@given(two_tokenisations())
def test_aligned_graph_against_character_offsets(case):
    words, others, arcs, top = case
    predicted = Doc(NLP.vocab, words=words, spaces=[False] * len(words))
    reference = Doc(NLP.vocab, words=others, spaces=[False] * len(others))
    set_graph(reference, arcs, top)
    place = {(t.idx, len(t)): t.i for t in predicted}
    same = {t.i: place[t.idx, len(t)] for t in reference if (t.idx, len(t)) in place}
    graph = aligned_graph(Example(predicted, reference))
    assert set(graph.arcs) == {(same[h], same[d], label) for h, d, label in arcs if h in same and d in same}
    assert set(graph.top) == {same[t] for t in top if t in same}
    assert set(np.flatnonzero(graph.known).tolist()) == set(same.values())


# ---- several graphs on one document --------------------------------------------------------------

PSD = [(1, 0, "ACT-arg"), (1, 3, "PAT-arg")]


@pytest.fixture
def two_graphs(doc):
    set_graph(doc, PSD, top=[1, 4], key="psd")
    return doc


def same_graphs(doc, other):
    assert graph_keys(doc) == graph_keys(other) == ["psd", "sdp"]
    return all(get_graph(doc, key) == get_graph(other, key) for key in ("psd", "sdp"))


def test_graphs_with_keys_stand_side_by_side(two_graphs):
    assert graph_keys(two_graphs) == ["psd", "sdp"] and has_graph(two_graphs, "psd")
    assert get_graph(two_graphs, "psd").top == (1, 4) and get_graph(two_graphs).top == (1,)
    assert two_graphs._.psd["arcs"] == [[1, 0, "ACT-arg"], [1, 3, "PAT-arg"]]
    two_graphs._.psd = None
    assert graph_keys(two_graphs) == ["sdp"] and get_graph(two_graphs, "psd") is None
    assert not has_graph(two_graphs, "never_set")


def test_all_graphs_survive_what_the_first_survives(two_graphs, tmp_path):
    path = tmp_path / "docs.spacy"
    DocBin(docs=[two_graphs], store_user_data=True).to_disk(path)
    (kept,) = DocBin().from_disk(path).get_docs(NLP.vocab)
    assert same_graphs(kept, two_graphs)
    assert same_graphs(Doc(NLP.vocab).from_bytes(two_graphs.to_bytes()), two_graphs)
    assert same_graphs(two_graphs.copy(), two_graphs)
    assert same_graphs(as_doc(two_graphs[:]), two_graphs)
    part = as_doc(two_graphs[1:4])
    assert get_graph(part, "psd").arcs == ((0, 2, "PAT-arg"),) and get_graph(part, "psd").top == (0,)


def test_join_docs_keeps_the_graphs_that_all_have(doc, two_graphs):
    assert same_graphs(as_doc(join_docs([two_graphs, two_graphs])[5:]), two_graphs)
    one = two_graphs.copy()
    one._.psd = None
    joined = join_docs([one, two_graphs])
    assert graph_keys(joined) == ["sdp"]


def test_graphs_of_another_process_are_found(tmp_path):
    """A document has its graphs wherever it is read, also where nobody has named the key yet."""
    path, written = tmp_path / "docs.spacy", NLP("a b")
    set_graph(written, [(0, 1, "X")], key="of_another_process")
    DocBin(docs=[written], store_user_data=True).to_disk(path)
    Doc.remove_extension("of_another_process")
    (doc,) = DocBin().from_disk(path).get_docs(NLP.vocab)
    assert not Doc.has_extension("of_another_process")
    assert graph_keys(doc) == ["of_another_process"]
    assert get_graph(doc, "of_another_process").arcs == ((0, 1, "X"),) and get_graph(doc) is None
    assert graph_keys(as_doc(doc[:])) == ["of_another_process"]


def test_a_retokenised_graph_is_named_by_its_key(two_graphs):
    with two_graphs.retokenize() as retokenizer:
        retokenizer.merge(two_graphs[2:4])
    with pytest.raises(ValueError, match=r"doc\._\.psd was stored when"):
        get_graph(two_graphs, "psd")


@pytest.mark.parametrize("key", ["", "a-b", "1", "tree", None, "taken"])
def test_what_cannot_be_a_key_is_refused(doc, key):
    if not Doc.has_extension("taken"):
        Doc.set_extension("taken", getter=len)
    with pytest.raises(ValueError, match="cannot be the key of a graph"):
        make_key(key)
    with pytest.raises(ValueError, match="cannot be the key of a graph"):
        set_graph(doc, [], key=key)


def test_another_extension_with_arcs_is_no_graph(doc):
    Doc.set_extension("drawing", default=None, force=True)
    doc._.drawing = {"words": [], "arcs": []}
    assert graph_keys(doc) == ["sdp"] and same_graph(as_doc(doc[:]), doc)


def test_aligned_graph_of_a_key(two_graphs):
    example = Example(Doc(NLP.vocab, words=[token.text for token in two_graphs]), two_graphs)
    assert aligned_graph(example, "psd").arcs == get_graph(two_graphs, "psd").arcs
    assert aligned_graph(example).arcs == get_graph(two_graphs).arcs
    require_graphs([example], "spigot_sdp", "psd")
    with pytest.raises(ValueError, match=r"no example has a graph in doc\._\.ccd"):
        require_graphs([example], "spigot_sdp", "ccd")


def test_add_graphs_of_documents_with_the_same_tokens(doc):
    other = Doc(NLP.vocab, words=[token.text for token in doc])
    set_graph(other, PSD, [1, 4], key="psd")
    (both,) = add_graphs([doc], [other], "psd")
    assert graph_keys(both) == ["psd", "sdp"] and get_graph(both, "psd") == get_graph(other, "psd")
    with pytest.raises(ValueError, match=r"document 1: .* is not"):
        list(add_graphs([doc], [Doc(NLP.vocab, words=["a"])], "psd"))
    for docs, others in (([doc, doc], [other]), ([doc], [other, other])):
        with pytest.raises(ValueError, match="one side has 1 documents, the other has more"):
            list(add_graphs(docs, others, "psd"))
