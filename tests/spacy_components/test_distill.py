"""``python -m spacy distill-parser``, with a tiny stock parser as the teacher."""

import random

import pytest
import spacy
from spacy.cli._util import app
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from thinc.api import Adam, fix_random_seed
from toy_pipelines import SENTENCES, TOK2VEC, parsed_docs
from typer.testing import CliRunner

from spacy_components import cli  # noqa: F401 - registers the command
from spacy_components.cli.distill_parser import agreement, split

SMALL = {
    "components.spigot_parser.model.tok2vec.width": 32,
    "components.spigot_parser.model.tok2vec.depth": 1,
    "components.spigot_parser.model.tok2vec.embed_size": 200,
    "training.max_steps": 60,
    "training.eval_frequency": 20,
    "training.optimizer.learn_rate": 0.01,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """spaCy's own parser, which knows six sentences by heart, in a pipeline with a tokenizer of its own."""
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    nlp.tokenizer.add_special_case("gonna", [{"ORTH": "gon"}, {"ORTH": "na"}])
    config = {"@architectures": "spacy.TransitionBasedParser.v2", "tok2vec": TOK2VEC, "hidden_width": 32}
    config |= {"state_type": "parser", "extra_state_tokens": False, "maxout_pieces": 2, "use_upper": True}
    nlp.add_pipe("parser", config={"model": config, "min_action_freq": 1})
    examples = [Example(Doc(nlp.vocab, words=[t.text for t in d]), d) for d in parsed_docs(nlp.vocab)]
    nlp.initialize(lambda: examples)
    optimizer = Adam(0.01)
    for _ in range(60):
        nlp.update(examples, sgd=optimizer)
    assert nlp.evaluate(examples)["dep_uas"] > 0.95
    folder = tmp_path_factory.mktemp("teacher")
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Lines of text, with one that is empty."""
    path = tmp_path_factory.mktemp("text") / "raw.txt"
    lines = [text for text, *_ in SENTENCES if len(text.split()) > 1] * 20
    random.Random(0).shuffle(lines)
    path.write_text("\n".join([lines[0], "", *lines[1:]]))
    return path


def run(*arguments, **settings):
    """The exit code and the output, without line breaks: wasabi wraps at the width of the terminal."""
    flags = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    result = CliRunner().invoke(app, [*map(str, arguments), *flags])
    return result.exit_code, " ".join(result.output.split())


def test_distilled_parser_agrees_with_its_teacher(teacher, text, tmp_path):
    code, said = run("distill-parser", teacher, text, tmp_path, "--held-out", "0.1", **SMALL)
    assert code == 0, said
    assert "train: 80 documents" in said and "dev: 10 documents, test: 10 documents" in said
    student = spacy.load(tmp_path / "model-best")
    assert student.pipe_names == ["spigot_parser"]
    held_out = list(DocBin().from_disk(tmp_path / "corpus" / "test.spacy").get_docs(student.vocab))
    scores = agreement(student, held_out)
    assert scores["uas"] > 0.9 and scores["las"] > 0.9 and scores["docs"] == 10
    assert f"UAS {100 * scores['uas']:.2f} LAS {100 * scores['las']:.2f}" in said
    stock = spacy.load(teacher)
    assert (
        [t.text for t in student("gonna bark")]
        == [t.text for t in stock("gonna bark")]
        == ["gon", "na", "bark"]
    )


def test_agreement_counts_every_token():
    """Punctuation too, which spaCy's scores leave out."""
    nlp = spacy.blank("xx")
    docs = parsed_docs(nlp.vocab)
    wrong = {"!": 0}

    @nlp.component("copying_parser")
    def parse(doc):
        gold = next(d for d in docs if [t.text for t in d] == [t.text for t in doc])
        heads = [1 if t.text in wrong else t.head.i for t in gold]
        return Doc(doc.vocab, words=[t.text for t in gold], heads=heads, deps=[t.dep_ for t in gold])

    nlp.add_pipe("copying_parser")
    scores = agreement(nlp, docs)
    assert scores["tokens"] == sum(map(len, docs))
    assert scores["uas"] == pytest.approx(1 - 1 / scores["tokens"])


def test_split_is_random_disjoint_and_the_same_each_time():
    docs = parsed_docs(spacy.blank("xx").vocab)
    splits = split(docs, 0.2, seed=1)
    assert sorted(map(len, splits.values())) == [1, 1, 4]
    found = [doc.text for part in splits.values() for doc in part]
    assert sorted(found) == sorted(doc.text for doc in docs)
    assert [d.text for d in split(docs, 0.2, seed=1)["test"]] == [d.text for d in splits["test"]]


def test_bad_input_is_named(teacher, text, tmp_path):
    blank = spacy.blank("xx")
    blank.add_pipe("sentencizer")
    blank.to_disk(tmp_path / "blank")
    code, said = run("distill-parser", tmp_path / "blank", text, tmp_path / "out")
    assert code == 1 and "sets no parse; its pipeline is sentencizer" in said
    code, said = run("distill-parser", teacher, text, tmp_path / "out", "--limit", "2")
    assert code == 1 and "2 lines of text cannot be split with held_out = 0.05" in said
    code, said = run("distill-parser", teacher, text, tmp_path / "out", "--held-out", "0.6")
    assert code == 1 and "cannot be split" in said
    assert not (tmp_path / "out").exists()
