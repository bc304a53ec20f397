"""The ready configs and spaCy's own commands: everything is found through entry points, without --code."""

import subprocess
import sys
import warnings
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import spacy
import srsly
from patience import HANGS_AFTER
from spacy import util
from spacy.cli._util import app
from spacy.cli.debug_config import debug_config
from spacy.cli.evaluate import evaluate
from spacy.cli.init_config import fill_config, init_config
from spacy.cli.package import package
from spacy.cli.train import train
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from toy_pipelines import SENTENCES, example, only, parsed_docs, parser_config, small_tok2vecs
from typer.testing import CliRunner

import spacy_components
from spacy_components.sdp_graph import get_graph

CONFIGS = Path(spacy_components.__file__).parent / "configs"
EXAMPLES = Path(__file__).parents[2] / "examples" / "spacy" / "configs"
FRESH = ("parser", "parser_textcat", "sdp_textcat", "syntax_sdp")
NAMES = (*FRESH, "finetune_parser")
ANNOTATION = {"train": "parse", "parses": "parse", "graphs": "graph", "texts": "cats"}
SMALL = {
    "nlp.lang": "xx",  # whose tokenizer is made in no time
    "training.max_steps": 2,
    "training.eval_frequency": 2,
    "training.batcher.size": 30,
    "training.logger": {"@loggers": "spacy.ConsoleLogger.v3", "console_output": False},
}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Paths of one tiny corpus per annotation, no document with two."""
    folder, paths = tmp_path_factory.mktemp("corpora"), {}
    docs = parsed_docs(spacy.blank("xx").vocab)
    for name, annotation in ANNOTATION.items():
        path = str(folder / f"{name}.spacy")
        DocBin(docs=[only(doc, annotation) for doc in docs], store_user_data=True).to_disk(path)
        paths[name] = paths["dev" if name == "train" else f"dev_{name}"] = path
    return paths


def overrides_for(name, corpora):
    config = util.load_config(CONFIGS / f"{name}.cfg", interpolate=False)
    paths = {f"paths.{key}": value for key, value in corpora.items() if key in config["paths"]}
    return {**paths, **SMALL, **small_tok2vecs(config["components"], "components.")}


@pytest.fixture(scope="module")
def trained(corpora, tmp_path_factory):
    """Trains a ready config once, as ``spacy train`` does; then gives its folder again."""
    folders = {}

    def folder_of(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            overrides = overrides_for(name, corpora)
            if name == "finetune_parser":
                overrides["paths.parser"] = str(folder_of("parser") / "model-last")
            train(CONFIGS / f"{name}.cfg", folders[name], overrides=overrides)
        return folders[name]

    return folder_of


@pytest.mark.parametrize("name", NAMES)
def test_ready_config_trains_and_predicts(name, trained):
    nlp = spacy.load(trained(name) / "model-last")
    doc = nlp("the small cat saw a dog .")
    assert doc.has_annotation("DEP") == ("spigot_parser" in nlp.pipe_names)
    assert (get_graph(doc) is not None) == ("spigot_sdp" in nlp.pipe_names)
    assert bool(doc.cats) == ("textcat" in nlp.pipe_names)
    scores = nlp.meta["performance"]
    expected = {
        "parser": "dep_uas",
        "parser_textcat": "cats_score",
        "finetune_parser": "cats_score",
        "sdp_textcat": "sdp_lf",
        "syntax_sdp": "sdp_lf",
    }
    assert scores[expected[name]] is not None
    heard = {
        "parser_textcat": "spigot_parser",
        "finetune_parser": "spigot_parser",
        "sdp_textcat": "spigot_sdp",
        "syntax_sdp": "spigot_parser",
    }
    if name in heard:
        assert len(nlp.get_pipe(heard[name]).listeners) == 1


@pytest.mark.parametrize("name", FRESH)
def test_ready_config_is_complete(name, tmp_path):
    before, after = fill_config(tmp_path / "filled.cfg", CONFIGS / f"{name}.cfg", silent=True)
    assert before.to_str() == after.to_str()


def test_ready_config_with_a_sourced_parser_is_complete(trained, corpora):
    """``fill-config`` needs the parser that it sources; all that is not the parser's stays the same."""
    paths = {f"paths.{name}": path for name, path in corpora.items()}
    paths |= {"paths.parser": str(trained("parser") / "model-last"), "nlp.lang": "xx"}
    config = util.load_config(CONFIGS / "finetune_parser.cfg", overrides=paths, interpolate=True)
    filled = util.load_model_from_config(config, auto_fill=True).config
    del config["components"]["spigot_parser"], filled["components"]["spigot_parser"]
    assert filled.to_str() == config.to_str()


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """A folder of word vectors, as ``spacy init vectors`` makes it."""
    nlp, rng = spacy.blank("xx"), np.random.RandomState(0)
    for text, *_ in SENTENCES:
        for word in text.split():
            nlp.vocab.set_vector(word, rng.randn(7).astype("f"))
    nlp.to_disk(folder := tmp_path_factory.mktemp("vectors"))
    return str(folder)


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_switched_on_by_their_path(name, trained, corpora, vectors, tmp_path):
    """In every tok2vec of every ready config, and a pipeline that was saved has them."""
    overrides = overrides_for(name, corpora) | {"paths.vectors": vectors}
    if name == "finetune_parser":
        overrides["paths.parser"] = str(trained("parser") / "model-last")
    init_nlp(util.load_config(CONFIGS / f"{name}.cfg", overrides=overrides, interpolate=False)).to_disk(
        tmp_path
    )
    nlp, plain = spacy.load(tmp_path), spacy.load(trained(name) / "model-last")
    doc = nlp("the cat")
    before = encoded(nlp, doc)
    nlp.vocab.vectors.data[...] = 0
    after = encoded(nlp, doc)
    for pipe in nlp.pipe_names:
        expected = pipe != "spigot_parser" or name != "finetune_parser"  # which is sourced as it is
        assert reads_vectors(nlp.get_pipe(pipe)) == expected and not reads_vectors(plain.get_pipe(pipe))
        assert np.allclose(before[pipe], after[pipe]) != expected


@pytest.mark.parametrize("config", sorted(EXAMPLES.glob("*.cfg")), ids=lambda path: path.stem)
def test_examples_whose_words_are_real_switch_vectors_on_by_their_path(config):
    """In every tok2vec of their own, but those of a generated language and of a pretrained transformer."""
    loaded = util.load_config(config, interpolate=False)
    if config.stem in ("toy", "transformer"):
        assert "vectors" not in loaded["paths"]
        return
    encoders = [block for block in blocks(loaded["components"]) if {"embed_size", "attrs"} & set(block)]
    assert loaded["paths"]["vectors"] is None and encoders
    for block in (loaded["initialize"], *encoders):
        assert block["vectors"] == "${paths.vectors}"


def blocks(tree):
    """All sections of a config below one."""
    for value in tree.values():
        if isinstance(value, dict):
            yield value
            yield from blocks(value)


def encoded(nlp, doc):
    """What each component's tok2vec makes of a document."""
    return {name: pipe.model.get_ref("tok2vec").predict([doc])[0] for name, pipe in nlp.pipeline}


def reads_vectors(pipe):
    return any(node.name == "static_vectors" for node in pipe.model.walk())


def test_a_pipeline_without_vectors_is_initialized_without_a_warning():
    nlp = spacy.blank("xx")  # whose config says vectors = ${paths.vectors}
    nlp.add_pipe("spigot_parser", config=parser_config())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nlp.initialize(lambda: [example(doc) for doc in parsed_docs(nlp.vocab)])


def test_vectors_that_nobody_reads_are_a_warning(vectors):
    nlp = spacy.blank("xx")
    nlp.add_pipe("spigot_parser", config=parser_config())
    nlp.config["initialize"]["vectors"] = vectors
    with pytest.warns(UserWarning, match=r"D003.*no component reads them.*vectors = \$\{paths.vectors\}"):
        nlp.initialize(lambda: [example(doc) for doc in parsed_docs(nlp.vocab)])


def test_finetuned_parser_began_as_the_sourced_one(trained):
    parser, tuned = (spacy.load(trained(name) / "model-last") for name in ("parser", "finetune_parser"))
    assert tuned.get_pipe("spigot_parser").labels == parser.get_pipe("spigot_parser").labels
    before, after = (
        nlp.get_pipe("spigot_parser").model.shims[0].module.state_dict() for nlp in (parser, tuned)
    )
    largest = max(float((before[key] - after[key]).abs().max()) for key in before)
    assert 0 < largest < 0.01  # a few steps of 0.0005


def test_determinism_of_a_streamed_corpus_comes_from_all_of_it(trained):
    nlp = spacy.load(trained("syntax_sdp") / "model-last")
    docs = parsed_docs(nlp.vocab)
    from spacy_components.training.graph_labels import label_inventory

    assert nlp.get_pipe("spigot_sdp").label_data == label_inventory(docs)


@pytest.mark.parametrize("name", FRESH)
def test_debug_config(name, corpora, capsys):
    debug_config(CONFIGS / f"{name}.cfg", overrides=overrides_for(name, corpora), show_vars=True)
    assert "Config is valid" in capsys.readouterr().out


def command(*arguments):
    """Runs a spaCy command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def flags_of(overrides):
    """Overrides as command line options."""
    pairs = [(f"--{key}", value) for key, value in overrides.items() if not isinstance(value, dict)]
    return [part for pair in pairs for part in pair]


@pytest.mark.parametrize("name, component", [("parser", "spigot_parser"), ("sdp_textcat", "spigot_sdp")])
def test_debug_model(name, component, corpora):
    flags = flags_of(overrides_for(name, corpora))
    output = command("debug", "model", CONFIGS / f"{name}.cfg", component, "-P3", *flags)
    assert "model looks good" in output and "DocScores" in output


@pytest.mark.parametrize("name, component", [("parser_textcat", "textcat"), ("syntax_sdp", "spigot_sdp")])
def test_debug_model_of_a_listening_component(name, component, corpora):
    """The command updates it alone; its listener then asks the parser."""
    flags = flags_of(overrides_for(name, corpora))
    assert "model looks good" in command("debug", "model", CONFIGS / f"{name}.cfg", component, *flags)


def test_evaluate(trained, corpora, tmp_path):
    scores = evaluate(
        str(trained("parser") / "model-last"), corpora["dev"], tmp_path / "scores.json", silent=True
    )
    assert 0 <= scores["dep_uas"] <= 1 and srsly.read_json(tmp_path / "scores.json")["dep_las"] is not None


def test_assemble(trained, tmp_path):
    model = trained("parser_textcat") / "model-last"
    config = util.load_config(model / "config.cfg")
    for name in ("spigot_parser", "textcat"):
        config["components"][name] = {"source": str(model)}
    config.to_disk(tmp_path / "assemble.cfg")
    command("assemble", tmp_path / "assemble.cfg", tmp_path / "assembled")
    assembled, original = spacy.load(tmp_path / "assembled"), spacy.load(model)
    text = "she gave him the old book"
    assert assembled(text).cats == original(text).cats
    assert [t.head.i for t in assembled(text)] == [t.head.i for t in original(text)]


def test_package(trained, tmp_path):
    package(trained("parser") / "model-last", tmp_path, name="toy_parser", create_sdist=False, silent=True)
    (made,) = tmp_path.glob("xx_toy_parser-*/setup.py")
    meta = srsly.read_json(made.parent / "meta.json")
    assert any(requirement.startswith("diffdecode") for requirement in meta["requirements"])


def test_init_config_knows_the_components(tmp_path):
    config = init_config(lang="en", pipeline=["spigot_parser", "spigot_sdp", "textcat"])
    assert config["nlp"]["pipeline"] == ["spigot_parser", "spigot_sdp", "textcat"]
    weights = config["training"]["score_weights"]
    assert weights["dep_uas"] > 0 and weights["sdp_lf"] > 0
    nlp = util.load_model_from_config(config)
    assert nlp.pipe_names == ["spigot_parser", "spigot_sdp", "textcat"]


NEW_PROCESS = """
import sys
import spacy
import spacy_components.factories

heavy = {"diffdecode", "numba", "scipy", "stanza", "conllu", "matplotlib"}
print("loaded:", sorted(heavy & set(sys.modules)))
spacy.blank("xx")
print("loaded:", sorted(heavy & set(sys.modules) - {"diffdecode"}))
from spacy.cli import setup_cli
setup_cli()
"""


def test_in_a_new_process_pipelines_stay_light_and_spacys_commands_find_everything(corpora, tmp_path):
    """Every Language of every program in this environment loads the factories."""
    flags = list(map(str, flags_of(overrides_for("parser_textcat", corpora))))
    train_it = ["train", str(CONFIGS / "parser_textcat.cfg"), "--output", str(tmp_path), *flags]
    line = [sys.executable, "-c", NEW_PROCESS, *train_it]
    done = subprocess.run(line, capture_output=True, text=True, timeout=HANGS_AFTER)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.startswith("loaded: []\nloaded: []\n"), done.stdout[:300]
    assert (tmp_path / "model-best").is_dir() and "DEP_UAS" in done.stdout


def test_every_entry_point_loads():
    groups = ("factories", "architectures", "misc", "scorers", "readers", "callbacks", "loggers", "cli")
    found = [
        entry
        for group in groups
        for entry in entry_points(group=f"spacy_{group}")
        if entry.value.startswith("spacy_components")
    ]
    assert len(found) >= 25
    for entry in found:
        assert callable(entry.load()), entry
