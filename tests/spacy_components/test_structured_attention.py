"""Structured attention: values, exact gradients, whole updates, and the same alone and in company."""

import pickle

import numpy as np
import pytest
import spacy
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import DocBin
from spacy.util import filter_spans
from thinc.api import SGD, Model
from toy_pipelines import (
    SENTENCES,
    change,
    example,
    head_concat,
    make_pipeline,
    only,
    parsed_docs,
    parser_config,
    soft_head_concat,
    tagger_config,
    torch_gradients,
    torch_weights,
    train_step,
)

from diffdecode.structure import TreeKind
from spacy_components.confidence.annotations import soft_tree
from spacy_components.ml.listening.soft_head_concat import build_soft_head_concat
from spacy_components.ml.trees.soft_trees import SoftTree

TEXTS = [text for text, *_ in SENTENCES] + ["", "  ", "dogs  saw a\nboy", " \n run  away ", "a"]


def attention(docs=None, **parser):
    """Parser, and a tagger on its probabilities."""
    return make_pipeline(
        ("spigot_parser", parser_config(**parser)),
        ("tagger", tagger_config(soft_head_concat())),
        docs=docs or (lambda vocab: [only(doc, "tags") for doc in parsed_docs(vocab)]),
    )


def dense(tree, n):
    table = np.zeros((n, n))
    table[tree.dependents, tree.heads] = tree.probs
    return table


def leaf(outputs, got, **dims):
    return Model("leaf", lambda model, docs, is_train: (outputs, lambda d: got.append(d) or []), dims=dims)


@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4), seed=st.integers(0, 10**6))
@settings(max_examples=cases(10, 40))
def test_values_and_gradients_are_those_of_the_same_layer_in_torch(sizes, seed):
    rng = np.random.RandomState(seed)
    vectors = [rng.randn(n, 3).astype("f") if n else np.zeros((0, 0), dtype="f") for n in sizes]
    tables = [rng.rand(n, n) * (rng.rand(n, n) < 0.7) for n in sizes]
    trees = [
        SoftTree(j.astype("i4"), i.astype("i4"), t[i, j].astype("f"))
        for t in tables
        for i, j in [t.nonzero()]
    ]
    for_vectors, for_trees = [], []
    layer = build_soft_head_concat(leaf(vectors, for_vectors, nO=3), leaf(trees, for_trees))
    out, backprop = layer([None] * len(sizes), True)
    assert layer.get_dim("nO") == 6 and [rows.shape for rows in out] == [(n, 6) for n in sizes]
    weights = [rng.randn(n, 6).astype("f") for n in sizes]
    backprop(weights)
    for k, n in enumerate(sizes):
        if not n:
            assert for_vectors[0][k].shape == (0, 0)
            continue
        mu = torch.from_numpy(tables[k]).requires_grad_()
        h = torch.from_numpy(vectors[k]).double().requires_grad_()
        expected = torch.cat([h, mu @ h], 1)
        np.testing.assert_allclose(out[k], expected.detach().numpy(), atol=1e-5)
        (expected * torch.from_numpy(weights[k])).sum().backward()
        np.testing.assert_allclose(for_vectors[0][k], h.grad.numpy(), atol=1e-4)
        got = for_trees[0][k]
        np.testing.assert_allclose(got.dependents @ got.heads.T, mu.grad.numpy(), atol=1e-4)


@pytest.mark.parametrize(("projective", "multi_root"), [(True, True), (True, False), (False, True)])
def test_a_whole_update_gives_the_parser_the_gradient_of_the_layer_in_torch(projective, multi_root):
    """From the tagger's loss through the marginals to the arc scores, whatever the surrogate is."""
    nlp, examples = attention(
        projective=projective, multi_root=multi_root, surrogate="spigot", grad_factor=2.0
    )
    parser, tagger = nlp.get_pipe("spigot_parser"), nlp.get_pipe("tagger")
    seen, forward = {}, parser.model._func

    def spy(model, docs, is_train):
        seen["scores"], backprop = forward(model, docs, is_train)
        return seen["scores"], lambda pairs: backprop(seen.setdefault("pairs", list(pairs)))

    parser.model._func = spy
    nlp.update(examples, sgd=False, losses={})
    (node,) = {id(n): n for n in tagger.model.walk() if n.name == "soft_head_concat"}.values()
    words = node.get_ref("tok2vec").predict([eg.predicted for eg in examples])
    softmax = next(n for n in tagger.model.walk() if n.name == "softmax")
    weight, bias = (torch.from_numpy(softmax.get_param(p)).double() for p in ("W", "b"))
    labels, kind = list(tagger.labels), TreeKind(projective=projective, multi_root=multi_root)
    assert len(seen["pairs"]) == len(seen["scores"].scores) > 0
    starts = np.cumsum([0, *(len(eg.predicted) for eg in examples)])
    for part, (tensor, gradient) in zip(seen["scores"].scores, seen["pairs"]):
        assert tensor is part.arcs
        leaves = part.arcs.detach().double().requires_grad_()
        mu, _ = kind.marginals(leaves, part.lengths)
        loss = 0.0
        for row, (tokens, length) in enumerate(zip(part.batch.tokens, part.batch.lengths)):
            k = int(np.searchsorted(starts, tokens[0], side="right")) - 1
            h = torch.from_numpy(words[k]).double()
            between = mu[row, 1 : length + 1, 1 : length + 1]
            scores = torch.cat([h, between @ h], 1) @ weight.T + bias
            gold = torch.tensor([labels.index(token.tag_) for token in examples[k].reference])
            loss = loss + torch.nn.functional.cross_entropy(scores, gold, reduction="sum")
        loss.backward()
        torch.testing.assert_close(gradient.double(), 2.0 * leaves.grad, atol=1e-4, rtol=1e-3)
    assert sum(float(gradient.abs().sum()) for _, gradient in seen["pairs"]) > 0


@pytest.mark.parametrize("settings", [{"surrogate": "pipeline"}, {"grad_factor": 0.0}])
def test_a_pipeline_stays_one(settings):
    nlp, examples = attention(**settings)
    before = torch_weights(nlp)
    train_step(nlp, examples, SGD(0.1))
    assert change(before, torch_weights(nlp)) == 0


def test_it_learns():
    nlp, examples = attention()
    before, optimizer = torch_weights(nlp), SGD(0.01)
    losses = [train_step(nlp, examples, optimizer)["tagger"] for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0] and change(before, torch_weights(nlp)) > 0


def test_hard_and_soft_listeners_add_up():
    def gradient(*updated):
        nlp, examples = make_pipeline(
            ("spigot_parser", parser_config(surrogate="ste")),
            ("tagger", tagger_config(soft_head_concat()), "soft"),
            ("tagger", tagger_config(head_concat()), "hard"),
            docs=lambda vocab: [only(doc, "tags") for doc in parsed_docs(vocab)],
        )
        nlp.update(examples, sgd=False, exclude={"soft", "hard"} - set(updated))
        nlp.get_pipe("spigot_parser").close_batch()
        return torch_gradients(nlp)

    both, one, other = gradient("soft", "hard"), gradient("soft"), gradient("hard")
    for name in both:
        torch.testing.assert_close(both[name], one[name] + other[name], atol=1e-4, rtol=1e-3)


def probabilities(nlp, texts):
    return [dense(soft_tree(doc), len(doc)) for doc in nlp.pipe(texts)]


@pytest.mark.parametrize("projective", [True, False])
def test_training_and_prediction_see_the_same_probabilities(projective):
    """And they are those of the heads on the documents, where there are head_probs, at any temperature."""
    nlp, _ = attention(projective=projective, confidence=["head_probs"])
    parser, tagger = nlp.get_pipe("spigot_parser"), nlp.get_pipe("tagger")
    (listener,) = parser.listeners
    for temperature in (1.0, 2.5):
        parser.temperature = temperature
        docs = [nlp.make_doc(text) for text in TEXTS]
        parser.update([example(doc) for doc in docs], sgd=None)
        delivered = listener.attrs["mailbox"].outputs
        parser.close_batch()
        for tree, doc in zip(delivered, nlp.pipe(TEXTS), strict=True):
            written = dense(soft_tree(doc), len(doc))
            np.testing.assert_allclose(dense(tree, len(doc)), written, atol=1e-6)
            assert (written.sum(1) < 1 + 1e-6).all() and (written >= 0).all()
            for token in doc:
                of_head = (
                    written[token.i, token.head.i] if token.head.i != token.i else 1 - written[token.i].sum()
                )
                if not token.is_space:
                    assert of_head == pytest.approx(token._.head_prob, abs=1e-5)
                elif token.head.i != token.i:
                    assert of_head == 1
        assert len(tagger.predict(list(nlp.pipe(TEXTS)))) == len(TEXTS)


def test_the_same_alone_in_company_and_in_other_processes():
    nlp, _ = attention(confidence=["arc_probs"])
    together = list(nlp.pipe(TEXTS))
    for doc, alone, other in zip(together, map(nlp, TEXTS), nlp.pipe(TEXTS, n_process=2, batch_size=3)):
        tables = [dense(soft_tree(found), len(found)) for found in (doc, alone, other)]
        np.testing.assert_allclose(tables[1], tables[0], atol=1e-6)
        np.testing.assert_array_equal(tables[2] > 0, tables[0] > 0)
        assert [t.tag_ for t in doc] == [t.tag_ for t in alone] == [t.tag_ for t in other]


def test_it_survives_files_and_copies(tmp_path):
    # one root: a copy finds the sentences set that the parser has found, and its trees are those within them
    nlp, examples = attention(multi_root=False)
    nlp.update(examples, sgd=SGD(0.1))
    nlp.get_pipe("spigot_parser").temperature = 1.5
    expected = [[t.tag_ for t in doc] for doc in nlp.pipe(TEXTS)]
    tables = probabilities(nlp, TEXTS)
    packed = DocBin(docs=nlp.pipe(TEXTS), store_user_data=True).to_bytes()
    for doc, table in zip(DocBin().from_bytes(packed).get_docs(nlp.vocab), tables, strict=True):
        np.testing.assert_array_equal(dense(soft_tree(doc), len(doc)), table)
    nlp.to_disk(tmp_path / "linked")
    assert [[t.tag_ for t in doc] for doc in spacy.load(tmp_path / "linked").pipe(TEXTS)] == expected
    assert [[t.tag_ for t in doc] for doc in pickle.loads(pickle.dumps(nlp)).pipe(TEXTS)] == expected
    nlp.replace_listeners("spigot_parser", "tagger", ["model.tok2vec.parse"])
    assert nlp.config["components"]["tagger"]["model"]["tok2vec"]["parse"]["soft"] is True
    assert [[t.tag_ for t in doc] for doc in nlp.pipe(TEXTS)] == expected
    assert next(nlp.pipe(["go now"]))._.arc_probs is None  # nobody listens any more
    nlp.to_disk(tmp_path / "private")
    assert [[t.tag_ for t in doc] for doc in spacy.load(tmp_path / "private").pipe(TEXTS)] == expected


def test_a_parse_without_probabilities_is_not_taken_for_one():
    """Whoever made it; ``test_absent_upstream`` has the ways in which a parser can be absent."""
    nlp, _ = attention()
    nlp.remove_pipe("spigot_parser")
    doc = only(parsed_docs(nlp.vocab)[0], "parse")
    with pytest.raises(ValueError, match="'tagger' reads the parse with probabilities that 'spigot_parser'"):
        nlp.get_pipe("tagger").predict([doc])


def test_a_retokenised_document_is_refused():
    nlp, _ = attention()
    doc = nlp("the cat saw a dog")
    with doc.retokenize() as retokenizer:
        for span in filter_spans([doc[0:2]]):
            retokenizer.merge(span)
    with pytest.raises(ValueError, match=r"arc_probs has values of 5 tokens .* has 4: it was retokenised"):
        nlp.get_pipe("tagger").predict([doc])
