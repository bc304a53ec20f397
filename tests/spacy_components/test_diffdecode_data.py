"""``diffdecode-data``: counts against known and brute-force ones, and problems by file and document."""

from itertools import combinations

import numpy as np
import pytest
import spacy
from spacy.cli._util import app
from spacy.tokens import Doc, DocBin
from toy_pipelines import parsed_docs
from typer.testing import CliRunner

import spacy_components.cli  # noqa: F401 - registers the commands
from spacy_components.pipeline.gold_trees import crossing_arcs
from spacy_components.sdp_graph import set_graph
from spacy_components.training.formats import read_conllu
from spacy_components.training.statistics import Coverage, Problem, Statistics, as_rows

VOCAB = spacy.blank("en").vocab


def tree(words, heads, deps=None, **annotation):
    words = words.split()
    return Doc(VOCAB, words=words, heads=heads, deps=deps or ["dep"] * len(words), **annotation)


def command(*arguments):
    result = CliRunner().invoke(app, ["diffdecode-data", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def write(path, *docs):
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def crossed(heads, known):
    """By definition: of two arcs, each has just one end strictly inside the other."""
    ends = {d: sorted((d, -1 if h == d else h)) for d, h in enumerate(heads) if known[d]}
    found = set()
    for (one, (a, b)), (two, (c, d)) in combinations(ends.items(), 2):
        if a < c < b < d or c < a < d < b:
            found |= {one, two}
    return [d in found for d in range(len(heads))]


def test_crossing_arcs_are_those_of_the_definition():
    rng = np.random.RandomState(0)
    seen = set()
    for _ in range(200):
        n = rng.randint(1, 9)
        heads, known = rng.randint(0, n, n), rng.rand(n) < 0.8
        expected = crossed(heads.tolist(), known)
        assert crossing_arcs(heads, known).tolist() == expected
        seen.add(sum(expected))
    assert {0, 2, 3} <= seen


def test_trees_are_counted():
    docs = [
        tree("a b c d", [2, 3, 2, 2], ["x", "y", "ROOT", "x"]),  # b-d crosses a-c and the arc of the root c
        tree("a b", [0, 1], ["ROOT", "ROOT"]),
        tree("a b c", [1, 1, 2], ["x", "ROOT", ""]),
    ]
    made = Statistics.of(docs)
    trees = made.trees
    assert (trees.documents, trees.words, trees.without_head) == (3, 8, 1)
    assert (trees.crossing_arcs, trees.crossing_trees) == (3, 1)
    assert trees.roots == {1: 2, 2: 1} and trees.labels == {"x": 3, "y": 1}
    assert made.lengths == [4, 2, 3] and made.first == {("relation", "x"): 1, ("relation", "y"): 1}
    assert made.problems == [Problem(3, "a b c ", "1 of 3 words have no head")]
    assert ("crossing arcs", "3 (37.50 %)") in as_rows(made)


def test_graphs_and_categories_are_counted():
    docs = [Doc(VOCAB, words="a b c d".split()) for _ in range(3)]
    set_graph(docs[0], [(0, 1, "A"), (2, 1, "A"), (0, 2, "B")], [0])
    set_graph(docs[1], [(0, 1, "A"), (0, 2, "A"), (0, 1, "B")])
    set_graph(docs[1], [], [], "psd")
    docs[2].cats = {"good": 1.0, "bad": 0.0}
    made = Statistics.of(docs)
    graphs = made.graphs["sdp"]
    assert (graphs.documents, graphs.words, graphs.arcs) == (2, 8, 6)
    assert (graphs.several_heads, graphs.unattached) == (1, 2)
    assert graphs.tops == {0: 1, 1: 1} and graphs.labels == {"A": 4, "B": 2}
    assert graphs.deterministic == ["B"] and made.graphs["psd"].arcs == 0
    assert made.with_cats == 1 and made.cats == {"good": 1} and not made.problems


def test_problems_name_their_document():
    long = Doc(VOCAB, words=["w"] * 9)
    long.cats = {"good": 0.5}
    split = tree("w " * 9, [0] * 5 + [5] * 4, ["ROOT", *["dep"] * 4, "ROOT", *["dep"] * 3])
    broken = parsed_docs(VOCAB)[0]
    broken._.sdp = {"arcs": [[0, 99, "A"]], "top": []}
    made = Statistics.of([Doc(VOCAB, words=["w"]), Doc(VOCAB), long, split, broken], max_length=4)
    found = {(problem.document, problem.what.partition(":")[0]) for problem in made.problems}
    assert found == {
        (1, "no tree, no graph and no category"),
        (2, "no words"),
        (3, "9 words and no sentence boundaries"),
        (3, "category 'good' is 0.5, neither 0 nor 1"),
        (4, "a sentence of 5 words"),
        (5, "a sentence of 7 words"),
        (5, "dep of arc [0, 99, 'A'] lies outside of the 7 tokens of 'the small cat saw a dog . '"),
    }
    assert not Statistics.of([split], max_length=5).problems
    with pytest.raises(ValueError, match="max_length is -1"):
        Statistics.of([split], max_length=-1)


def test_coverage_is_of_labels_words_and_texts():
    train = Statistics.of([tree("a b", [0, 0], ["ROOT", "x"]), tree("c d", [0, 0], ["ROOT", "x"])])
    other = [tree("c d", [0, 0], ["ROOT", "x"]), tree("a e", [0, 0], ["ROOT", "z"])]
    other[1].cats = {"good": 1.0}
    coverage = Coverage.of(train, Statistics.of(other))
    assert coverage.labels == {("relation", "z"): (1, 2)} and coverage.absent == ["category"]
    assert coverage.unseen_words == 0.25 and coverage.repeated == [(2, 1)]


def test_command_names_file_and_document(tmp_path):
    train = write(tmp_path / "train.spacy", *parsed_docs(VOCAB))
    dev = write(tmp_path / "dev.spacy", tree("dogs bark", [1, 1], ["new", "ROOT"]), Doc(VOCAB, words=["w"]))
    code, output = command(train, dev)
    output = output.replace(f"{tmp_path}/", "")
    assert code == 0 and "documents with a tree 6" in output and "sdp: words with several heads" in output
    for said in (
        "dev.spacy: document 2 ('w '): no tree, no graph and no category",
        "dev.spacy: relation 'new' is not in train.spacy: 1 times, first in document 1",
        "dev.spacy: 1 texts are in train.spacy, too; the first is document 1, there document 2",
        "tokens that do not occur in train.spacy: 33.33 %",
    ):
        assert said in output
    assert "1 more of these; --show 2 names them" in command(train, dev, "--show", 1)[1]
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.spacy", *parsed_docs(VOCAB)), write(folder / "b.spacy", *parsed_docs(VOCAB))
    assert "documents 12" in command(folder)[1]


def test_bad_input_is_one_line(tmp_path):
    (tmp_path / "bad.conllu").write_text("1\ta\n\n")
    empty = write(tmp_path / "empty.spacy")
    for path, said in (
        (tmp_path / "bad.conllu", "bad.conllu, line 1"),
        (empty, "no documents"),
        (tmp_path / "none.spacy", "No such file"),
        (tmp_path / "a.txt", "name a format"),
    ):
        code, output = command(path)
        assert code == 1 and said in output and "Traceback" not in output


def test_counts_of_a_treebank(real_data):
    """Those that are known of it: 31 trees with crossing arcs, 25,147 words."""
    docs = read_conllu(real_data / "ud_english_ewt" / "en_ewt-ud-dev.conllu.gz", VOCAB, tree=True)
    made = Statistics.of(docs, 192)
    assert (len(made.lengths), sum(made.lengths)) == (2001, 25147)
    assert made.trees.crossing_trees == 31 and made.trees.roots == {1: 2001} and not made.problems
