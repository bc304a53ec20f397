"""``init-diffdecode`` writes configs whose components are connected, and which train as they are."""

import re
from pathlib import Path

import numpy as np
import pytest
import spacy
from spacy import util
from spacy.cli._util import app
from spacy.cli.debug_config import debug_config
from spacy.cli.train import train
from spacy.tokens import DocBin
from thinc.api import fix_random_seed
from toy_pipelines import (
    SHARED,
    TOK2VEC,
    example,
    make_pipeline,
    only,
    parsed_docs,
    parser_config,
    sdp_config,
    small_tok2vecs,
)
from typer.testing import CliRunner

import spacy_components.cli  # noqa: F401 - registers the commands
from spacy_components.connected import Plan, connected_pipeline
from spacy_components.sdp_graph import get_graph

ANNOTATION = {
    "parses": "parse",
    "graphs": "graph",
    "texts": "cats",
    "tags": "tags",
    "entities": "ents",
    "spans": "spans",
}
SMALL = {
    "training.max_steps": 2,
    "training.eval_frequency": 2,
    "training.batcher.size": 30,
    "training.logger": {"@loggers": "spacy.ConsoleLogger.v3", "console_output": False},
}
READERS = {
    "tagger,parser": {"spigot_parser": ["tagger"]},
    "parser,ner,spancat": {"spigot_parser": ["ner", "spancat"]},
    "sdp,textcat_multilabel": {"spigot_sdp": ["textcat_multilabel"]},
    "parser, sdp, spancat, textcat": {
        "spigot_parser": ["spigot_sdp", "textcat", "spancat"],
        "spigot_sdp": ["textcat", "spancat"],
    },
}


def init(*arguments):
    return CliRunner().invoke(app, ["init-diffdecode", *map(str, arguments)])


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """A file for each corpus, on which no document has two annotations."""
    folder, docs = tmp_path_factory.mktemp("corpora"), parsed_docs(spacy.blank("xx").vocab)
    for name, annotation in ANNOTATION.items():
        docbin = DocBin(docs=[only(doc, annotation) for doc in docs], store_user_data=True)
        docbin.to_disk(folder / f"{name}.spacy")
    return folder


def overrides(path, corpora):
    config = util.load_config(path, interpolate=False)
    names = [name for name in config["paths"] if name.removeprefix("dev_") in ANNOTATION]
    paths = {f"paths.{name}": str(corpora / f"{name.removeprefix('dev_')}.spacy") for name in names}
    return paths | {"nlp.lang": "xx"} | SMALL | small_tok2vecs(config["components"], "components.")


def trained(path, corpora, folder):
    train(path, folder, overrides=overrides(path, corpora))
    return spacy.load(folder / "model-last")


@pytest.mark.parametrize("words", READERS)
def test_components_are_connected_and_train(words, corpora, tmp_path, capsys):
    path = tmp_path / "config.cfg"
    done = init(words, "--out", path)
    assert done.exit_code == 0, done.output
    if len(words) > 20:  # all kinds of blocks
        debug_config(path, overrides=overrides(path, corpora))
        assert "Config is valid" in capsys.readouterr().out
    nlp = trained(path, corpora, tmp_path)
    expected = READERS[words]
    heard = {name: nlp.get_pipe(name).listening_components for name in expected}
    assert {name: sorted(readers) for name, readers in heard.items()} == {
        name: sorted(readers) for name, readers in expected.items()
    }
    doc = nlp("the small cat saw a dog .")
    assert doc.has_annotation("DEP") == ("parser" in words)
    assert (get_graph(doc) is not None) == ("sdp" in words) and bool(doc.cats) == ("textcat" in words)
    scores = nlp.config["training"]["score_weights"]
    measured = nlp.meta["performance"]
    assert all(measured[name] is not None for name, weight in scores.items() if weight)
    assert sum(weight or 0 for weight in scores.values()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("words", ["parser,tagger", "parser,sdp,textcat_multilabel"])
def test_the_config_is_complete_and_says_what_its_blocks_are(words, tmp_path):
    done = init(words, "--out", tmp_path / "config.cfg")
    text = (tmp_path / "config.cfg").read_text()
    config = util.load_config(tmp_path / "config.cfg", interpolate=False)
    filled = util.load_model_from_config(config, auto_fill=True, validate=False).config
    assert filled.to_str() == config.to_str()
    for block in ("components.spigot_parser", "corpora.train", "training.score_weights"):
        above = text.split(f"\n[{block}]\n")[0].splitlines()[-1]
        assert above.startswith("# ") and f"[{block}]\n    " in done.output
    assert init(words, "--out", "-").output == text
    assert "--paths.parses parses.spacy" in done.output


@pytest.mark.parametrize("kind, name", [("parser", "trees"), ("sdp", "spigot_sdp")])
def test_a_trained_parser_is_taken_and_guarded(kind, name, corpora, tmp_path):
    """Also one that has another name in its pipeline, and shares a tok2vec there."""
    config = {"parser": parser_config, "sdp": sdp_config}[kind](SHARED)
    before, _ = make_pipeline(("tok2vec", {"model": TOK2VEC}), (f"spigot_{kind}", config, name))
    before.to_disk(tmp_path / "before")
    path = tmp_path / "config.cfg"
    done = init(f"{kind},tagger", "--out", path, "--pretrained", tmp_path / "before")
    assert done.exit_code == 0, done.output
    nlp = trained(path, corpora, tmp_path / "after")
    tuned, old = nlp.get_pipe(f"spigot_{kind}"), before.get_pipe(name)
    assert tuned.listening_components == ["tagger"] and tuned.stands_alone
    assert tuned.label_data == old.label_data
    config = util.load_config(path, interpolate=False)
    weights, logger = config["training"]["score_weights"], config["training"]["logger"]
    own = "dep_uas" if kind == "parser" else "sdp_lf"
    assert (weights[own], weights["guard"]) == (0.0, 0.6) and weights["tag_acc"] == 0.4
    tune = config["initialize"]["before_init"]
    assert (logger["component"], logger["metric"], tune["component"]) == (tuned.name, own, tuned.name)


def test_a_connected_pipeline_learns_without_a_config():
    nlp = connected_pipeline(["parser", "sdp", "tagger"], lang="de")
    examples = [example(doc) for doc in parsed_docs(nlp.vocab)]
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(2):
        losses = nlp.update(examples, sgd=optimizer)
    assert nlp.lang == "de" and nlp.get_pipe("spigot_parser").listening_components == ["spigot_sdp", "tagger"]
    assert all(losses[name] > 0 for name in nlp.pipe_names)
    assert nlp("the cat").has_annotation("DEP")


def test_the_quickstart_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "spacy" / "quickstart.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL)[1]
    assert len(code.splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    names = {}
    fix_random_seed(0)
    exec(compile(code, "quickstart.md", "exec"), names)  # our own file
    nlp = spacy.load("model")
    for text, gold in names["gold"]:
        doc = nlp(text)
        if "cats" in gold:
            assert {name: round(score) for name, score in doc.cats.items()} == gold["cats"]
        else:
            assert [token.head.i for token in doc] == gold["heads"]
    assert names["nlp"].get_pipe("spigot_parser").listening_components == ["textcat"]


def test_the_vectors_of_a_pretrained_pipeline_are_read_too(tmp_path):
    nlp = spacy.blank("xx")
    nlp.add_pipe("spigot_parser")
    nlp.vocab.set_vector("cat", np.ones(2, "f"))
    nlp.to_disk(tmp_path)
    words, pretrained = ["parser", "tagger"], str(tmp_path)
    assert Plan(words, pretrained=pretrained).vectors == pretrained
    assert Plan(words, pretrained=pretrained, vectors="mine").vectors == "mine"


@pytest.mark.parametrize(
    "words, message",
    [
        ("parser", "nothing reads what 'parser' makes; add one of textcat,"),
        ("textcat,ner", "textcat, ner: nothing to read; add parser, sdp, or both"),
        ("", "nothing to read"),
        ("parser,textcats", "no component 'textcats'; did you mean 'textcat'?"),
        ("parser,tagger,tagger", "each component can be there once"),
        ("parser,textcat,textcat_multilabel", "both write doc.cats"),
    ],
)
def test_what_cannot_be_connected_is_refused_in_one_line(words, message, tmp_path):
    refused(message, words, "--out", tmp_path / "config.cfg")
    assert not list(tmp_path.iterdir())


def refused(message, *arguments):
    done = init(*arguments)
    assert done.exit_code == 1 and message in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_pipelines_that_cannot_be_tuned_are_refused(tmp_path):
    nlp = spacy.blank("de")
    nlp.add_pipe("parser")
    nlp.to_disk(tmp_path / "stock")
    trees, _ = make_pipeline(("spigot_parser", parser_config()))
    trees.to_disk(tmp_path / "trees")
    out = tmp_path / "config.cfg"
    refused("has no spigot_parser, only parser.", "parser,ner", "-o", out, "-p", tmp_path / "stock")
    refused("python -m spacy distill-parser", "parser,ner", "-o", out, "-p", tmp_path / "stock")
    refused("has no spigot_sdp", "sdp,ner", "-o", out, "-p", tmp_path / "trees")
    refused(
        "a pipeline for 'xx', not for 'de'", "parser,ner", "-o", out, "-p", tmp_path / "trees", "-l", "de"
    )
    refused("Can't find model", "parser,ner", "-o", out, "-p", tmp_path / "none")
    refused("Can't import language xyz", "parser,ner", "-o", out, "-l", "xyz")
    out.write_text("mine")
    refused("is there already; --force replaces it", "parser,ner", "--out", out)
    assert out.read_text() == "mine" and init("parser,ner", "--out", out, "--force").exit_code == 0
