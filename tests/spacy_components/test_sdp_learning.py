"""What the losses of spigot_sdp learn from a small generated language, scored on sentences not seen."""

import random

import pytest
import spacy
from spacy.tokens import Doc
from thinc.api import Adam, fix_random_seed
from toy_pipelines import example, sdp_config

from spacy_components.ml.graphs.losses import GRAPH_LOSSES
from spacy_components.sdp_graph import set_graph

NOUNS = [f"noun{i}" for i in range(20)]
ADJECTIVES = [f"{i}ish" for i in range(12)]
VERBS = [f"to{i}" for i in range(8)]


def sentence(vocab, draw):
    """Subject, verb, object and perhaps "and" with a second verb: nouns with several heads."""
    words, arcs = [], []

    def noun_phrase():
        start = len(words)
        words.append(draw.choice(["the", "a"]))
        words.extend(draw.sample(ADJECTIVES, draw.randrange(3)))
        words.append(draw.choice(NOUNS))
        noun = len(words) - 1
        arcs.append((start, noun, "BV"))
        arcs.extend((i, noun, "ARG1") for i in range(start + 1, noun))
        return noun

    def predicate(subject):
        words.append(draw.choice(VERBS))
        verb = len(words) - 1
        arcs.append((verb, subject, "ARG1"))
        arcs.append((verb, noun_phrase(), "ARG2"))
        return verb

    subject = noun_phrase()
    top = predicate(subject)
    if draw.random() < 0.4:
        words.append("and")
        arcs.append((top, predicate(subject), "_and_c"))
    doc = Doc(vocab, words=words)
    set_graph(doc, arcs, [top])
    return doc


TOK2VEC = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 48,
    "depth": 3,
    "embed_size": 500,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": True,
}


@pytest.mark.parametrize("loss", sorted(GRAPH_LOSSES))
def test_learns_to_parse_sentences_it_has_not_seen(loss):
    fix_random_seed(0)
    draw = random.Random(0)
    nlp = spacy.blank("xx")
    nlp.add_pipe("spigot_sdp", config=sdp_config(TOK2VEC, loss=loss))
    train, unseen = ([example(sentence(nlp.vocab, draw)) for _ in range(size)] for size in (200, 60))
    nlp.initialize(lambda: train)
    optimizer = Adam(0.01)
    for _ in range(5):
        draw.shuffle(train)
        for start in range(0, len(train), 20):
            nlp.update(train[start : start + 20], sgd=optimizer)
    assert nlp.evaluate(unseen)["sdp_lf"] > 0.95
