"""Every reader of annotated files on damaged ones: read rightly, or one line that names the file."""

import io
import itertools
import re

import pytest
from damaged_files import damaged
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from diffdecode.files.text import FormatError
from spacy_components.cli.distill_parser import read_texts
from spacy_components.sdp_graph import get_graph, set_graph
from spacy_components.training.formats import FORMATS, read_docs, write_sdp2015
from spacy_components.training.graph_labels import read_graph_labels

VOCAB = Vocab()

SDP = """#SDP 2015
#s1
1	Predictive	predictive	JJ	-	+	a_1	_
2	analytics	analytics	NNS	+	-	n_1	ARG1

#s2
1	Mary	_	NNP	-	-	_	ARG1	ARG1
2	wants	want	VBZ	+	+	v_1	_	_
3	sings	sing	VB	-	+	v_1	ARG2	_
"""

CONLLU = """# text = I don't
1	I	I	PRON	PRP	Case=Nom|Person=1	2	nsubj	2:nsubj	_
2-3	don't	_	_	_	_	_	_	_	SpaceAfter=No
2	do	do	VERB	VBP	_	0	root	0:root	_
3	n't	not	PART	RB	_	2	advmod	3.1:advmod	_
3.1	ate	eat	VERB	VBD	_	_	_	2:conj:and	_

1	Ja	ja	INTJ	ITJ	_	0	root	0:root	_
"""

TSV = "pos\tgood film\nneg\tbad film\npos\tfine\n"


def docbin():
    doc = Doc(VOCAB, words=["a", "b"], heads=[1, 1], deps=["x", "ROOT"])
    set_graph(doc, [(0, 1, "ARG1")], [0])
    return DocBin(docs=[doc, doc], store_user_data=True).to_bytes()


CONTENTS = {".sdp": SDP.encode(), ".conllu": CONLLU.encode(), ".tsv": TSV.encode(), ".spacy": docbin()}


def written(folder, content, name):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_or_refused(path, read):
    """What ``read`` makes of the file; None where it is refused, rightly said."""
    try:
        return list(read(path))
    except FormatError as error:
        said = str(error)
        assert said.startswith(str(path)) and len(said.splitlines()) == 1 and len(said) < 400 + len(str(path))
        return None


def read_all(path):
    return read_docs(path, VOCAB, graph=True, subtypes=False)


def test_the_undamaged_files_are_read(tmp_path):
    assert set(CONTENTS) == {format.suffix for format in FORMATS.values()}
    for suffix, content in CONTENTS.items():
        assert len(read_or_refused(written(tmp_path, content, f"a{suffix}"), read_all)) in (2, 3)


@pytest.mark.parametrize("suffix", [".sdp", ".conllu"])
def test_a_sentence_is_read_the_same_alone_and_beside_others(tmp_path, suffix):
    """Of labelled text the file's classes are part of each document, so it has no such sentences."""
    head, body = ("#SDP 2015\n", SDP.split("\n", 1)[1]) if suffix == ".sdp" else ("", CONLLU)
    sentences = [f"{sentence.strip()}\n\n" for sentence in body.split("\n\n") if sentence.strip()]

    def read(*chosen):
        docs = read_all(written(tmp_path, head + "".join(chosen), f"a{suffix}"))
        return [(doc.to_json(), get_graph(doc)) for doc in docs]

    alone = {sentence: read(sentence) for sentence in sentences}
    assert all(len(docs) == 1 for docs in alone.values())
    for order in itertools.permutations([*sentences, sentences[0]]):
        assert read(*order) == [doc for sentence in order for doc in alone[sentence]]


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("suffix", [".sdp", ".conllu", ".tsv"])
def test_damaged_text_is_read_or_refused(suffix, zipped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")

    @settings(max_examples=cases(20, 60) if zipped else cases(60, 300))
    @given(content=damaged(CONTENTS[suffix], zipped=zipped))
    def attempt(content):
        path = written(folder, content, f"a{suffix}{'.gz' if zipped else ''}")
        for doc in read_or_refused(path, read_all) or ():
            assert len(doc)
            assert not any(
                {"\t", "\n", "\r", "\0"} & set(t.text + t.tag_ + t.dep_ + str(t.morph)) for t in doc
            )
            get_graph(doc)

    attempt()


@settings(max_examples=cases(40, 150))
@given(content=damaged(CONTENTS[".spacy"]))
def test_a_damaged_docbin_is_read_or_refused(content, tmp_path_factory):
    read_or_refused(written(tmp_path_factory.mktemp("damaged"), content, "a.spacy"), read_all)


@settings(max_examples=cases(20, 60))
@given(content=damaged(b"one text\nzwei\n"))
def test_damaged_raw_text_is_read_or_refused(content, tmp_path_factory):
    for line in (
        read_or_refused(written(tmp_path_factory.mktemp("damaged"), content, "a.txt"), read_texts) or ()
    ):
        assert line and not {"\n", "\r", "\0"} & set(line)


# ---- the kinds of damage, with what is right -----------------------------------------------------


@pytest.mark.parametrize("suffix", [".sdp", ".conllu", ".tsv"])
@pytest.mark.parametrize("change", [lambda b: b"\xef\xbb\xbf" + b, lambda b: b.replace(b"\n", b"\r\n")])
def test_byte_order_mark_and_line_ends_change_nothing(suffix, change, tmp_path):
    docs, others = (
        read_or_refused(written(tmp_path, content, f"{name}{suffix}"), read_all)
        for name, content in (("a", CONTENTS[suffix]), ("b", change(CONTENTS[suffix])))
    )
    assert [doc.to_json() for doc in docs] == [doc.to_json() for doc in others]
    assert [doc.user_data for doc in docs] == [doc.user_data for doc in others]
    assert [doc.cats for doc in docs] == [doc.cats for doc in others]


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u2028", "\x0b", "\x1c", "\x85"])
def test_unicode_white_space_is_part_of_the_word(space, tmp_path):
    word = f"10{space}000"
    for suffix, old in ((".sdp", "wants"), (".conllu", "Ja"), (".tsv", "fine")):
        content = CONTENTS[suffix].decode().replace(old, word, 1)
        docs = read_or_refused(written(tmp_path, content, f"a{suffix}"), read_all)
        assert word in [token.text for doc in docs for token in doc]


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("Person=1", "Person=", 2, "'Person=' in column FEATS"),
        ("Person=1", "Person", 2, "'Person' in column FEATS"),
        ("Person=1", "Case=Acc", 2, "its name is given twice"),
        ("2-3\t", "3-4\t", 3, "range 3-4"),
        ("2-3\t", "2-9\t", 3, "range 2-9"),
        ("3.1\tate", "3.2\tate", 6, "token id '3.2', expected 3.1"),
        ("3.1\tate", "²\tate", 6, "token id '²'"),
        ("1\tJa", "01\tJa", 8, "token id '01'"),
        ("1\tJa", "1\t", 8, "empty word"),
        ("2\tnsubj\t", "-2\tnsubj\t", 2, "'-2' is not a valid head"),
        ("2\tnsubj\t", "_\tnsubj\t", 2, "'_' is not a valid head"),
        ("2:nsubj", "2::nsubj", 2, "in column DEPS"),
    ],
)
def test_conllu_damage_is_named_with_its_line(tmp_path, old, new, line, problem):
    assert old in CONLLU
    path = written(tmp_path, CONLLU.replace(old, new, 1), "a.conllu")
    with pytest.raises(FormatError, match=rf"a\.conllu, line {line}: .*{re.escape(problem)}"):
        list(read_all(path))


def test_conllu_empty_columns_are_columns_without_annotation(tmp_path):
    lines = ["\t".join(["1", "Ja", x, x, x, x, "0", "root", x, x]) for x in ("_", "")]
    one, other = (next(read_docs(written(tmp_path, text, "a.conllu"), VOCAB)) for text in lines)
    assert one.to_json() == other.to_json() and one[0].dep_ == "ROOT" and not one[0].tag_


@pytest.mark.parametrize(
    "text",
    [
        "sentence\tlabel\nhide new secretions\t0\ncontains no wit\t0\nloves its characters\t1\n",
        "a good film\t1\na bad film\t0\n",
        "good\t1\nfine\t1\nbad\t0\n",
        "".join(f"{i}\ttext number {i}\n" for i in range(10)),
    ],
    ids=["GLUE", "all differ", "more classes than texts", "a number a line"],
)
def test_swapped_columns_are_refused_with_a_hint(text, tmp_path):
    with pytest.raises(FormatError, match="the other way round"):
        list(read_docs(written(tmp_path, text, "a.tsv"), VOCAB))


@pytest.mark.parametrize(
    "text", ["1\ta\n0\tb\n", "very good\tI liked it .\nvery bad\tI did not .\n", "1\tx\n0\tx\n"]
)
def test_small_files_in_the_right_order_are_read(text, tmp_path):
    assert len(list(read_docs(written(tmp_path, text, "a.tsv"), VOCAB))) == 2


# ---- what is written can be read -----------------------------------------------------------------

TEXTS = st.text(
    st.sampled_from("ab_#+-\t\n\r\0\u00a0\u2028 \x1c\ufeff") | st.characters(codec="utf-8"), max_size=3
)


@st.composite
def any_docs(draw):
    words = draw(st.lists(TEXTS.filter(bool), max_size=3))
    doc = Doc(VOCAB, words=words, tags=[draw(TEXTS) for _ in words])
    tokens = st.integers(0, max(len(words) - 1, 0))
    pairs = draw(st.lists(st.tuples(tokens, tokens), max_size=3)) if words else []
    arcs = {(h, d, draw(TEXTS.filter(bool))) for h, d in pairs if h != d}
    if draw(st.integers(0, 9)):
        set_graph(doc, arcs, draw(st.sets(tokens)) if words else ())
    if draw(st.booleans()):
        doc.user_data["sent_id"] = draw(TEXTS)
    return doc


def annotation(doc, number):
    tags, name = [token.tag_ for token in doc], doc.user_data.get("sent_id", str(number))
    return [token.text for token in doc], tags, name, get_graph(doc)


@settings(max_examples=cases(60, 300))
@given(docs=st.lists(any_docs(), max_size=2))
def test_sdp_written_is_read_or_refused_by_the_writer(docs, tmp_path_factory):
    file = io.StringIO(newline="")
    try:
        write_sdp2015(docs, file)
    except FormatError:
        raise
    except ValueError as error:
        assert "document" in str(error) and not file.getvalue()
        return
    path = written(tmp_path_factory.mktemp("sdp"), file.getvalue(), "a.sdp")
    back = list(read_docs(path, VOCAB))
    assert [annotation(*doc) for doc in zip(back, (1, 2))] == [annotation(*doc) for doc in zip(docs, (1, 2))]


@pytest.mark.parametrize(
    ("words", "label", "extra", "problem"),
    [
        ("ab", "_", {}, "label '_' cannot"),
        ("ab", "A\tB", {}, "label .* cannot"),
        ("ab", "A\0", {}, "label .* cannot"),
        ("ab", "A", {"tag": "N\tN"}, "tag .* cannot"),
        ("ab", "A", {"tag": "_"}, "tag '_' cannot"),
        ("ab", "A", {"sent_id": "x\ny"}, "sentence id .* cannot"),
        ("", "A", {}, "no tokens"),
    ],
)
def test_sdp_writer_refuses_what_its_reader_could_not_give_back(words, label, extra, problem):
    doc = Doc(VOCAB, words=list(words))
    set_graph(doc, [(1, 0, label)] if words else [])
    if "tag" in extra:
        doc[0].tag_ = extra.pop("tag")
    doc.user_data.update(extra)
    file = io.StringIO()
    with pytest.raises(ValueError, match=problem):
        write_sdp2015([doc], file)
    assert not file.getvalue()


# ---- what has no graph has no labels -------------------------------------------------------------


def test_graph_labels_of_every_format_and_none_of_a_file_without_graphs(tmp_path):
    for suffix, labels in ((".sdp", ["ARG1", "ARG2"]), (".spacy", ["ARG1"])):
        found = read_graph_labels(written(tmp_path, CONTENTS[suffix], f"a{suffix}"))
        assert found["labels"] == labels
    path = written(tmp_path, CONLLU, "a.conllu")
    assert read_graph_labels(path)["labels"] == ["conj:and>advmod", "nsubj"]
    assert read_graph_labels(path, subtypes=False)["labels"] == ["conj>advmod", "nsubj"]
    assert read_graph_labels(path, key="ud") == read_graph_labels(path)
    path = written(tmp_path, CONTENTS[".spacy"], "a.spacy")
    with pytest.raises(FormatError, match=r"a\.spacy: no document has a graph in doc\._\.ud"):
        read_graph_labels(path, key="ud")
    with pytest.raises(FormatError, match=r"a\.tsv: no document has a graph"):
        read_graph_labels(written(tmp_path, TSV, "a.tsv"))
