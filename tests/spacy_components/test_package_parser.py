"""``package-parser``: a treebank becomes a wheel with a model card, and the wheel parses."""

import subprocess
import zipfile
from importlib.metadata import version

import pytest
import spacy
from patience import HANGS_AFTER
from spacy.cli._util import app
from spacy.tokens import DocBin
from toy_pipelines import bare, make_pipeline, parsed_docs, parser_config
from typer.testing import CliRunner

import spacy_components.cli  # noqa: F401 - registers the commands
from spacy_components.cli import package_parser

SMALL = ["--training.max_steps", "4", "--training.eval_frequency", "2"]
SMALL += ["--components.spigot_parser.model.tok2vec.width", "16"]
SMALL += ["--components.spigot_parser.model.tok2vec.depth", "1"]
TOO_OLD = tuple(map(int, version("setuptools").split(".")[:2])) < (70, 1)


def command(*arguments):
    return CliRunner().invoke(app, ["package-parser", *map(str, arguments)])


@pytest.fixture
def treebank(tmp_path):
    path = tmp_path / "trees.spacy"
    DocBin(docs=parsed_docs(spacy.blank("xx").vocab)).to_disk(path)
    return path


@pytest.mark.skipif(TOO_OLD, reason="setuptools builds wheels by itself since 70.1")
def test_a_treebank_becomes_a_wheel_that_parses(treebank, tmp_path, monkeypatch):
    names = ["--name", "toy", "--licence", "CC BY 4.0", "--source", "Toy treebank", "--author", "A. Nobody"]
    done = command(treebank, treebank, tmp_path / "out", *names, "--version", "1.2.3", *SMALL)
    assert done.exit_code == 0, done.output
    (wheel,) = (tmp_path / "out").rglob("*.whl")
    assert wheel.name == "en_toy-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    nlp = spacy.load("en_toy")
    assert nlp("the small cat saw a dog .").has_annotation("DEP")
    assert (nlp.meta["license"], nlp.meta["author"]) == ("CC BY 4.0", "A. Nobody")
    assert any(requirement.startswith("diffdecode") for requirement in nlp.meta["requirements"])
    card = (wheel.parents[1] / "README.md").read_text(encoding="utf-8")
    trained = spacy.load(tmp_path / "out" / "training" / "model-best")
    scores = package_parser.measure(trained, tmp_path / "out" / "corpus" / "dev.spacy", "dev").scores
    for said in (
        "# en_toy 1.2.3",
        "trained on 28 words of Toy treebank",
        "| licence | CC BY 4.0 |",
        "| training | trees.spacy | 6 | 28 |",
        "Source: Toy treebank (CC BY 4.0).",
        "On the dev set, on its own tokens, without p, punct. This set also chose the best training step",
        f"| unlabelled attachment (UAS) | {100 * scores['dep_uas']:.2f} |",
        "words a second of CPU time",
        "python -m spacy init-diffdecode parser,textcat --pretrained en_toy --out tune.cfg",
        "`nsubj`",
    ):
        assert said in card, said
    assert (tmp_path / "site" / "en_toy" / "en_toy-1.2.3" / "README.md").read_text(encoding="utf-8") == card
    tune = CliRunner().invoke(
        app, ["init-diffdecode", "parser,textcat", "-p", "en_toy", "-o", str(tmp_path / "tune.cfg")]
    )
    assert tune.exit_code == 0, tune.output


def test_what_it_cannot_package_is_one_line(treebank, tmp_path, monkeypatch):
    out, names = tmp_path / "out", ["--name", "toy", "--licence", "MIT"]
    bare_words = tmp_path / "bare.spacy"
    DocBin(docs=[bare(doc) for doc in parsed_docs(spacy.blank("xx").vocab)]).to_disk(bare_words)
    for said, arguments in (
        ("bare.spacy: no document has a tree", (bare_words, treebank, out, *names)),
        ("expected letters, digits and _", (treebank, treebank, out, "--name", "a-b", "--licence", "MIT")),
        ("Can't import language xyz", (treebank, treebank, out, *names, "--lang", "xyz")),
    ):
        done = command(*arguments)
        assert done.exit_code == 1 and said in " ".join(done.output.split()), done.output
        assert "Traceback" not in done.output
    assert command(treebank, treebank, out, "--name", "toy").exit_code == 2  # no licence is guessed
    (tmp_path / "setup.py").write_text("raise SystemExit('not today')")
    with pytest.raises(ValueError, match=r"no wheel \(not today\); building one takes setuptools 70.1"):
        package_parser.build_wheel(tmp_path)


def test_the_report_set_is_named(treebank, tmp_path):
    """A test set's card makes no excuse, and its scores are of that set."""
    nlp = spacy.load(treebank_pipeline(tmp_path))
    corpora = [
        package_parser._converted(use, treebank, tmp_path / "corpus", "en") for use in ("training", "test")
    ]
    try:
        package_parser.packaged(nlp, corpora, tmp_path)
    except ValueError as error:
        assert TOO_OLD and "no wheel" in str(error)
    card = (tmp_path / "package" / "pipeline" / "README.md").read_text(encoding="utf-8")
    assert "On the test set" in card and "chose" not in card and "| test | trees.spacy |" in card


def treebank_pipeline(folder):
    nlp, _ = make_pipeline(("spigot_parser", parser_config()))
    nlp.meta.update(name="toy", version="0.1", license="MIT", author="")
    nlp.meta["sources"] = [{"name": "Toy", "license": "MIT"}]
    nlp.to_disk(folder / "trained")
    return folder / "trained"


def test_make_model_says_what_it_needs():
    root = package_parser.READY_CONFIG.parents[2]
    if not (root / "Makefile").is_file():
        pytest.skip("no checkout")
    done = subprocess.run(
        ["make", "-n", "model", "VENV=v"], cwd=root, capture_output=True, text=True, timeout=HANGS_AFTER
    )
    assert done.returncode and "make model takes TRAIN, DEV and LICENCE" in done.stderr
