"""The recipe in which tags teach a parser: its data, its report, and all of it in small."""

import gzip
import json
import random

import pytest
from rich.console import Console
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from examples.papers.teach_parser import __main__ as recipe
from examples.papers.teach_parser import material, report
from examples.papers.teach_parser.generated import CLASSES, MODIFIERS, SHOWN, belongs_left, generate
from examples.papers.teach_parser.material import RARE, Draw, words_in, write_dev


def documents(path):
    return list(DocBin().from_disk(path).get_docs(Vocab()))


@pytest.fixture
def data(tmp_path):
    """Thirty sentences of each split; all have a tree and categories. The names say which is which."""
    for split in ("train", "dev"):
        trees, tags, names = [], [], []
        for i in range(30):
            word = f"{split}{i}"
            rows = [("the", "DET", 2, "det"), (word, "NOUN", 3, "nsubj:pass"), ("ends", "VERB", 0, "root")]
            lines = [f"{n}\t{w}\t_\t{p}\t_\t_\t{h}\t{r}\t_\t_" for n, (w, p, h, r) in enumerate(rows, 1)]
            trees.append("\n".join([f"# sent_id = {word}", *lines]))
            tags.append("\n".join(["the\tNP/NP", f"{word}\t{'RARE' if i == 0 else 'NP'}", "ends\tS\\NP"]))
            names.append(word)
        files = {
            f"ud_english_ewt/en_ewt-ud-{split}.conllu.gz": "\n\n".join(trees) + "\n\n",
            f"ccg_ewt/{split}.tsv.gz": "\n\n".join(tags) + "\n",
            f"ccg_ewt/{split}.ids.gz": "\n".join(names) + "\n",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(gzip.compress(text.encode(), mtime=0))
    return tmp_path


def test_no_sentence_has_a_tree_and_tags(data):
    for seed in range(3):
        Draw(data, trees=10, sentences=15, seed=seed).write(data / str(seed))
        parts = {name: documents(data / str(seed) / f"{name}.spacy") for name in ("trees", "tags", "aside")}
        assert {name: len(docs) for name, docs in parts.items()} == {"trees": 10, "tags": 15, "aside": 1}
        words = [doc[1].text for docs in parts.values() for doc in docs]
        assert len(set(words)) == 26 and all(word.startswith("train") for word in words)
        for doc in parts["trees"]:
            assert [t.head.i for t in doc] == [1, 2, 2] and [t.dep_ for t in doc] == ["det", "nsubj", "ROOT"]
            assert not any(token.tag_ for token in doc)
        for doc in parts["tags"]:
            assert not doc.has_annotation("DEP") and doc[0].tag_ == "NP/NP"
            assert doc[1].tag_ == ("" if doc[1].text == "train0" else "NP")  # fewer than RARE
    assert words_in(data / "0" / "trees.spacy") == 30 and RARE > 1


def test_draws_are_those_of_their_seed(data):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        Draw(data, trees=10, sentences=15, seed=seed).write(data / folder)
    a, b, c = ([doc.text for doc in documents(data / x / "tags.spacy")] for x in "abc")
    assert a == b != c


def test_dev_has_all_sentences(data):
    write_dev(data, data / "made")
    trees, tags = (documents(data / "made" / f"{name}.spacy") for name in ("trees", "tags"))
    assert [doc[1].text for doc in trees] == [doc[1].text for doc in tags] == [f"dev{i}" for i in range(30)]
    assert tags[0][1].tag_ == "RARE" and trees[0][1].pos_ == "NOUN"


def test_too_little_data_is_said(data):
    with pytest.raises(ValueError, match=r"30 trees and .* too few for 31"):
        Draw(data, trees=31, sentences=5, seed=0).write(data / "x")
    (data / "ccg_ewt" / "train.ids.gz").write_bytes(gzip.compress(b"one\n", mtime=0))
    with pytest.raises(ValueError, match="1 names for 30 sentences"):
        Draw(data, trees=5, sentences=5, seed=0).write(data / "x")
    assert not (data / "x").exists()


def test_only_half_of_the_modifiers_are_in_the_treebank_and_their_letters_do_not_tell_their_side():
    sides = {modifier: belongs_left(modifier) for modifier in MODIFIERS}
    for letters in ({m[0] for m in MODIFIERS}, {m[1] for m in MODIFIERS}):
        for letter in letters:
            own = [left for modifier, left in sides.items() if letter in modifier[:2]]
            assert sum(own) * 2 == len(own)
    assert len(SHOWN) * 2 == len(MODIFIERS) and sum(sides[m] for m in SHOWN) * 2 == len(SHOWN)
    draw = random.Random(0)
    for words, tags, heads, relations in (generate(draw) for _ in range(50)):
        assert [i for i, head in enumerate(heads) if head == i] == [0] and relations[0] == "ROOT"
        for i in range(1, len(words), 2):
            assert words[heads[i]] in CLASSES[tags[i]] and heads[i] == (i - 1 if sides[words[i]] else i + 1)


def row(system, seed, accuracy, uas=None):
    scores = {} if uas is None else {"uas": uas, "las": uas - 10}
    start = None if uas is None else {"uas": 60.0}
    cell = {"encoder": "word", "trees": 300, "system": system, "seed": seed, "seconds": 2.0}
    cell |= {"learn_rate": 0.002, "grad_factor": 0.75}
    return cell | scores | {"accuracy": accuracy, "start": start}


def test_differences_are_between_runs_of_the_same_seed():
    rows = [row("none", 0, 60.0), row("none", 1, 61.0)]
    rows += [row("pipeline", 0, 70.0, 65.0), row("pipeline", 1, 80.0, 65.0)]
    rows += [row("ste", 1, 81.0, 60.0), row("ste", 0, 73.0, 68.0)]
    text = report.tables(rows)
    lines = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert "+2.00 ± 1.00, 2/2" in lines["ste"] and "-1.00 ± 4.00, 1/2" in lines["ste"]
    assert "-14.50 ± 4.50, 0/2" in lines["none"] and "/2" not in lines["pipeline"]
    assert "60.50 ± 0.71" in lines["none"] and lines["none"].count("/2") == 1


def test_moved_arcs_are_counted_by_gold_relation(tmp_path):
    gold = Doc(Vocab(), "a b c d".split(), heads=[1, 3, 3, 3], deps=["det", "nsubj", "obj", "ROOT"])
    before = Doc(Vocab(), "a b c d".split(), heads=[2, 3, 1, 3], deps=["x"] * 4)
    after = Doc(Vocab(), "a b c d".split(), heads=[1, 2, 0, 3], deps=["x"] * 4)
    paths = []
    for name, doc in (("before", before), ("after", after), ("gold", gold)):
        paths.append(tmp_path / name)
        DocBin(["HEAD", "DEP", "POS"], docs=[doc] * 30).to_disk(paths[-1])
    changed = report.changes(*paths)
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in report.changed_arcs(changed).split("\n\n")[0].splitlines()
    }
    assert rows["all"] == ["120", "90", "30", "30", "30"]
    assert rows["`det`"] == ["30", "30", "30", "0", "0"]
    assert rows["`nsubj`"] == ["30", "30", "0", "30", "0"] and rows["`obj`"] == ["30", "30", "0", "0", "30"]
    assert "`ROOT`" not in rows


def test_every_system_has_the_best_of_the_same_grid():
    """By the sentences kept aside, with a seed of its own; a control has no factor to choose."""

    class Tried(list):
        def run(self, cell):
            self.append(cell)
            return {"aside": -abs(cell.learn_rate - 0.002) - (cell.grad_factor > 0.25), "accuracy": 99.0}

    grid = "--systems none ste --learn-rates 0.001 0.002 0.004 --grad-factors 0.75 0.25".split()
    tried = Tried()
    tuned = recipe._tuned(tried, recipe.arguments(grid), "word", 300, Console(quiet=True))
    assert tuned["ste"] == {"learn_rate": 0.002, "grad_factor": 0.25} and tuned["none"] == {
        "learn_rate": 0.002,
        "grad_factor": 0,
    }
    assert [cell.system for cell in tried] == ["none"] * 3 + ["ste"] * 6
    assert {cell.seed for cell in tried} == {recipe.TUNING_SEED}
    tried.clear()
    assert recipe._tuned(tried, recipe.arguments([]), "word", 300, Console(quiet=True))["ste"]["grad_factor"]
    assert not tried  # nothing to choose


def test_quick_needs_no_data_and_goes_on_where_it_was_killed(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DIFFDECODE_DATA", str(tmp_path / "nowhere"))
    out = tmp_path / "out"
    small = {"sentences": 40, "steps": 3, "start_steps": 3, "warm_steps": 1, "words": 150}
    monkeypatch.setattr(recipe, "QUICK", recipe.QUICK | small)
    monkeypatch.setattr(material, "GENERATED_DEV", 30)
    command = ["--quick", "--out", str(out), "--systems", "none", "pipeline", "spigot_eg"]
    recipe.main(command)
    results = json.loads((out / "results.json").read_text())
    rows = {each["system"]: each for each in results["rows"]}
    assert set(rows) == {"none", "pipeline", "spigot_eg"}
    assert rows["pipeline"]["start"] == rows["spigot_eg"]["start"] and rows["none"]["start"] is None
    assert all(0 < each["accuracy"] < 100 for each in rows.values())
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "`spigot_eg`" in table and "dev trees are not those of the pipeline" in table
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")
    assert list(out.rglob("changed_trees.html"))

    times = {path: path.stat().st_mtime_ns for path in out.rglob("scores.json")}
    (killed,) = out.glob("word/*/none/*/scores.json")  # the cheapest to train again
    killed.unlink()
    (tmp_path / "given.tsv").write_text("a\tx\nb\ty\n", encoding="utf-8")
    recipe.main([*command, "--test", str(tmp_path / "given.tsv")])
    again = json.loads((out / "results.json").read_text())["rows"]
    new = {path for path in times if path.stat().st_mtime_ns != times[path]}
    assert new == {killed}
    assert all(one.pop("test: accuracy") == 0 for one in again)  # no such tags
    for one, other in zip(again, results["rows"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    with pytest.raises(SystemExit, match=r"^teach_parser: .* was made with another data, sentences, "):
        recipe.main(["--out", str(out)])
