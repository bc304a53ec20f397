"""Embeddings that hide words in training, and dropout of the parser's BiLSTM."""

import numpy as np
import pytest
import spacy
import torch
from spacy.ml.models.tok2vec import MultiHashEmbed
from thinc.api import fix_random_seed
from toy_pipelines import parsed_docs

from spacy_components.ml.segments import SegmentBatch
from spacy_components.ml.thinc_glue.word_dropout import build_word_dropout_embed
from spacy_components.ml.trees.scorers import SegmentEncoder

ATTRS, ROWS = ["NORM", "PREFIX", "SUFFIX"], [50, 20, 30]


@pytest.fixture(scope="module")
def docs():
    return parsed_docs(spacy.blank("xx").vocab)


def embed(docs, rate):
    fix_random_seed(0)
    return build_word_dropout_embed(8, ATTRS, ROWS, rate).initialize(X=docs)


def features(model, docs, is_train):
    """What comes out of the two layers that read the documents."""
    extract, hide = model.layers[0], model.layers[1]
    return np.concatenate(hide(extract(docs, is_train)[0], is_train)[0])


def test_without_dropout_it_is_spacys_embedding(docs):
    fix_random_seed(0)
    stock = MultiHashEmbed(8, ATTRS, ROWS, include_static_vectors=False).initialize(X=docs)
    ours = embed(docs, 0.0)
    assert ours.get_dim("nO") == 8
    for is_train in (True, False):  # what training has seen is known later
        for a, b in zip(ours(docs, is_train)[0], stock(docs, is_train)[0]):
            np.testing.assert_array_equal(a, b)


def test_hides_the_first_attribute_in_training_at_the_given_rate(docs):
    model, docs = embed(docs, 0.3), docs * 100
    seen, plain = features(model, docs, True), features(model, docs, False)
    hidden = seen[:, 0] == 0
    assert hidden.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(seen[~hidden, 0], plain[~hidden, 0])
    np.testing.assert_array_equal(seen[:, 1:], plain[:, 1:])
    np.testing.assert_array_equal(plain, features(embed(docs, 0.0), docs, True))


def test_words_that_training_has_not_seen_stay_hidden_also_in_a_copy(docs):
    model = embed(docs, 0.0)
    assert (features(model, docs, False)[:, 0] == 0).all()
    model(docs[:1], True)
    known = {token.norm for token in docs[0]}
    expected = [token.norm if token.norm in known else 0 for doc in docs for token in doc]
    copy = embed(docs, 0.0).from_bytes(model.to_bytes())
    for one in (model, copy):
        np.testing.assert_array_equal(features(one, docs, False)[:, 0], expected)


def test_documents_without_words_go_through(docs):
    model, empty = embed(docs, 0.5), spacy.blank("xx")("")
    for batch in ([empty], [*docs, empty]):
        for is_train in (True, False):
            assert [len(rows) for rows in model(batch, is_train)[0]] == [len(doc) for doc in batch]


def test_hidden_words_train_a_row_of_their_own(docs):
    model = embed(docs, 0.9)
    vectors, backprop = model.begin_update(docs)
    backprop([np.ones_like(rows) for rows in vectors])
    table = next(node for node in model.walk() if node.name == "hashembed")
    trained = np.abs(table.get_grad("E")).sum(1) > 0
    assert 0 < trained.sum() < len(trained)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_wrong_rates_are_refused(rate):
    with pytest.raises(ValueError, match="word_dropout"):
        build_word_dropout_embed(8, ATTRS, ROWS, rate)


def test_every_attribute_needs_rows():
    with pytest.raises(ValueError, match="3 attrs and 1 rows"):
        build_word_dropout_embed(8, ATTRS, [10], 0.1)


def test_a_segment_has_one_dropout_mask_for_all_its_words():
    torch.manual_seed(0)
    encoder = SegmentEncoder(40, lstm_width=30, lstm_depth=2).train()
    batch = SegmentBatch(np.arange(12).reshape(2, 6), np.array([6, 6]))
    dropped = encoder(torch.randn(13, 40), batch, 0.5)[:, 1:] == 0  # [2, 6, 60]
    assert (dropped == dropped[:, :1]).all() and not (dropped[0] == dropped[1]).all()
    assert 0.3 < dropped.float().mean() < 0.7
    words = torch.randn(13, 40)
    assert not torch.equal(encoder(words, batch, 0.5), encoder(words, batch, 0.5))
    assert torch.equal(encoder.eval()(words, batch, 0.5), encoder(words, batch, 0.0))


def test_vectors_are_mixed_in_as_spacy_does_and_never_hidden():
    nlp, rng = spacy.blank("xx"), np.random.RandomState(0)
    for word in ("the", "cat"):
        nlp.vocab.set_vector(word, rng.randn(5).astype("f"))
    docs = [nlp("the cat sat"), nlp("the")]
    fix_random_seed(0)
    stock = MultiHashEmbed(8, ATTRS, ROWS, include_static_vectors=True).initialize(X=docs)
    fix_random_seed(0)
    ours = build_word_dropout_embed(8, ATTRS, ROWS, 0.0, vectors="glove").initialize(X=docs)
    for is_train in (True, False):
        for a, b in zip(ours(docs, is_train)[0], stock(docs, is_train)[0]):
            np.testing.assert_array_equal(a, b)
    unseen = build_word_dropout_embed(8, ATTRS, ROWS, 0.0, vectors="glove").initialize(X=docs)
    before = unseen.predict(docs)[1]
    nlp.vocab.vectors.data[...] *= 2
    assert not np.allclose(before, unseen.predict(docs)[1])
