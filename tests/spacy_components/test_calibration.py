"""Calibration: the reliability table, the temperature, and the command that makes and writes them."""

import json

import numpy as np
import pytest
import spacy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.cli._util import app
from spacy.tokens import Doc, DocBin
from thinc.api import Adam
from toy_pipelines import bare, example, make_pipeline, parsed_docs, parser_config, train_step
from typer.testing import CliRunner

import spacy_components.cli  # noqa: F401 - registers the commands
from spacy_components.confidence.calibration import fit_temperature, reliability

# ---- the numbers ---------------------------------------------------------------------------------


def test_reliability_by_hand():
    table = reliability([0.05, 0.1, 0.9, 0.9, 1.0, 0.0], [False, True, True, False, True, False], bins=10)
    assert [b.count for b in table.bins] == [3, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    assert table.bins[0].confidence == pytest.approx(0.05) and table.bins[0].accuracy == pytest.approx(1 / 3)
    assert table.bins[1].confidence is None and table.bins[1].accuracy is None
    assert table.error == pytest.approx((3 * (1 / 3 - 0.05) + 2 * 0.4 + 0) / 6)
    assert table.largest_error == pytest.approx(0.4)
    assert (table.accuracy, table.confidence) == (pytest.approx(0.5), pytest.approx(2.95 / 6))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 15))
@settings(deadline=None)
def test_every_decision_is_in_one_bin(decisions, bins):
    probabilities, right = zip(*decisions)
    table = reliability(probabilities, right, bins)
    assert sum(b.count for b in table.bins) == len(decisions) == table.count
    for b in table.bins:
        if b.count:
            assert b.low - 1e-9 <= b.confidence <= b.high + 1e-9
    assert (
        abs(table.accuracy - table.confidence) - 1e-9 <= table.error <= table.largest_error + 1e-9 <= 1 + 1e-8
    )


def test_what_is_no_decision_is_refused():
    for wrong in (([], []), ([0.5], []), ([1.5], [True]), ([float("nan")], [True])):
        with pytest.raises(ValueError, match="expected"):
            reliability(*wrong)
    with pytest.raises(ValueError, match="bins must be 1 or more"):
        reliability([0.5], [True], 0)


def test_the_temperature_of_logits_that_were_multiplied():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gold = (p.cumsum(1) > rng.random((4000, 1))).argmax(1)

    def surprise(temperature):
        scaled = 3 * logits / temperature
        return (np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(4000), gold]).sum()

    assert fit_temperature(surprise) == pytest.approx(3, rel=0.05)
    with pytest.raises(ValueError, match=r"no temperature .* the likelihood grows towards 0\.05"):
        fit_temperature(lambda temperature: temperature)


# ---- the parser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    nlp, examples = make_pipeline(("spigot_parser", parser_config(multi_root=False)))
    optimizer = Adam(0.02)
    for _ in range(6):
        train_step(nlp, examples, optimizer)
    return nlp


def verdicts_of_all_trees(parser, doc):
    trees = parser.k_best(bare(doc), 100)
    for token in doc:
        if token.dep_:
            head = trees[0].heads[token.i]
            p = sum(np.exp(tree.log_prob) for tree in trees if tree.heads[token.i] == head)
            yield p, head == token.head.i


def test_verdicts_and_surprise_are_those_of_the_documents(trained):
    parser = trained.get_pipe("spigot_parser")
    gold = parsed_docs(trained.vocab)
    gold.insert(2, Doc(trained.vocab, words=["not", "annotated"]))
    gold.append(Doc(trained.vocab, words=["go", "\n", "!"], heads=[0, 0, 0], deps=["ROOT", "", "punct"]))
    examples = [example(doc) for doc in gold]
    scores = parser.model.predict([eg.predicted for eg in examples])
    probabilities, right = parser.verdicts(examples, scores)
    small = [i for doc in gold for i in [len(doc) < 4] * sum(bool(token.dep_) for token in doc)]
    assert probabilities.shape == right.shape == (len(small),)  # neither white space nor the unknown
    expected = [verdict for doc in gold if len(doc) < 4 for verdict in verdicts_of_all_trees(parser, doc)]
    assert probabilities[small] == pytest.approx([p for p, _ in expected], abs=1e-5)
    assert right[small].tolist() == [same for _, same in expected]
    surprise = parser.surprise(examples, scores)
    for temperature in (1.0, 2.5):
        parser.temperature = temperature
        log_probs = [
            parser.log_prob(bare(doc), [token.head.i for token in doc])
            for doc in gold
            if doc.has_annotation("DEP")
        ]
        assert surprise(temperature) == pytest.approx(-sum(log_probs), rel=1e-5)
    parser.temperature = 1.0


def drawn(nlp, count, temperature, seed):
    """Documents whose trees are samples from the parser at a temperature."""
    parser = nlp.get_pipe("spigot_parser")
    parser.temperature = temperature
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    words = ["dog", "the", "saw", "a", "man", "old", "him", "."]
    docs = []
    for _ in range(count):
        doc = Doc(nlp.vocab, words=rng.choice(words, 6).tolist())
        docs.append(parser.sample(doc, generator=generator)[0].on(doc))
    parser.temperature = 1.0
    return docs


def spacy_cli(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, " ".join(result.output.split())


def test_the_command_finds_the_temperature_of_samples(trained, tmp_path):
    trained.to_disk(tmp_path / "model")
    for name, seed in (("dev", 1), ("test", 2)):
        docs = drawn(trained, 250, 2.5, seed)
        DocBin(docs=docs).to_disk(tmp_path / f"{name}.spacy")
    code, said = spacy_cli(
        "calibrate-parser", tmp_path / "model", tmp_path / "test.spacy", "--fit", tmp_path / "dev.spacy",
        "--to", tmp_path / "warm", "-o", tmp_path / "report.json", "--plot", tmp_path / "plot.png",
    )  # fmt: skip
    assert code == 0, said
    before, after = json.loads((tmp_path / "report.json").read_text())["reports"]
    assert before["temperature"] == 1 and after["temperature"] == pytest.approx(2.5, rel=0.1)
    assert (
        after["table"]["error"] < 0.05 < before["table"]["error"] and after["surprise"] < before["surprise"]
    )
    assert after["table"]["accuracy"] == before["table"]["accuracy"]
    assert "Temperature 1.000" in said and f"Temperature {after['temperature']:.3f}" in said
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    restored = spacy.load(tmp_path / "warm")
    assert restored.get_pipe("spigot_parser").temperature == pytest.approx(after["temperature"])
    code, said = spacy_cli("calibrate-parser", tmp_path / "warm", tmp_path / "test.spacy", "--bins", "5")
    assert code == 0 and said.count("Temperature") == 1 and f"{100 * after['table']['accuracy']:.2f}" in said


def refused(*arguments):
    code, said = spacy_cli("calibrate-parser", *arguments)
    assert code == 1 and said.count("✘ Cannot calibrate") == 1 and "Traceback" not in said
    return said


def test_what_cannot_be_calibrated_is_one_line(trained, tmp_path):
    trained.to_disk(tmp_path / "model")
    spacy.blank("xx").to_disk(tmp_path / "blank")
    data = tmp_path / "data.spacy"
    DocBin(docs=parsed_docs(trained.vocab)).to_disk(data)
    (tmp_path / "empty.conllu").write_text("\n")
    (tmp_path / "bare.conllu").write_text("1\ta\t_\t_\t_\t_\t_\t_\t_\t_\n")
    model = tmp_path / "model"
    assert "no component has probabilities" in refused(tmp_path / "blank", data)
    assert "'parser' is none of the components" in refused(model, data, "--pipe", "parser")
    assert "empty.conllu: no documents" in refused(model, tmp_path / "empty.conllu")
    assert "no annotation that 'spigot_parser'" in refused(model, tmp_path / "bare.conllu")
    assert "--to writes a pipeline" in refused(model, data, "--to", tmp_path / "out")
    assert "is there already" in refused(model, data, "--fit", data, "--to", tmp_path)
    assert not (tmp_path / "out").exists()
