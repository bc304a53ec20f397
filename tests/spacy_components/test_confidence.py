"""Probabilities of arcs and trees, against all trees of small documents; how documents keep them."""

import itertools
import pickle
from functools import cache

import numpy as np
import pytest
import spacy
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from thinc.api import Adam
from toy_pipelines import TOK2VEC, make_pipeline, parser_config, train_step
from tree_enumeration import all_trees, score_all

from spacy_components.confidence.annotations import CONFIDENCE
from spacy_components.ml.segments import lazy_segments, segment_docs, whole_docs
from spacy_components.ml.trees.sentences import join_trees, trees_of

TREES = [(projective, multi_root) for projective in (True, False) for multi_root in (True, False)]
SEGMENTERS = {"whole": whole_docs(), "short": lazy_segments(max_length=3)}
TEXTS = ["the small cat saw a dog .", "", "run", " \n ", "dogs bark . she gave him  a book", "\tgo\n!"]
LSTM = {
    "@architectures": "diffdecode.BiLstmMlpParser.v1",
    "tok2vec": TOK2VEC,
    "segmenter": {"@misc": "diffdecode.lazy_segments.v1", "max_length": 192},
    "lstm_width": 8,
    "lstm_depth": 1,
    "hidden_width": 8,
    "label_width": 8,
}
MODELS = {"biaffine": parser_config()["model"], "mlp": LSTM}


@cache
def pipeline(projective=True, multi_root=True, model="biaffine"):
    config = {"model": MODELS[model], "confidence": CONFIDENCE}
    nlp, examples = make_pipeline(
        ("spigot_parser", {**config, "projective": projective, "multi_root": multi_root})
    )
    optimizer = Adam(0.02)
    for _ in range(4):
        train_step(nlp, examples, optimizer)
    return nlp


def make_doc(vocab, words, starts=()):
    doc = Doc(vocab, words=words, spaces=[True] * len(words))
    for token, start in zip(doc, starts):
        if token.i:
            token.is_sent_start = {1: True, 0: None, -1: False}[start]
    return doc


def every_decision(parser, doc):
    """All decisions on a document's segments: (their arcs as pairs of positions, joined heads, log of p)."""
    scores = parser.model.predict([doc])
    segments = []
    for part in scores.scores:
        kind = trees_of(part.batch, parser.trees)
        for b, n in enumerate(part.batch.lengths.tolist()):
            trees = all_trees(n, kind.projective, kind.multi_root)
            arcs = part.arcs[b : b + 1] / parser.temperature
            log_p = score_all(arcs, n, kind.projective, kind.multi_root).log_softmax(1)[0]
            words = part.batch.tokens[b, :n]
            trees = [words_of(words, tree) for tree in trees.numpy()]
            segments.append([(words, tree, p) for tree, p in zip(trees, log_p.tolist())])
    for choice in itertools.product(*segments):
        heads = np.arange(len(doc))
        heads[scores.segments.spaces] = scores.segments.hosts
        for words, chosen, _ in choice:
            heads[words] = chosen
        yield heads, tuple(join_trees(heads, scores.segments.inner)), sum(p for _, _, p in choice)


def words_of(words, tree):
    return np.where(tree > 0, words[np.maximum(tree - 1, 0)], words)


def every_tree(parser, doc):
    """``{heads: log of p}`` of all trees that the document can get."""
    found = {}
    for _, heads, log_p in every_decision(parser, doc):
        found[heads] = np.logaddexp(found.get(heads, -np.inf), log_p)
    return found


WORDS = st.sampled_from(["dog", "the", "saw", ".", "the", "\n"])
FREE = st.lists(st.tuples(WORDS, st.just(0)), max_size=4)
PRESET = st.lists(st.tuples(WORDS, st.sampled_from([-1, -1, 0, 1])), max_size=5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("trees", TREES, ids=str)
@given(
    tokens=st.one_of(FREE, PRESET),
    segmenter=st.sampled_from(sorted(SEGMENTERS)),
    temperature=st.sampled_from([1, 0.5, 3.0]),
)
@settings(max_examples=cases(8, 25))
def test_all_trees_of_a_small_document(trees, model, tokens, segmenter, temperature):
    parser = pipeline(*trees, model).get_pipe("spigot_parser")
    parser.model.attrs["segmenter"] = SEGMENTERS[segmenter]
    parser.temperature = temperature
    doc = make_doc(parser.vocab, [word for word, _ in tokens], [start for _, start in tokens])
    check_against_enumeration(parser, doc)
    parser.temperature = 1.0


def check_against_enumeration(parser, doc):
    decisions = list(every_decision(parser, doc))
    p = np.exp([log_p for *_, log_p in decisions])
    parses = parser.predict([doc])
    best = max(decisions, key=lambda decision: decision[2])[0]
    marginals = [p[[heads[i] == best[i] for heads, *_ in decisions]].sum() for i in range(len(doc))]
    assert parses.confidence["head_probs"][0] == pytest.approx(marginals, abs=1e-5)
    assert parses.confidence["tree_entropy"][0] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)

    expected = every_tree(parser, doc)
    assert np.logaddexp.reduce(list(expected.values())) == pytest.approx(0, abs=1e-5)
    distribution = parser._distribution(doc)
    for heads, log_p in expected.items():
        assert distribution.log_prob(np.array(heads, dtype=int)) == pytest.approx(log_p, abs=1e-5)
    k = min(len(expected) + 1, 60)
    found = parser.k_best(doc, k)
    assert found[0].heads == parses[0][:, 0].tolist()
    assert len({tuple(tree.heads) for tree in found}) == len(found) == min(k, len(expected))
    of_found = [expected[tuple(tree.heads)] for tree in found]
    assert [tree.log_prob for tree in found] == pytest.approx(of_found, abs=1e-5)
    if not len(segment_docs([doc], parser.model.attrs["segmenter"]).inner):
        assert of_found == pytest.approx(sorted(expected.values(), reverse=True)[:k], abs=1e-5)
    few = parser.k_best(doc, 3)
    assert [tree.heads for tree in few] == [tree.heads for tree in found[:3]]
    for tree in few:
        copy = tree.on(doc)
        assert [token.head.i for token in copy] == tree.heads
        assert [token.dep_ for token in copy] == tree.deps
        assert [dep == "ROOT" for dep in tree.deps] == [head == i for i, head in enumerate(tree.heads)]
    assert not any(token.dep for token in doc) and not doc.user_data  # it was asked about, not changed


@pytest.mark.parametrize("trees", TREES, ids=str)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=4), st.sampled_from([[0] * 4, [1, 0, -1, 0]]))
@settings(max_examples=cases(8, 20))
def test_other_heads_are_impossible(trees, heads, starts):
    parser = pipeline(*trees).get_pipe("spigot_parser")
    parser.model.attrs["segmenter"] = SEGMENTERS["whole"]
    doc = make_doc(parser.vocab, "she saw him .".split(), starts)
    expected = every_tree(parser, doc)
    assert parser.log_prob(doc, heads) == pytest.approx(expected.get(tuple(heads), -np.inf), abs=1e-5)


@pytest.mark.parametrize("trees", TREES, ids=str)
@pytest.mark.parametrize("starts", [[0] * 4, [1, 0, -1, 0]], ids=["free", "preset"])
def test_samples(trees, starts):
    parser = pipeline(*trees).get_pipe("spigot_parser")
    parser.model.attrs["segmenter"] = SEGMENTERS["whole"]
    doc = make_doc(parser.vocab, "she saw a dog".split(), starts)
    expected = every_tree(parser, doc)
    drawn = parser.sample(doc, 300, generator=torch.Generator().manual_seed(0))
    again = parser.sample(doc, 300, generator=torch.Generator().manual_seed(0))
    assert [tree.heads for tree in drawn] == [tree.heads for tree in again]
    shares = dict.fromkeys(expected, 0.0)
    for tree in drawn:
        shares[tuple(tree.heads)] += 1 / len(drawn)
        assert tree.log_prob == pytest.approx(expected[tuple(tree.heads)], abs=1e-5)
    for heads, share in shares.items():
        p = np.exp(expected[heads])
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / len(drawn)) + 1 / len(drawn)


def test_a_parsed_document_keeps_its_sentences():
    nlp = pipeline()
    parser = nlp.get_pipe("spigot_parser")
    parser.model.attrs["segmenter"] = SEGMENTERS["whole"]
    doc = nlp("dogs bark she saw him")
    heads = [token.head.i for token in doc]
    starts = [token.is_sent_start for token in doc]
    given_sentences = make_doc(nlp.vocab, [t.text for t in doc], [1 if start else -1 for start in starts])
    assert parser.log_prob(doc) == pytest.approx(parser.log_prob(given_sentences, heads))
    assert parser.log_prob(doc) > parser.log_prob(nlp.make_doc(doc.text), heads)
    for tree in parser.k_best(doc, 5):
        assert [token.is_sent_start for token in tree.on(doc)] == starts


def written(doc):
    return doc._.head_probs, doc._.tree_entropy


def assert_same(docs, expected):
    for doc, (head_probs, tree_entropy) in zip(docs, expected, strict=True):
        assert doc._.head_probs == pytest.approx(head_probs, abs=1e-5)
        assert doc._.tree_entropy == pytest.approx(tree_entropy, abs=1e-4)
        assert [token._.head_prob for token in doc] == list(doc._.head_probs)  # of a DocBin: a tuple


@pytest.mark.parametrize("model", MODELS)
def test_alone_as_in_company(model):
    nlp = pipeline(model=model)
    expected = [written(nlp(text)) for text in TEXTS]
    assert expected[1] == ([], 0.0) and expected[3] == ([1.0], 0.0)
    assert any(0 < p < 1 for p in expected[0][0]) and expected[0][1] > 0
    for size in (2, 3, len(TEXTS)):
        assert_same(nlp.pipe(TEXTS, batch_size=size), expected)
    assert_same(list(nlp.pipe(TEXTS[::-1]))[::-1], expected)


def test_two_processes_and_a_pickled_pipeline():
    nlp = pipeline()
    expected = [written(nlp(text)) for text in TEXTS]
    assert_same(nlp.pipe(TEXTS, n_process=2, batch_size=3), expected)
    assert_same(pickle.loads(pickle.dumps(nlp)).pipe(TEXTS), expected)


def test_it_is_saved_with_document_and_pipeline(tmp_path):
    nlp = pipeline()
    docs = list(nlp.pipe(TEXTS))
    expected = [written(doc) for doc in docs]
    assert_same([Doc(nlp.vocab).from_bytes(doc.to_bytes()) for doc in docs], expected)
    data = DocBin(docs=docs, store_user_data=True).to_bytes()
    assert_same(DocBin().from_bytes(data).get_docs(nlp.vocab), expected)
    nlp.to_disk(tmp_path)
    assert_same(spacy.load(tmp_path).pipe(TEXTS), expected)
    without = spacy.load(tmp_path, config={"components.spigot_parser.confidence": []})
    assert all(written(doc) == (None, None) for doc in without.pipe(TEXTS))


def test_temperature_is_saved_and_changes_no_tree(tmp_path):
    nlp = pipeline()
    parser = nlp.get_pipe("spigot_parser")
    plain = [(doc.to_array(["HEAD", "DEP"]).tolist(), doc._.tree_entropy) for doc in nlp.pipe(TEXTS)]
    copy = pickle.loads(pickle.dumps(nlp))
    copy.get_pipe("spigot_parser").temperature = 4
    docs = list(copy.pipe(TEXTS))
    assert [doc.to_array(["HEAD", "DEP"]).tolist() for doc in docs] == [tree for tree, _ in plain]
    assert docs[0]._.tree_entropy > plain[0][1] + 0.1
    expected = [written(doc) for doc in docs]
    copy.to_disk(tmp_path)
    restored = spacy.load(tmp_path)
    assert restored.get_pipe("spigot_parser").temperature == 4
    assert_same(restored.pipe(TEXTS), expected)
    assert_same(pickle.loads(pickle.dumps(copy)).pipe(TEXTS), expected)
    other = pickle.loads(pickle.dumps(nlp)).from_bytes(copy.to_bytes())
    assert_same(other.pipe(TEXTS), expected)
    assert parser.temperature == 1.0
    for wrong in (0, -1.0, float("nan"), float("inf"), "1"):
        with pytest.raises(ValueError, match="temperature must be a number above 0"):
            parser.temperature = wrong


def test_off_by_default_and_nothing_stale_is_left():
    nlp = pipeline()
    other, _ = make_pipeline(("spigot_parser", parser_config()))
    doc = other("she saw him")
    assert written(doc) == (None, None) and doc[0]._.head_prob is None and not doc.user_data
    doc = nlp("she saw him")
    assert doc._.tree_entropy is not None
    assert written(other.get_pipe("spigot_parser")(doc)) == (None, None)
    one, _ = make_pipeline(("spigot_parser", parser_config(confidence=["tree_entropy"])))
    doc = one("she saw him")
    assert doc._.head_probs is None and doc._.tree_entropy > 0


def test_the_parse_is_the_same_with_and_without():
    nlp, _ = make_pipeline(("spigot_parser", parser_config()))
    other, _ = make_pipeline(("spigot_parser", parser_config(confidence=CONFIDENCE)))
    for doc, with_confidence in zip(nlp.pipe(TEXTS), other.pipe(TEXTS)):
        assert doc.to_array(["HEAD", "DEP"]).tolist() == with_confidence.to_array(["HEAD", "DEP"]).tolist()


def test_what_cannot_be_asked_is_said():
    nlp = pipeline()
    parser = nlp.get_pipe("spigot_parser")
    doc = nlp.make_doc("she saw him")
    with pytest.raises(ValueError, match="no dependency parse"):
        parser.log_prob(doc)
    for heads in ([1, 1], [1, 1, 3], [-1, 1, 1]):
        with pytest.raises(ValueError, match="3 heads from 0 to 2"):
            parser.log_prob(doc, heads)
    for ask in (parser.k_best, parser.sample):
        with pytest.raises(ValueError, match="must be 1 or more"):
            ask(doc, 0)
    with pytest.raises(ValueError, match="no confidence 'head_prob'; there are head_probs, tree_entropy"):
        make_pipeline(("spigot_parser", parser_config(confidence=["head_prob"])))
    parsed = nlp("she saw him")
    with parsed.retokenize() as retokenizer:
        retokenizer.merge(parsed[:2])
    with pytest.raises(ValueError, match="retokenised since"):
        _ = parsed[0]._.head_prob


def test_a_parser_of_stanzas(tmp_path):
    pytest.importorskip("stanza", reason="needs diffdecode[stanza]")
    from stanza_models import train_checkpoint, treebank, without_tags

    sizes = {"tag_emb_dim": 0, "word_emb_dim": 0, "max_steps": 2, "eval_interval": 9}
    checkpoint = train_checkpoint(tmp_path, "chars", without_tags(treebank(30)), **sizes)
    model = {"@architectures": "diffdecode.StanzaParser.v1", "checkpoint": str(checkpoint)}
    config = {"model": model, "projective": False, "multi_root": False, "confidence": CONFIDENCE}
    nlp, _ = make_pipeline(("spigot_parser", config))
    for words in ("she saw a dog", "go", ""):
        check_against_enumeration(nlp.get_pipe("spigot_parser"), make_doc(nlp.vocab, words.split()))
