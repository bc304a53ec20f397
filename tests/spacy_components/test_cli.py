"""The spacy sub-commands, run in process."""

import json

import pytest
import spacy
from spacy.cli._util import app
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

from spacy_components import cli  # noqa: F401 - registers the commands
from spacy_components.sdp_graph import get_graph, set_graph

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
    nlp = spacy.blank("en")
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
    docs = list(DocBin().from_disk(out).get_docs(spacy.blank("en").vocab))
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
    spacy.blank("en").to_disk(tmp_path / "blank")
    blank, data = str(tmp_path / "blank"), write(tmp_path, "gold.sdp", SDP)
    code, said = spacy_cli("compare-parses", blank, blank, data)
    assert code == 1 and "has no parse from the system 'before'" in said.replace("\n", " ")
