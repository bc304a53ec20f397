"""Sentence starts that are set before the parser are kept, whatever the scores, segments and white space."""

from functools import cache

import numpy as np
import pytest
import spacy
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc
from thinc.api import Adam
from toy_pipelines import bare, example, make_pipeline, parsed_docs, parser_config, sdp_config

from spacy_components.ml.segments import lazy_segments, segment_docs, sentences, whole_docs
from spacy_components.ml.trees.sentences import join_trees
from spacy_components.sdp_graph import get_graph
from spacy_components.training.scorers import make_parse_scorer

SEGMENTERS = {
    "whole_docs": whole_docs(),
    "sentences": sentences(required=False),
    "lazy_segments": lazy_segments(max_length=192),
    "short": lazy_segments(max_length=3),
}
TREES = [(projective, multi_root) for projective in (True, False) for multi_root in (True, False)]


@cache
def parser(projective, multi_root):
    nlp, examples = make_pipeline(
        ("spigot_parser", parser_config(projective=projective, multi_root=multi_root))
    )
    nlp.update(examples, sgd=Adam(0.05))
    return nlp


def make_doc(vocab, words, starts):
    doc = Doc(vocab, words=words, spaces=[True] * len(words))
    for token, start in zip(doc, starts):
        if token.i:
            token.is_sent_start = {1: True, 0: None, -1: False}[start]
    return doc


TOKENS = st.lists(
    st.tuples(st.sampled_from(["dog", "the", "saw", ".", "\n", "\t"]), st.sampled_from([-1, -1, 0, 0, 1])),
    min_size=0,
    max_size=14,
)


def check_sentences(doc, starts):
    """Right starts, and one root in each sentence that its tokens hang from."""
    got = [bool(token.is_sent_start) for token in doc]
    for token, start in zip(doc, starts):
        if token.i and start:
            assert got[token.i] == (start == 1), (token.i, starts, got)
    if all(starts[1:]):  # nothing is left to the trees
        for sentence in doc.sents:
            assert sum(token.head is token or token.head.i == token.i for token in sentence) == 1
            assert all(token.head in sentence for token in sentence)


@pytest.mark.parametrize("trees", TREES, ids=str)
@pytest.mark.parametrize("segmenter", SEGMENTERS)
@given(tokens=TOKENS, mate=TOKENS)
@settings(max_examples=cases(8, 20))
def test_starts_that_are_set_are_kept(trees, segmenter, tokens, mate):
    pipe = parser(*trees).get_pipe("spigot_parser")
    pipe.model.attrs["segmenter"] = SEGMENTERS[segmenter]
    docs, preset = [], []
    for drawn in (tokens, mate):
        words, starts = [word for word, _ in drawn], [start for _, start in drawn]
        docs.append(make_doc(pipe.vocab, words, starts))
        preset.append(starts)
    parses = pipe.predict(docs)
    for doc, parse in zip(docs, parses):  # alone as in company
        assert np.array_equal(pipe.predict([doc])[0], parse)
    scores, _ = pipe.model.begin_update(docs)
    for parse, heads in zip(parses, pipe.decide(scores).outputs(pipe.model.ops)):  # listeners get the same
        own = np.arange(len(parse))
        assert np.array_equal(np.where(heads < 0, own, heads), parse[:, 0])
        assert (heads != own).all()
    pipe.set_annotations(docs, parses)
    for doc, starts in zip(docs, preset):
        check_sentences(doc, starts)


@pytest.mark.parametrize(
    "starts", [None, [1, 0, 0, 0, 1, 0, 0, 0], [1, -1, 0, 0, 1, 0, -1, 0], [1, -1, -1, -1, -1, -1, -1, -1]]
)
def test_starts_are_those_that_spacys_own_parser_would_keep(starts):
    """Both are given every freedom by what is not set, and none by what is."""
    words = "she ate pizza . dogs bark loudly .".split()
    found = []
    for factory, config in (("parser", {"min_action_freq": 1}), ("spigot_parser", parser_config())):
        nlp, _ = make_pipeline((factory, config))
        doc = make_doc(nlp.vocab, words, starts or [1] + [0] * 7)
        found.append([bool(t.is_sent_start) for t in nlp.get_pipe(factory)(doc)])
    for i, start in enumerate(starts or []):
        if start:
            assert found[0][i] == found[1][i] == (start == 1)


def test_without_any_nothing_changes():
    vocab = spacy.blank("xx").vocab
    docs = [Doc(vocab, words=["w"] * n) for n in (3, 0, 9, 1)] + [Doc(vocab, words=[" ", "a", "\n"])]
    made = segment_docs(docs, whole_docs())
    assert not any(batch.one_sentence for batch in made.batches) and not len(made.inner)
    assert sorted(batch.lengths.tolist() for batch in made.batches) == [[9, 3, 1, 1]]


def test_sentences_are_decoded_with_one_root():
    """Not by luck: every word likes the root best."""
    nlp, _ = make_pipeline(("spigot_parser", parser_config()))
    scorer = nlp.get_pipe("spigot_parser").model.shims[0].module
    score = scorer.score

    def every_word_likes_the_root(words, drop):
        arcs, label_scores = score(words, drop)
        return arcs * 0 + 10 * (torch.arange(arcs.shape[2]) == 0), label_scores

    scorer.score = every_word_likes_the_root
    doc = make_doc(nlp.vocab, list("abcdef"), [1, -1, -1, 1, -1, 0])
    nlp.get_pipe("spigot_parser")(doc)
    assert [sentence.text.split() for sentence in doc.sents] == [list("abc"), list("de"), ["f"]]


def test_a_sentence_that_is_too_long_is_cut_and_joined():
    nlp, _ = make_pipeline(("spigot_parser", parser_config()))
    pipe = nlp.get_pipe("spigot_parser")
    pipe.model.attrs["segmenter"] = lazy_segments(max_length=10)
    doc = make_doc(nlp.vocab, ["w"] * 95, [1] + [-1] * 94)
    made = segment_docs([doc], pipe.model.attrs["segmenter"])
    assert max(batch.lengths.max() for batch in made.batches) <= 10
    pipe(doc)
    assert len(list(doc.sents)) == 1 and sum(token.dep_ == "ROOT" for token in doc) == 1
    free = make_doc(nlp.vocab, ["w"] * 12, [1, -1, -1, -1, -1, -1, -1, 0, -1, -1, -1, -1])
    (lengths,) = [batch.lengths.tolist() for batch in segment_docs([free], lazy_segments(10)).batches]
    assert lengths == [7, 5]


def test_join_trees():
    heads = np.array([1, 1, 1, 4, 4, 6, 6, 7])  # trees 0-2, 3-4, 5-6, 7
    assert join_trees(heads, np.array([], dtype=int)).tolist() == heads.tolist()
    assert join_trees(heads, np.array([4])).tolist() == heads.tolist()
    assert join_trees(heads, np.array([3, 5])).tolist() == [1, 1, 1, 4, 1, 6, 1, 7]
    assert join_trees(heads, np.array([5, 7])).tolist() == [1, 1, 1, 4, 4, 6, 4, 4]


def test_white_space_stays_in_the_sentence_that_was_set():
    nlp = parser(True, True)
    doc = make_doc(nlp.vocab, ["a", "\n", "b", "\t", "\n"], [1, 1, -1, 1, -1])
    nlp.get_pipe("spigot_parser")(doc)
    assert [[token.i for token in sentence] for sentence in doc.sents] == [[0], [1, 2], [3, 4]]


def test_training_sees_the_same_segments():
    """A gold arc across a start that is set is unknown, as for spaCy's parser; the rest is learned."""
    nlp, _ = make_pipeline(("spigot_parser", parser_config()))
    gold = parsed_docs(nlp.vocab)[0]
    examples = [example(gold) for _ in range(2)]
    for eg in examples:
        eg.predicted[4].is_sent_start = True
    optimizer = Adam(0.01)
    for _ in range(30):
        losses = nlp.get_pipe("spigot_parser").update(examples, sgd=optimizer, losses={})
    assert losses["spigot_parser"] < 0.5
    doc = bare(gold)
    doc[4].is_sent_start = True
    heads = [token.head.i for token in nlp.get_pipe("spigot_parser")(doc)]
    assert [heads[i] for i in range(4)] == [token.head.i for token in gold][:4]


def test_semantic_parser_neither_sets_nor_minds_sentences():
    nlp, examples = make_pipeline(("spigot_sdp", sdp_config()))
    nlp.update(examples, sgd=Adam(0.05))
    doc = make_doc(nlp.vocab, "the small cat saw a dog .".split(), [1, 0, -1, 0, 1, 0, 0])
    plain = bare(doc)
    before = doc.to_array("SENT_START").tolist()
    for document in (doc, plain):
        nlp.get_pipe("spigot_sdp")(document)
    assert doc.to_array("SENT_START").tolist() == before
    assert get_graph(doc) == get_graph(plain)


def test_sentences_are_scored():
    nlp, examples = make_pipeline(("spigot_parser", parser_config()))
    optimizer = Adam(0.01)
    for _ in range(40):
        nlp.update(examples, sgd=optimizer)
    scores = nlp.evaluate(examples)
    assert scores["sents_p"] == scores["sents_r"] == scores["sents_f"] == 1.0
    two = Doc(nlp.vocab, words=list("abcd"), heads=[0, 0, 2, 2], deps=["ROOT", "x", "ROOT", "x"])
    one = Doc(nlp.vocab, words=list("abcd"), heads=[0, 0, 0, 0], deps=["ROOT", "x", "x", "x"])
    score = make_parse_scorer()
    assert score([spacy.training.Example(two, one)])["sents_f"] == 0.0
    assert score([spacy.training.Example(bare(two), two)])["sents_r"] == 0.0
    assert score([spacy.training.Example(two, bare(two))])["sents_f"] is None
