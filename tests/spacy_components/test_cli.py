"""The spacy sub-commands, run in process."""

import gzip
import json

import pytest
import spacy
from spacy.cli._util import app
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

from spacy_components import cli  # noqa: F401 - registers the commands
from spacy_components.sdp_graph import get_graph, graph_keys, set_graph

SDP = """#SDP 2015
#s1
1	b	_	JJ	-	+	_	_
2	a	_	NNS	+	-	_	ARG1

#s2
1	a	_	NNS	+	+	_	_
2	b	_	JJ	-	-	_	ARG2
"""


@Language.factory("chain_parser", default_config={"to_left": True})
def make_chain_parser(nlp, name, to_left):
    """Hangs every token from its left (or right) neighbour, in the tree and in the graph."""

    def parse(doc):
        n = len(doc)
        heads = [max(i - 1, 0) if to_left else min(i + 1, n - 1) for i in range(n)]
        parsed = Doc(nlp.vocab, words=[t.text for t in doc], heads=heads, deps=["<dep>"] * n)
        arcs = [(head, i, "ARG1") for i, head in enumerate(heads) if head != i]
        set_graph(parsed, arcs, [i for i, head in enumerate(heads) if head == i])
        return parsed

    return parse


def pipeline(folder, to_left):
    nlp = spacy.blank("xx")
    nlp.add_pipe("chain_parser", config={"to_left": to_left})
    nlp.to_disk(folder)
    return str(folder)


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def spacy_cli(*arguments):
    """The exit code and the output, without line breaks: wasabi wraps at the width of the terminal."""
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.stdout.split())


def test_convert_sdp_keeps_graphs(tmp_path):
    out = tmp_path / "new" / "a.spacy"
    code, said = spacy_cli("convert-sdp", write(tmp_path, "a.sdp", SDP), str(out))
    assert code == 0 and "2 documents, 4 tokens, 2 with a graph" in said
    docs = list(DocBin().from_disk(out).get_docs(spacy.blank("xx").vocab))
    assert [get_graph(doc).arcs for doc in docs] == [((0, 1, "ARG1"),), ((0, 1, "ARG2"),)]


def test_convert_sdp_of_enhanced_ud_and_labelled_text(tmp_path):
    conllu = "1\ta\t_\t_\t_\t_\t2\tnsubj\t2:nsubj:x\t_\n2\tb\t_\t_\t_\t_\t0\troot\t0:root\t_\n"
    out = str(tmp_path / "a.spacy")
    options = ["--graph", "--no-subtypes", "--no-tree", "--format", "conllu"]
    code, said = spacy_cli("convert-sdp", write(tmp_path, "a.txt", conllu), out, *options)
    assert code == 0 and "1 with a graph" in said and "tree" not in said
    code, said = spacy_cli(
        "convert-sdp", write(tmp_path, "a.tsv", "1\tx y\n0\tz\n1\tz\n"), out, "--limit", "2"
    )
    assert "2 documents, 3 tokens, 2 with categories" in said


def test_convert_sdp_names_bad_input(tmp_path):
    code, said = spacy_cli("convert-sdp", write(tmp_path, "a.sdp", "no header\n"), str(tmp_path / "b.spacy"))
    assert code == 1 and "a.sdp, line 1: expected the header" in said
    code, said = spacy_cli("convert-sdp", write(tmp_path, "a.txt", SDP), str(tmp_path / "b.spacy"))
    assert code == 1 and "name a format" in said
    code, said = spacy_cli(
        "convert-sdp", write(tmp_path, "a.sdp", SDP), str(tmp_path / "b.spacy"), "-f", "amr"
    )
    assert code == 1 and "unknown format 'amr'" in said
    assert not (tmp_path / "b.spacy").exists()


def test_evaluate_sdp_on_two_files(tmp_path):
    gold = write(tmp_path, "gold.sdp", SDP)
    system = write(tmp_path, "system.sdp", SDP.replace("ARG2", "ARG1"))
    out = tmp_path / "scores.json"
    code, said = spacy_cli("evaluate-sdp", gold, system, "--output", str(out))
    assert code == 0 and "75.00" in said  # LF with tops: 3 of 4 edges
    scores = json.loads(out.read_text())
    assert scores["without tops"]["sdp_lf"] == 0.5 and scores["without tops"]["sdp_uf"] == 1.0


def test_evaluate_sdp_runs_a_pipeline(tmp_path):
    code, said = spacy_cli(
        "evaluate-sdp", write(tmp_path, "gold.sdp", SDP), pipeline(tmp_path / "left", True)
    )
    assert code == 0
    row = " ".join(["100.00"] * 4 + ["50.00"] * 4)  # UP UR UF UM LP LR LF LM
    assert f"without tops {row}" in said


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (SDP.split("\n\n")[0] + "\n", "gold.sdp has 2 sentences and"),
        (SDP.replace("\tb\t", "\tc\t"), "sentence 1:"),
    ],
)
def test_evaluate_sdp_names_what_does_not_match(tmp_path, system, message):
    code, said = spacy_cli("evaluate-sdp", write(tmp_path, "gold.sdp", SDP), write(tmp_path, "s.sdp", system))
    assert code == 1 and message in said


def test_compare_parses_prints_table_3_and_draws_the_changes(tmp_path):
    left, right = pipeline(tmp_path / "left", True), pipeline(tmp_path / "right", False)
    page = tmp_path / "changes.html"
    code, said = spacy_cli(
        "compare-parses", left, right, write(tmp_path, "gold.sdp", SDP), "--html", str(page)
    )
    assert code == 0, said
    assert "DIFF 2 before 50.00 DIFF 2 after 25.00" in said and "SAME 0 after DIFF" in said
    assert "4 heads changed" in said and "2 of 2 changed trees" in said
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 4 and "&lt;dep&gt; ✱" in html and "<dep>" not in html


def test_compare_parses_of_a_pipeline_without_a_parser(tmp_path):
    spacy.blank("xx").to_disk(tmp_path / "blank")
    blank, data = str(tmp_path / "blank"), write(tmp_path, "gold.sdp", SDP)
    code, said = spacy_cli("compare-parses", blank, blank, data)
    assert code == 1 and "has no parse from the system 'before'" in said.replace("\n", " ")


def test_graphs_of_several_files_on_the_same_documents(tmp_path):
    dm, psd = write(tmp_path, "dm.sdp", SDP), write(tmp_path, "psd.sdp", SDP.replace("ARG", "PAT"))
    out = str(tmp_path / "both.spacy")
    code, said = spacy_cli("convert-sdp", dm, out, "--also", f"psd={psd}", "--also", f"dm={dm}")
    assert code == 0 and "2 documents, 4 tokens, 2 with a graph" in said
    docs = list(DocBin().from_disk(out).get_docs(spacy.blank("xx").vocab))
    assert [graph_keys(doc) for doc in docs] == [["dm", "psd", "sdp"]] * 2
    assert get_graph(docs[1], "psd").arcs == ((0, 1, "PAT2"),) and get_graph(docs[1]).arcs[0].label == "ARG2"

    scores = tmp_path / "scores.json"
    code, _ = spacy_cli("evaluate-sdp", out, psd, "--key", "psd", "-o", str(scores))
    assert code == 0 and json.loads(scores.read_text())["with tops"]["psd_lf"] == 1.0
    code, _ = spacy_cli("evaluate-sdp", out, psd, "-o", str(scores))
    assert code == 0 and json.loads(scores.read_text())["without tops"]["sdp_lf"] == 0.0


def test_graphs_that_do_not_belong_to_the_documents_are_one_line(tmp_path):
    dm, out = write(tmp_path, "dm.sdp", SDP), str(tmp_path / "both.spacy")
    other = write(tmp_path, "psd.sdp", SDP.replace("\tb\t", "\tc\t"))
    assert "graphs 'psd', document 1" in refused(tmp_path, "convert-sdp", dm, out, "--also", f"psd={other}")
    for arguments in (["--also", f"sdp={dm}"], ["--also", f"psd={dm}", "--also", f"psd={dm}"]):
        assert "needs a key of its own" in refused(tmp_path, "convert-sdp", dm, out, *arguments)
    texts = write(tmp_path, "a.tsv", "1\tb a\n0\ta b\n")
    assert "no document has a graph" in refused(tmp_path, "convert-sdp", dm, out, "--also", f"psd={texts}")
    assert "expected KEY=FILE" in refused(tmp_path, "convert-sdp", dm, out, "--also", other)
    assert "cannot be the key" in refused(tmp_path, "convert-sdp", dm, out, "--key", "tree")
    spacy_cli("convert-sdp", dm, out)
    assert "no document has a graph" in refused(tmp_path, "evaluate-sdp", out, dm, "--key", "psd")


# ---- bad input: one line, exit code 1, nothing written -------------------------------------------

DAMAGED = {
    "data.sdp": SDP.replace("ARG1", "ARG1\tx").encode(),
    "latin.conllu": b"1\tcaf\xe9\t_\t_\t_\t_\t0\troot\t_\t_\n",
    "swapped.tsv": b"sentence\tlabel\na good film\t1\nbad\t1\nfine\t1\n",
    "data.sdp.gz": gzip.compress(SDP.encode(), mtime=0)[:-9],
    "data.spacy": DocBin().to_bytes()[:-5],
    "empty.conllu": b"\n",
    "data.unknown": b"",
}


def refused(folder, *arguments):
    """What a command says that must refuse its input and leave the folder as it was."""
    before = sorted(folder.rglob("*"))
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    assert sorted(folder.rglob("*")) == before
    said = result.output.replace("\n", " ")
    assert said.count("✘") == 1 and "Traceback" not in said
    return said


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_data_is_one_line(tmp_path, name):
    bad = tmp_path / name
    bad.write_bytes(DAMAGED[name])
    good, out = write(tmp_path, "good.sdp", SDP), str(tmp_path / "new" / "out")
    refused(tmp_path, "convert-sdp", str(bad), out + ".spacy")
    refused(tmp_path, "evaluate-sdp", str(bad), good, "--output", out)
    refused(tmp_path, "evaluate-sdp", good, str(bad), "--output", out)


def test_damaged_data_for_pipelines_is_one_line(tmp_path):
    nlp, bad = pipeline(tmp_path / "nlp", True), tmp_path / "data.sdp"
    bad.write_bytes(DAMAGED["data.sdp"])
    page = str(tmp_path / "page.html")
    assert "data.sdp, line 4" in refused(tmp_path, "compare-parses", nlp, nlp, str(bad), "--html", page)
    assert "data.sdp, line 4" in refused(tmp_path, "evaluate-sdp", str(bad), nlp, "--output", page)
    empty = write(tmp_path, "empty.conllu", "\n\n")
    assert "empty.conllu: no documents" in refused(tmp_path, "compare-parses", nlp, nlp, empty)
    bad.write_bytes(b"one\nzwei\n\xff\n")
    assert "data.sdp, line 3" in refused(tmp_path, "distill-parser", nlp, str(bad), str(tmp_path / "out"))


@pytest.mark.parametrize(
    "damage",
    [("config.cfg", b"[nlp"), ("meta.json", b"{"), ("vocab/strings.json", b"x"), ("tokenizer", b"\xc1")],
)
def test_a_damaged_pipeline_is_one_line(tmp_path, damage):
    name, content = damage
    nlp, good = tmp_path / "nlp", write(tmp_path, "good.sdp", SDP)
    pipeline(nlp, True)
    (nlp / name).write_bytes(content)
    for command in (["compare-parses", str(nlp), str(nlp), good], ["evaluate-sdp", good, str(nlp)]):
        assert str(nlp) in refused(tmp_path, *command).replace(" ", "")
    refused(tmp_path, "distill-parser", str(nlp), good, str(tmp_path / "out"))


def test_a_damaged_config_is_one_line(tmp_path):
    nlp, text = pipeline(tmp_path / "nlp", True), write(tmp_path, "a.txt", "a b\nc d\ne f\ng h\n")
    config = write(tmp_path, "bad.cfg", "[nlp\n")
    said = refused(tmp_path, "distill-parser", nlp, text, str(tmp_path / "out"), "-c", config)
    assert "Cannot distil" in said


def test_evaluate_sdp_does_not_take_no_graphs_for_empty_ones(tmp_path):
    spacy.blank("xx").to_disk(tmp_path / "blank")
    blank, gold = str(tmp_path / "blank"), write(tmp_path, "gold.sdp", SDP)
    assert "gives no document a graph" in refused(tmp_path, "evaluate-sdp", gold, blank)
    assert "no document has a graph" in refused(
        tmp_path, "evaluate-sdp", write(tmp_path, "a.tsv", "1\tb a\n0\ta b\n"), gold
    )


def test_unknown_languages_and_unwritable_outputs_are_one_line(tmp_path):
    gold = write(tmp_path, "gold.sdp", SDP)
    assert "zzz" in refused(tmp_path, "convert-sdp", gold, str(tmp_path / "a.spacy"), "--lang", "zzz")
    (tmp_path / "folder").mkdir()
    assert "cannot write" in refused(tmp_path, "convert-sdp", gold, str(tmp_path / "folder"))
    assert "cannot write" in refused(tmp_path, "evaluate-sdp", gold, gold, "-o", str(tmp_path / "folder"))


def test_a_negative_limit_is_a_wrong_use(tmp_path):
    gold = write(tmp_path, "gold.sdp", SDP)
    code, _ = spacy_cli("convert-sdp", gold, str(tmp_path / "a.spacy"), "--limit", "-1")
    assert code == 2 and not (tmp_path / "a.spacy").exists()
