"""File formats and corpus readers: what they read, what they refuse, and that converting loses nothing."""

import gzip
import io

import pytest
import spacy
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy import registry
from spacy.tokens import Doc, DocBin
from spacy.training.corpus import Corpus as StockCorpus

from spacy_components.sdp_graph import get_graph, graph_keys, set_graph
from spacy_components.training import corpus  # noqa: F401 - registers the readers
from spacy_components.training.formats import (
    read_conllu,
    read_labelled_text,
    read_sdp2015,
    write_sdp2015,
)

NLP = spacy.blank("en")
VOCAB = NLP.vocab

SDP = """#SDP 2015
#s1
1	Predictive	predictive	JJ	-	+	a_1	_
2	analytics	analytics	NNS	+	-	n_1	ARG1

#s2
1	Mary	_	NNP	-	-	_	ARG1	ARG1
2	wants	want	VBZ	+	+	v_1	_	_
3	to	_	TO	-	-	_	_	_
4	sing	sing	VB	-	+	v_1	ARG2	_
"""

CONLLU = """# sent_id = 1
# text = I don't like it
1	I	I	PRON	PRP	Case=Nom	4	nsubj	4:nsubj	_
2-3	don't	_	_	_	_	_	_	_	_
2	do	do	AUX	VBP	_	4	aux	4:aux	_
3	n't	not	PART	RB	_	4	advmod	4:advmod	_
4	like	like	VERB	VB	_	0	root	0:root	_
5	it	it	PRON	PRP	_	4	obj	4:obj	SpaceAfter=No

1	Ann	Ann	PROPN	NNP	_	2	nsubj	2:nsubj	_
2	ate	eat	VERB	VBD	_	0	root	0:root	_
3	and	and	CCONJ	CC	_	4	cc	4.1:cc	_
4	Bob	Bob	PROPN	NNP	_	2	conj	4.1:nsubj	_
4.1	ate	eat	VERB	VBD	_	_	_	2:conj:and	_
5	tea	tea	NOUN	NN	_	4	orphan	4.1:obj|2:obj	_
"""


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def reader(name, **options):
    return registry.resolve({"reader": {"@readers": name, **options}})["reader"]


# ---- SDP 2015 ------------------------------------------------------------------------------------


def test_sdp2015_by_hand(tmp_path):
    first, second = read_sdp2015(write(tmp_path, "a.sdp", SDP), VOCAB)
    assert get_graph(first).arcs == ((0, 1, "ARG1"),) and get_graph(first).top == (1,)
    assert set(get_graph(second).arcs) == {(1, 0, "ARG1"), (3, 0, "ARG1"), (1, 3, "ARG2")}
    assert [token.tag_ for token in second] == ["NNP", "VBZ", "TO", "VB"]
    assert second.user_data["sent_id"] == "s2" and second.has_unknown_spaces
    assert not any(token.lemma_ for token in second)  # part of the annotation, not of the input


def test_sdp2015_reads_gzip_and_a_blank_line_after_the_header(tmp_path):
    path = tmp_path / "a.sdp.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(SDP.replace("#SDP 2015\n", "#SDP 2015\n\n"))
    assert [len(doc) for doc in read_sdp2015(path, VOCAB)] == [2, 4]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("#SDP 2015", "# SDP 2014", 1, "header"),
        ("2	analytics", "3	analytics", 4, "expected 2"),
        ("a_1	_", "a_1", 3, "0 argument columns, but the sentence has 1 predicates"),
        ("NNS	+", "NNS	1", 4, "column top"),
        ("TO	-	-", "TO	-	x", 9, "column pred"),
        ("1	Mary	_	NNP	-	-	_	ARG1	ARG1", "1	Mary", 7, "2 tab-separated columns"),
        ("v_1	_	_", "v_1	ARG1	_", 8, "to itself"),
        ("n_1	ARG1", "n_1	", 4, "empty argument"),
        ("1	Mary", "1	", 7, "empty word"),
        ("#s2\n", "#s2\n\n", 6, "no tokens"),
    ],
)
def test_sdp2015_names_file_and_line_of_bad_input(tmp_path, old, new, line, message):
    assert old in SDP
    path = write(tmp_path, "bad.sdp", SDP.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"bad\.sdp, line {line}: .*{message}"):
        list(read_sdp2015(path, VOCAB))


def test_not_utf8_is_named(tmp_path):
    path = tmp_path / "latin.sdp"
    path.write_bytes(b"#SDP 2015\n#1\n1\tcaf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.sdp, line \d: not UTF-8"):
        list(read_sdp2015(path, VOCAB))


@st.composite
def graph_docs(draw):
    n = draw(st.integers(1, 5))
    doc = Doc(VOCAB, words=list("abcde"[:n]), tags=["T"] * n)
    tokens = st.integers(0, n - 1)
    pairs = [(h, d) for h, d in draw(st.sets(st.tuples(tokens, tokens), max_size=6)) if h != d]
    arcs = [(h, d, draw(st.sampled_from(["ARG1", "_and_c", "mwe"]))) for h, d in pairs]
    set_graph(doc, arcs, draw(st.sets(tokens, max_size=2)))
    return doc


@settings(max_examples=cases(30, 60))
@given(docs=st.lists(graph_docs(), max_size=3))
def test_sdp2015_written_and_read_is_the_same(docs, tmp_path_factory):
    out = io.StringIO()
    write_sdp2015(docs, out)
    path = write(tmp_path_factory.mktemp("sdp"), "a.sdp", out.getvalue())
    back = list(read_sdp2015(path, VOCAB))
    assert [get_graph(doc) for doc in back] == [get_graph(doc) for doc in docs]
    assert [[t.text for t in doc] for doc in back] == [[t.text for t in doc] for doc in docs]


def test_sdp2015_refuses_what_it_cannot_write():
    doc = Doc(VOCAB, words=["a", "b"])
    with pytest.raises(ValueError, match="no graph"):
        write_sdp2015([doc], io.StringIO())
    set_graph(doc, [(0, 1, "X"), (0, 1, "Y")])
    with pytest.raises(ValueError, match="two arcs"):
        write_sdp2015([doc], io.StringIO())
    tab = Doc(VOCAB, words=["a\tb"])
    set_graph(tab, [])
    with pytest.raises(ValueError, match="cannot be written"):
        write_sdp2015([tab], io.StringIO())


def test_sdp2015_on_real_data(real_data):
    docs = list(read_sdp2015(real_data / "sdp_dm_wescience" / "dev.sdp.gz", VOCAB))
    graphs = [get_graph(doc) for doc in docs]
    assert len(docs) == 540 and sum(map(len, docs)) == 11364
    assert sum(len(graph.arcs) for graph in graphs) == 8016 and all(len(graph.top) == 1 for graph in graphs)


# ---- CoNLL-U -------------------------------------------------------------------------------------


def test_conllu_trees_by_hand(tmp_path):
    first, second = read_conllu(write(tmp_path, "a.conllu", CONLLU), VOCAB)
    assert first.text == "I don't like it" and [t.text for t in first] == ["I", "do", "n't", "like", "it"]
    assert [t.head.i for t in first] == [3, 3, 3, 3, 3] and first[3].dep_ == "ROOT" and first[1].dep_ == "aux"
    assert (first[0].tag_, first[0].pos_, str(first[0].morph)) == ("PRP", "PRON", "Case=Nom")
    assert [t.head.i for t in second] == [1, 1, 3, 1, 3] and second._.sdp is None


def test_conllu_enhanced_graph_collapses_empty_nodes(tmp_path):
    _, doc = read_conllu(write(tmp_path, "a.conllu", CONLLU), VOCAB, tree=False, graph=True)
    arcs = {
        (1, 0, "nsubj"),
        (1, 2, "conj:and>cc"),
        (1, 3, "conj:and>nsubj"),
        (1, 4, "conj:and>obj"),
        (1, 4, "obj"),
    }
    assert set(get_graph(doc).arcs) == arcs and get_graph(doc).top == (1,)
    assert not doc.has_annotation("DEP")
    _, doc = read_conllu(write(tmp_path, "a.conllu", CONLLU), VOCAB, graph=True, subtypes=False)
    assert (1, 2, "conj>cc") in get_graph(doc).arcs and doc.has_annotation("DEP")


def test_conllu_circles_of_empty_nodes_end(tmp_path):
    text = CONLLU.replace(
        "2:conj:and\t_", "2:conj:and|4.2:x\t_\n4.2	go	_	_	_	_	_	_	4.1:y|4:z	_"
    )
    _, doc = read_conllu(write(tmp_path, "a.conllu", text), VOCAB, graph=True)
    assert (1, 3, "conj:and>nsubj") in get_graph(doc).arcs
    assert not any(arc.head == arc.dep for arc in get_graph(doc).arcs)  # 4 -> 4.2 -> 4.1 -> 4 is left out
    assert (3, 4, "z>x>obj") in get_graph(doc).arcs


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("VB	_	0	root", "VB	_	9	root", 7, "head 9 of word 4"),
        ("VB	_	0	root", "VB	_	4	root", 7, "head 4 of word 4"),
        ("VB	_	0	root", "VB	_	x	root", 7, "'x' is not a valid"),
        ("VB	_	0	root", "VB	_	5	root", 3, "0 words with head 0"),
        ("PRP	_	4	obj	4:obj", "PRP	_	0	obj	4:obj", 3, "2 words with head 0"),
        (
            "1	Ann	Ann	PROPN	NNP	_	2",
            "1	Ann	Ann	PROPN	NNP	_	3",
            10,
            "run in a circle",
        ),
        ("4	orphan", "4	_", 15, "no relation"),
        ("2	do	do", "7	do	do", 5, "expected 2"),
        ("SpaceAfter=No", "SpaceAfter=No\tx", 8, "11 tab-separated columns"),
        ("4:nsubj	_", "7:nsubj	_", 3, "'7:nsubj' in column DEPS"),
        ("4:nsubj	_", "4	_", 3, "'4' in column DEPS"),
        ("PRON	PRP	Case=Nom", "NOPE	PRP	Case=Nom", 3, "NOPE"),
    ],
)
def test_conllu_names_file_and_line_of_bad_input(tmp_path, old, new, line, message):
    text = CONLLU.replace(old, new, 1)
    if "circle" in message:
        text = text.replace(
            "3	and	and	CCONJ	CC	_	4", "3	and	and	CCONJ	CC	_	1"
        )
    path = write(tmp_path, "bad.conllu", text)
    with pytest.raises(ValueError, match=rf"bad\.conllu, line {line}: .*{message}"):
        list(read_conllu(path, VOCAB, graph=True))


def test_conllu_without_enhanced_graphs_is_an_error_where_they_are_wanted(tmp_path):
    text = "1	a	_	_	_	_	0	root	_	_\n"
    path = write(tmp_path, "a.conllu", text)
    assert len(list(read_conllu(path, VOCAB))) == 1
    with pytest.raises(ValueError, match="line 1: no enhanced graph"):
        list(read_conllu(path, VOCAB, graph=True))


def test_conllu_without_heads_has_no_tree(tmp_path):
    (doc,) = read_conllu(
        write(tmp_path, "a.conllu", "1	a	_	_	_	_	_	_	_	_\n"), VOCAB
    )
    assert not doc.has_annotation("DEP")


def test_conllu_on_real_data(real_data):
    path = real_data / "ud_english_ewt" / "en_ewt-ud-dev.conllu.gz"
    docs = list(read_conllu(path, VOCAB, graph=True))
    assert len(docs) == 2001 and sum(map(len, docs)) == 25147
    heads = [0] * 2
    for doc in docs:
        for arc in get_graph(doc).arcs:
            heads[doc[arc.dep].head.i == arc.head] += 1
    assert heads[1] / sum(heads) > 0.9  # the enhanced graph mostly has the tree's arcs
    assert "conj:and>cc" in {arc.label for doc in docs for arc in get_graph(doc).arcs}


# ---- labelled text -------------------------------------------------------------------------------


def test_labelled_text_by_hand(tmp_path):
    path = write(tmp_path, "a.tsv", "0\tone long string of cliches .\n\n1\tgood\n")
    docs = list(read_labelled_text(path, VOCAB))
    assert [doc.cats for doc in docs] == [{"0": 1.0, "1": 0.0}, {"0": 0.0, "1": 1.0}]
    assert docs[0].text == "one long string of cliches ." and len(docs[0]) == 6


@pytest.mark.parametrize(("text", "line"), [("1\ta\n0 b\n", 2), ("1\t \n", 1), ("\ta\n", 1)])
def test_labelled_text_names_file_and_line_of_bad_input(tmp_path, text, line):
    with pytest.raises(ValueError, match=rf"bad\.tsv, line {line}: "):
        list(read_labelled_text(write(tmp_path, "bad.tsv", text), VOCAB))


# ---- readers -------------------------------------------------------------------------------------


def two_sentences():
    words, spaces = ["Mary", "sings", ".", "She", "won't"], [True, False, True, True, False]
    doc = Doc(VOCAB, words=words, spaces=spaces, heads=[1, 1, 1, 3, 3], deps=["x"] * 5)
    set_graph(doc, [(1, 0, "ARG1"), (3, 4, "ARG2")], top=[1, 3])
    return doc


def test_stock_corpus_drops_graphs_when_it_splits_and_ours_keeps_them(tmp_path):
    path = tmp_path / "a.spacy"
    DocBin(docs=[two_sentences()], store_user_data=True).to_disk(path)
    for options in ({"max_length": 4}, {"gold_preproc": True}):
        assert all(eg.reference._.sdp is None for eg in StockCorpus(path, **options)(NLP))
    examples = list(reader("diffdecode.Corpus.v1", path=str(path), max_length=4)(NLP))
    assert [get_graph(eg.reference).arcs for eg in examples] == [((1, 0, "ARG1"),), ((0, 1, "ARG2"),)]
    assert [
        len(eg.reference) for eg in reader("diffdecode.Corpus.v1", path=str(path), max_length=2)(NLP)
    ] == [2]


def test_corpus_tokenises_with_the_pipeline_or_keeps_gold_tokens(tmp_path):
    path = tmp_path / "a.spacy"
    DocBin(docs=[two_sentences()], store_user_data=True).to_disk(path)
    (gold,) = reader("diffdecode.Corpus.v1", path=str(path))(NLP)
    (own,) = reader("diffdecode.Corpus.v1", path=str(path), gold_tokens=False)(NLP)
    assert [t.text for t in gold.predicted][-1] == "won't" and [t.text for t in own.predicted][-1] == "n't"
    assert not gold.predicted.has_annotation("DEP") and gold.predicted._.sdp is None


def test_corpus_refuses_a_long_document_without_sentences(tmp_path):
    path = tmp_path / "a.spacy"
    DocBin(docs=[Doc(VOCAB, words=["a", "b", "c"])]).to_disk(path)
    with pytest.raises(ValueError, match=r"3 tokens .* longer than max_length = 2 and has no sentences"):
        list(reader("diffdecode.Corpus.v1", path=str(path), max_length=2)(NLP))


@pytest.mark.parametrize("option", ["limit", "max_length"])
def test_negative_limits_are_refused_and_not_read_as_no_documents(option, tmp_path):
    path = tmp_path / "a.spacy"
    DocBin(docs=[two_sentences()], store_user_data=True).to_disk(path)
    with pytest.raises(ValueError, match=f"{option} is -1"):
        reader("diffdecode.Corpus.v1", path=str(path), **{option: -1})


def test_readers_of_the_formats_make_examples(tmp_path):
    sdp = reader("diffdecode.Sdp2015.v1", path=str(write(tmp_path, "a.sdp", SDP)))
    assert [len(eg.predicted) for eg in sdp(NLP)] == [2, 4] == [len(eg.reference) for eg in sdp(NLP)]
    conllu = reader(
        "diffdecode.Conllu.v1", path=str(write(tmp_path, "a.conllu", CONLLU)), graph=True, limit=1
    )
    assert [get_graph(eg.reference).top for eg in conllu(NLP)] == [(3,)]
    text = reader(
        "diffdecode.LabelledText.v1", path=str(write(tmp_path, "a.tsv", "1\ta\n0\tb\n")), shuffle=True
    )
    assert {eg.reference.text for eg in text(NLP)} == {"a", "b"}


def test_graphs_are_read_under_a_key_and_written_from_it(tmp_path):
    path = write(tmp_path, "a.sdp", SDP)
    (example, _) = reader("diffdecode.Sdp2015.v1", path=str(path), key="dm")(NLP)
    assert graph_keys(example.reference) == ["dm"] and get_graph(example.reference, "dm").top == (1,)
    (example, _) = reader(
        "diffdecode.Conllu.v1", path=str(write(tmp_path, "a.conllu", CONLLU)), graph=True, key="ud"
    )(NLP)
    assert graph_keys(example.reference) == ["ud"] and example.reference.has_annotation("DEP")
    docs = list(read_sdp2015(path, VOCAB, key="dm"))
    out = io.StringIO()
    write_sdp2015(docs, out, key="dm")
    back = read_sdp2015(write(tmp_path, "b.sdp", out.getvalue()), VOCAB)
    assert [get_graph(doc) for doc in back] == [get_graph(doc, "dm") for doc in docs]
    with pytest.raises(ValueError, match=r"no graph in doc\._\.sdp"):
        write_sdp2015(docs, io.StringIO())
    with pytest.raises(ValueError, match="cannot be the key"):
        reader("diffdecode.Sdp2015.v1", path=str(path), key="tree")


NOTHING = {
    "Corpus": DocBin(docs=[Doc(VOCAB)]).to_bytes(),
    "Sdp2015": b"#SDP 2015\n",
    "Conllu": b"\n\n",
    "LabelledText": b"\n",
}


@pytest.mark.parametrize("name", NOTHING)
def test_no_documents_is_one_line(name, tmp_path):
    path = tmp_path / "empty.spacy"
    path.write_bytes(NOTHING[name])
    with pytest.raises(ValueError, match=r"empty\.spacy: no documents with words, expected at least one$"):
        next(iter(reader(f"diffdecode.{name}.v1", path=str(path))(NLP)))


@pytest.mark.filterwarnings("error")
def test_files_that_are_no_corpus_are_one_line(tmp_path):
    for path in (write(tmp_path, "train.conllu", CONLLU), tmp_path):
        with pytest.raises(ValueError, match=rf"{path}: expected a \.spacy file, or a folder"):
            reader("diffdecode.Corpus.v1", path=str(path))
    DocBin(docs=[two_sentences()], store_user_data=True).to_disk(tmp_path / "a.spacy")
    with pytest.raises(ValueError, match=r"no documents with words of at most max_length = 1 tokens"):
        list(reader("diffdecode.Corpus.v1", path=str(tmp_path), max_length=1)(NLP))


@pytest.mark.parametrize("name", ["Corpus", "Sdp2015", "Conllu", "LabelledText"])
def test_a_missing_file_is_named(name):
    with pytest.raises(FileNotFoundError, match="no training data at nowhere"):
        reader(f"diffdecode.{name}.v1", path="nowhere/x")
