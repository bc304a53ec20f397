"""The demo's language, and a few steps of the demo itself."""

import argparse
import json
import random

import pytest
import spacy

from examples._shared.spacy_training import train_from_scratch, train_on
from examples._shared.toy_corpus import ENDINGS, KNOWN_ENDINGS, OPINIONS, OTHER, TOPIC, corpus, sentence
from examples.spacy import demo, freda
from examples.spacy._configs import CONFIGS


def test_the_tree_tells_the_class_and_words_agree():
    draw = random.Random(0)
    opinions = {stem: polarity for polarity, stems in OPINIONS.items() for stem in stems}
    labels = []
    for _ in range(300):
        words, heads, label = sentence(draw)
        (opinion,) = [i for i, word in enumerate(words) if word[:-3] in opinions]
        about_topic = words[heads[opinion]].startswith(TOPIC)
        assert label == (opinions[words[opinion][:-3]] if about_topic else OTHER)
        root = next(i for i, head in enumerate(heads) if head == i)
        for i, head in enumerate(heads):
            assert head in (i, root) or words[i][-3:] == words[head][-3:]
        labels.append(label)
    assert 0.4 < labels.count(OTHER) / 300 < 0.6


def test_stems_can_be_told_by_their_first_letter():
    """What the configuration of the demo relies on: PREFIX gives the stem, SUFFIX the ending."""
    stems = {word[:-3] for seed in range(300) for word in sentence(random.Random(seed))[0]}
    assert len(stems) == 20 == len({stem[0] for stem in stems})
    assert all(len(ending) == 3 for ending in ENDINGS)


def test_documents_have_what_is_asked_for():
    vocab = spacy.blank("xx").vocab
    (tree,) = corpus(vocab, 1, 0, trees=True, classes=False, endings=KNOWN_ENDINGS)
    assert tree.has_annotation("DEP") and not tree.cats
    (review,) = corpus(vocab, 1, 0, trees=False, classes=True)
    assert not review.has_annotation("DEP") and sum(review.cats.values()) == 1.0


@pytest.fixture
def small_sizes(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"trees": 8, "reviews": 120, "dev": 6, "test": 6})


def test_a_few_steps_of_the_demo(tmp_path, small_sizes, capsys):
    paths = demo.write_corpus(tmp_path)
    overrides = {f"paths.{name}": str(path) for name, path in paths.items() if name != "test"}
    overrides |= {"training.max_steps": 8, "training.eval_frequency": 8}
    start = train_from_scratch(CONFIGS / "toy.cfg", tmp_path / "start", overrides)
    assert set(start.get_pipe("textcat").labels) == {"praise", "blame", "other"}
    changed = {"components.parser.surrogate": "ste", "training.max_steps": 2}
    trained = train_on(tmp_path / "start" / "model-best", tmp_path / "ste", changed)
    assert trained.config["components"]["parser"]["surrogate"] == "ste"
    assert [0 <= float(score) <= 100 for score in demo.accuracies(trained, paths["test"])] == [True, True]
    demo.draw_changes(start, trained, paths["test"], tmp_path / "page.html")
    assert "trees changed" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_two_formalisms_share_an_encoder(tmp_path):
    """A few steps of ``freda``, on generated graphs."""
    options = ["--quick", "--seeds", "0", "--steps", "2", "--systems", "freda", "--out", str(tmp_path)]
    freda.main(options)
    nlp = spacy.load(tmp_path / "quick" / "freda-dm-eud-0" / "model-last")
    assert nlp.get_pipe("tok2vec").listening_components == ["dm", "eud"]
    table = (tmp_path / "quick" / "table.md").read_text()
    assert "after 2 steps a formalism, seeds 0" in table
    result = json.loads((tmp_path / "quick" / "freda-dm-eud-0" / "scores.json").read_text())["result"]
    row = next(line for line in table.splitlines() if line.startswith("| freda"))
    assert [f"{100 * result[key]:.2f}" in row for key in ("dm_lf", "eud_lf")] == [True, True]
    before = (tmp_path / "quick" / "freda-dm-eud-0" / "model-last" / "meta.json").stat().st_mtime_ns
    freda.main(options)  # reads what is done
    assert (tmp_path / "quick" / "freda-dm-eud-0" / "model-last" / "meta.json").stat().st_mtime_ns == before


def test_the_control_takes_as_many_steps_as_two_formalisms_together():
    given = argparse.Namespace(steps=5, learn_rate=0.1, vectors=None)
    steps = {
        system: {freda._settings(system, keys, 0, given)["training.max_steps"] for keys in runs}
        for system, runs in freda.SYSTEMS.items()
    }
    together = {system: {10} for system in freda.SYSTEMS if system != "alone"}
    assert steps == {"alone": {5}, **together}
