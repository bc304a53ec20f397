"""The mixing reader: shares per epoch, fresh draws, and all labels where spaCy looks for them."""

import random
import warnings
from collections import Counter
from itertools import islice

import pytest
import spacy
from spacy import registry
from spacy.tokens import Doc
from spacy.training import Example

from spacy_components.sdp_graph import set_graph
from spacy_components.training.mixing import MixedCorpus, labels_of, take

NLP = spacy.blank("en")


def numbered(prefix, n, cats=None):
    """A reader of n one-word examples; ``cats`` gives the category of a number."""

    def read(nlp):
        for i in range(n):
            doc = Doc(nlp.vocab, words=[f"{prefix}{i}"])
            if cats:
                doc.cats = {cats(i): 1.0}
            yield Example(doc.copy(), doc)

    return read


def texts(examples):
    return [example.reference[0].text for example in examples]


def test_every_epoch_has_its_share_of_each_corpus():
    mixed = MixedCorpus({"p": numbered("p", 50), "c": numbered("c", 8)}, {"p": 0.2, "c": 2.5})
    for _ in range(3):
        epoch = texts(mixed(NLP))
        counts = Counter(epoch)
        assert sum(text[0] == "p" for text in epoch) == 10 and len(counts) == 18
        assert sorted(counts[f"c{i}"] for i in range(8)) == [2] * 4 + [3] * 4


def test_shares_are_drawn_anew_and_reach_everything():
    mixed = MixedCorpus({"p": numbered("p", 50)}, {"p": 0.2}, seed=3)
    epochs = [frozenset(texts(mixed(NLP))) for _ in range(60)]
    assert len(set(epochs)) == 60
    assert len(frozenset.union(*epochs)) == 50
    counts = Counter(text for epoch in epochs for text in epoch)
    assert max(counts.values()) < 30  # 12 expected each


def test_same_seed_same_draws():
    def epochs(seed):
        mixed = MixedCorpus({"p": numbered("p", 30)}, {"p": 0.5}, seed=seed)
        return [texts(mixed(NLP)) for _ in range(2)]

    assert epochs(1) == epochs(1) != epochs(2)


def test_the_order_mixes_the_corpora():
    mixed = MixedCorpus({"p": numbered("p", 50), "c": numbered("c", 50)}, {"p": 1.0, "c": 1.0})
    for _ in range(2):
        assert 10 < sum(text[0] == "p" for text in texts(mixed(NLP))[:50]) < 40


def test_the_first_hundred_examples_show_every_label():
    """With max_epochs = -1 spaCy initialises on 100 examples; each component asks for them anew."""
    rare = numbered("p", 2000, cats=lambda i: f"RARE{i}" if i >= 1980 else "COMMON")
    mixed = MixedCorpus({"p": rare, "c": numbered("c", 2000)}, {"p": 0.1, "c": 1.0})
    for _ in range(3):
        first = islice(mixed(NLP), 100)
        assert len(set().union(*map(labels_of, first))) == 21
    list(mixed(NLP))
    later = list(mixed(NLP))
    assert len(set().union(*map(labels_of, later))) == 21 and len(later) == 2200
    assert len(set().union(*map(labels_of, later[:100]))) < 21  # no longer in front


def tagged(prefix, sentences):
    """A reader of sentences, each a list of tags."""

    def read(nlp):
        for i, tags in enumerate(sentences):
            doc = Doc(nlp.vocab, words=[f"{prefix}{i}"] * len(tags), tags=tags)
            yield Example(doc.copy(), doc)

    return read


def test_many_labels_of_two_corpora_are_shown_by_few_examples():
    """Drawn in random order, sentences that each add a label would be far more than a hundred."""
    draw = random.Random(0)
    sentences = [[f"A{draw.randrange(300)}" for _ in range(draw.randint(1, 12))] for _ in range(1500)]
    mixed = MixedCorpus(
        {"p": tagged("p", sentences), "c": numbered("c", 90, cats=lambda i: f"C{i % 20}")},
        {"p": 1.0, "c": 1.0},
    )
    everything = {label for one in sentences for label in one}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            first = set().union(*map(labels_of, islice(mixed(NLP), 100)))
            assert len(first) == len(everything) + 20


def test_too_many_labels_for_a_hundred_examples_are_a_warning():
    mixed = MixedCorpus({"p": numbered("p", 150, cats=lambda i: f"C{i}")}, {"p": 1.0})
    with pytest.warns(UserWarning, match=r"D006.* 150 examples .*labels of p, .*init labels"):
        next(mixed(NLP))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(MixedCorpus({"p": numbered("p", 100, cats=lambda i: f"C{i}")}, {"p": 1.0})(NLP))


def test_small_corpora_keep_every_label_in_every_draw():
    mixed = MixedCorpus({"p": numbered("p", 40, cats=lambda i: str(i % 10))}, {"p": 0.1})
    for _ in range(4):
        assert len(set().union(*map(labels_of, islice(mixed(NLP), 100)))) == 10


def test_labels_of_all_kinds():
    doc = Doc(
        NLP.vocab, words=["a", "b"], heads=[0, 0], deps=["ROOT", "obj"], tags=["X", ""], ents=["B-LOC", "O"]
    )
    doc.cats = {"POS": 0.0}
    set_graph(doc, [(0, 1, "ARG1")])
    doc.spans["sc"] = [spacy.tokens.Span(doc, 0, 1, label="S")]
    kinds = {("dep", "ROOT"), ("dep", "obj"), ("tag", "X"), ("ent", "LOC")}
    assert labels_of(Example(doc.copy(), doc)) == kinds | {("cat", "POS"), ("sdp", "ARG1"), ("spans sc", "S")}


@pytest.mark.parametrize(("fraction", "length"), [(0.04, 1), (0.2, 2), (1.0, 10), (1.5, 15), (3.0, 30)])
def test_take(fraction, length):
    assert len(take(list(range(10)), fraction)) == length


@pytest.mark.parametrize(
    ("fractions", "message"),
    [({"q": 1.0}, "same names"), ({"p": -0.1}, "fraction of corpus 'p'"), ({"p": float("nan")}, "fraction")],
)
def test_bad_fractions_are_named(fractions, message):
    with pytest.raises(ValueError, match=message):
        MixedCorpus({"p": numbered("p", 3)}, fractions)


def test_an_empty_corpus_is_named():
    with pytest.raises(ValueError, match=r"corpus 'p' .* has no examples"):
        list(MixedCorpus({"p": numbered("p", 0)}, {"p": 1.0})(NLP))


CONFIG = """
[reader]
@readers = "diffdecode.MixedCorpus.v1"
fractions = {"graphs": 0.5, "texts": 1.0}

[reader.corpora]

[reader.corpora.graphs]
@readers = "diffdecode.LabelledText.v1"
path = "PATH"

[reader.corpora.texts]
@readers = "diffdecode.LabelledText.v1"
path = "PATH"
"""


def test_from_a_config(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("x\ta\n" * 4)
    config = spacy.util.load_config_from_str(CONFIG.replace("PATH", str(path)))
    assert len(list(registry.resolve(config)["reader"](NLP))) == 6


def test_a_run_that_would_never_redraw_is_refused():
    nlp = spacy.blank("en")
    config = nlp.config
    config["corpora"]["train"] = {"@readers": "diffdecode.MixedCorpus.v1"}
    nlp.config = config
    mixed = MixedCorpus({"p": numbered("p", 3)}, {"p": 1.0})
    with pytest.raises(ValueError, match="Set max_epochs = -1"):
        list(mixed(nlp))
    config["training"]["max_epochs"] = -1
    nlp.config = config
    assert len(list(mixed(nlp))) == 3
