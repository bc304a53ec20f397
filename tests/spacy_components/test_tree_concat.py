"""A word sees its head, children and grandparent: values, exact gradients, whole updates."""

import numpy as np
import pytest
import spacy
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from thinc.api import SGD, Model, NumpyOps
from toy_pipelines import (
    change,
    graph_concat,
    head_concat,
    make_pipeline,
    ner_config,
    only,
    parsed_docs,
    parser_config,
    sdp_config,
    spancat_config,
    tagger_config,
    textcat_config,
    torch_gradients,
    torch_weights,
    train_step,
    tree_concat,
)

from diffdecode.structure import tree_argmax
from spacy_components.ml.listening.concat import build_graph_concat
from spacy_components.ml.listening.tree_concat import build_tree_concat

WAYS = [(children, grandparent) for children in ("sum", "mean") for grandparent in (False, True)]


def leaf(outputs, got, **dims):
    return Model("leaf", lambda model, docs, is_train: (outputs, lambda d: got.append(d) or []), dims=dims)


def by_hand(z, h, children, grandparent):
    """The layer in torch, of real-valued arcs ``z [dependent, head]`` and vectors ``h [n, w]``."""
    left, right = z.triu(1).T, z.tril(-1).T  # [head, dependent], the dependent to the left or right
    parts = [h, z @ h]
    for side in (left, right):
        total = side @ h
        if children == "mean":
            count = side.sum(1, keepdim=True)
            total = total / torch.where(count > 0, count, 1.0)
        parts.append(total)
    return torch.cat([*parts, *([z @ (z @ h)] if grandparent else [])], 1)


def tree_of(heads):
    z = torch.zeros(len(heads), len(heads), dtype=torch.float64)
    for j, i in enumerate(heads):
        if i >= 0:
            z[j, i] = 1
    return z


def dense(gradient):
    total = gradient.dependents @ gradient.heads.T
    return (
        total
        + np.triu(gradient.children @ gradient.left.T, 1)
        + np.tril(gradient.children @ gradient.right.T, -1)
    )


def random_heads(draw, n):
    """Some tree, projective or not: each word hangs from one that is attached already, or from the root."""
    order, heads = draw.permutation(n), np.full(n, -1)
    for place, word in enumerate(order):
        choice = draw.randint(-1, place)
        heads[word] = -1 if choice < 0 else order[choice]
    return heads


@pytest.mark.parametrize(("children", "grandparent"), WAYS)
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4), seed=st.integers(0, 10**6))
@settings(max_examples=cases(10, 25))
def test_values_and_gradients_are_those_of_the_same_layer_in_torch(children, grandparent, sizes, seed):
    rng = np.random.RandomState(seed)
    vectors = [rng.randn(n, 3).astype("f") if n else np.zeros((0, 0), dtype="f") for n in sizes]
    heads = [random_heads(rng, n) for n in sizes]
    for_vectors, for_heads = [], []
    layer = build_tree_concat(leaf(vectors, for_vectors, nO=3), leaf(heads, for_heads), children, grandparent)
    out, backprop = layer([None] * len(sizes), True)
    width = 3 * (5 if grandparent else 4)
    assert layer.get_dim("nO") == width and [rows.shape for rows in out] == [(n, width) for n in sizes]
    weights = [rng.randn(n, width).astype("f") for n in sizes]
    backprop(weights)
    for k, n in enumerate(sizes):
        if not n:
            assert for_vectors[0][k].shape == (0, 0)
            continue
        z = tree_of(heads[k]).requires_grad_()
        h = torch.from_numpy(vectors[k]).double().requires_grad_()
        expected = by_hand(z, h, children, grandparent)
        np.testing.assert_allclose(out[k], expected.detach().numpy(), atol=1e-5)
        (expected * torch.from_numpy(weights[k])).sum().backward()
        np.testing.assert_allclose(for_vectors[0][k], h.grad.numpy(), atol=1e-4)
        off_diagonal = ~np.eye(n, dtype=bool)  # no word is its own head
        np.testing.assert_allclose(
            dense(for_heads[0][k])[off_diagonal], z.grad.numpy()[off_diagonal], atol=1e-4
        )


@pytest.mark.parametrize(("children", "grandparent"), WAYS)
def test_the_layer_in_torch_is_differentiable_in_relaxed_trees(children, grandparent):
    """Finite differences, on arcs between 0 and 1: the gradients above are those of no other function."""
    torch.manual_seed(0)
    z, h = torch.rand(5, 5, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    inputs = (z.requires_grad_(), h.requires_grad_())
    assert torch.autograd.gradcheck(lambda z, h: by_hand(z, h, children, grandparent), inputs)


@pytest.mark.parametrize(("children", "grandparent"), WAYS)
def test_a_whole_update_gives_the_parser_the_gradient_of_the_layer_in_torch(children, grandparent):
    """From the tagger's loss, through the layer, the tree's surrogate gradient and on to the arc scores."""
    spigot = {"@misc": "diffdecode.spigot.v1", "eta": 0.5}
    nlp, examples = make_pipeline(
        ("spigot_parser", parser_config(surrogate=spigot, grad_factor=2.0)),
        ("tagger", tagger_config(tree_concat(children, grandparent))),
        docs=lambda vocab: [tagged(doc) for doc in parsed_docs(vocab)],
    )
    parser, tagger = nlp.get_pipe("spigot_parser"), nlp.get_pipe("tagger")
    seen, forward = {}, parser.model._func

    def spy(model, docs, is_train):
        seen["scores"], backprop = forward(model, docs, is_train)
        return seen["scores"], lambda pairs: backprop(seen.setdefault("pairs", list(pairs)))

    parser.model._func = spy
    nlp.update(examples, sgd=False, losses={})
    (node,) = {id(n): n for n in tagger.model.walk() if n.name == "tree_concat"}.values()
    words = node.get_ref("tok2vec").predict([eg.predicted for eg in examples])
    softmax = next(n for n in tagger.model.walk() if n.name == "softmax")
    weight, bias = (torch.from_numpy(softmax.get_param(p)).double() for p in ("W", "b"))
    labels = list(tagger.labels)
    assert len(seen["pairs"]) == len(seen["scores"].scores) > 0
    starts = np.cumsum([0, *(len(eg.predicted) for eg in examples)])
    for part, (tensor, gradient) in zip(seen["scores"].scores, seen["pairs"]):
        assert tensor is part.arcs
        leaves = part.arcs.detach().requires_grad_()
        tree = tree_argmax(
            leaves, part.lengths, surrogate="spigot", eta=0.5, projective=True, multi_root=True
        )
        loss = 0.0
        for row, (tokens, length) in enumerate(zip(part.batch.tokens, part.batch.lengths)):
            k = int(np.searchsorted(starts, tokens[0], side="right")) - 1
            z = tree[row, 1 : length + 1, 1 : length + 1].double()
            h = torch.from_numpy(words[k]).double()
            scores = by_hand(z, h, children, grandparent) @ weight.T + bias
            gold = torch.tensor([labels.index(token.tag_) for token in examples[k].reference])
            loss = loss + torch.nn.functional.cross_entropy(scores, gold, reduction="sum")
        loss.backward()
        torch.testing.assert_close(gradient, 2.0 * leaves.grad, atol=1e-4, rtol=1e-3)
    assert sum(float(gradient.abs().sum()) for _, gradient in seen["pairs"]) > 0


def tagged(doc):
    copy = only(doc)
    for token, gold in zip(copy, doc):
        token.tag_ = gold.tag_
    return copy


@pytest.mark.parametrize("children", ["sum", "mean"])
def test_every_kind_of_component_takes_it_and_trains_the_parser(children):
    layer = tree_concat(children, grandparent=True)
    ends = [
        ("masked_textcat", textcat_config(layer), "textcat"),
        ("ner", ner_config(layer)),
        ("tagger", tagger_config(layer)),
        ("spancat", spancat_config(layer)),
    ]
    for chosen in [[end] for end in ends] + [ends]:
        nlp, examples = make_pipeline(
            ("spigot_parser", parser_config()),
            *chosen,
            docs=lambda vocab: [without_parse(doc) for doc in parsed_docs(vocab)],
        )
        before = torch_weights(nlp)
        for _ in range(3):  # the last layers of ner and spancat start at 0 and send nothing back at first
            losses = train_step(nlp, examples, SGD(0.01))
        assert losses["spigot_parser"] == 0.0 and change(before, torch_weights(nlp)) > 0
        assert len(list(nlp.pipe(["", "the cat", " ", "run"]))) == 4


def without_parse(doc):
    copy = tagged(doc)
    copy.cats = doc.cats
    copy.set_ents([copy.char_span(0, len(copy[0]), label="X")])
    copy.spans["sc"] = [copy.char_span(0, len(copy[0]), label="Y")]
    return copy


def test_several_layers_add_up():
    """HeadConcat in one component, TreeConcat in another: their gradients come in different factors."""

    def gradient(*updated):
        nlp, examples = make_pipeline(
            ("spigot_parser", parser_config(surrogate="ste")),
            ("tagger", tagger_config(tree_concat()), "first"),
            ("tagger", tagger_config(head_concat()), "second"),
            docs=lambda vocab: [tagged(doc) for doc in parsed_docs(vocab)],
        )
        nlp.update(examples, sgd=False, exclude={"first", "second"} - set(updated))
        nlp.get_pipe("spigot_parser").close_batch()
        return torch_gradients(nlp)

    both, one, other = gradient("first", "second"), gradient("first"), gradient("second")
    for name in both:
        torch.testing.assert_close(both[name], one[name] + other[name], atol=1e-4, rtol=1e-3)


def test_another_word_for_children_is_refused():
    with pytest.raises(ValueError, match="'sum' or 'mean', not 'max'"):
        build_tree_concat(leaf([], []), leaf([], []), children="max")


def test_saved_pipeline_is_the_same(tmp_path):
    nlp, examples = make_pipeline(
        ("spigot_parser", parser_config()), ("tagger", tagger_config(tree_concat("mean", True)))
    )
    nlp.update(examples, sgd=SGD(0.1))
    nlp.to_disk(tmp_path)
    texts = [eg.reference.text for eg in examples]
    tags = [[t.tag_ for t in doc] for doc in nlp.pipe(texts)]
    assert [[t.tag_ for t in doc] for doc in spacy.load(tmp_path).pipe(texts)] == tags
    nlp.replace_listeners("spigot_parser", "tagger", ["model.tok2vec.parse"])
    assert [[t.tag_ for t in doc] for doc in nlp.pipe(texts)] == tags


# ---- the same for graphs


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=3), seed=st.integers(0, 10**6))
@settings(max_examples=cases(10, 30))
def test_graph_layer_with_dependents_is_the_same_layer_in_torch(sizes, seed):
    rng, width, n_labels = np.random.RandomState(seed), 3, 4
    vectors = [rng.randn(n, width).astype("f") for n in sizes]
    arcs = []
    for n in sizes:
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j and rng.rand() < 0.4]
        arcs.append(np.array([(i, j, rng.randint(n_labels)) for i, j in pairs], dtype="i8").reshape(-1, 3))
    for_vectors, for_graphs = [], []
    graph = leaf(arcs, for_graphs)
    graph.attrs["labels"] = list("abcd")
    layer = build_graph_concat(leaf(vectors, for_vectors, nO=width), graph, role_width=2, dependents=True)
    layer.initialize()
    out, backprop = layer([None] * len(sizes), True)
    assert layer.get_dim("nO") == 3 * width + 4
    weights = [rng.randn(*rows.shape).astype("f") for rows in out]
    backprop(weights)
    table = torch.from_numpy(layer.get_param("roles")).double().requires_grad_()
    for k, n in enumerate(sizes):
        z = torch.zeros(n, n, n_labels, dtype=torch.float64)
        z[tuple(arcs[k].T)] = 1
        z.requires_grad_()
        h = torch.from_numpy(vectors[k]).double().requires_grad_()

        def mean(z, h=h):
            """``z [other, word, label]``"""
            count = z.sum((0, 2))[:, None]
            total = torch.cat([torch.einsum("ijl,ic->jc", z, h), torch.einsum("ijl,lr->jr", z, table)], 1)
            return total / torch.where(count > 0, count, 1.0)

        expected = torch.cat([h, mean(z), mean(z.transpose(0, 1))], 1)
        np.testing.assert_allclose(out[k], expected.detach().numpy(), atol=1e-5)
        (expected * torch.from_numpy(weights[k])).sum().backward()
        got = for_graphs[0][k]
        of_arcs = got.dependents @ got.heads.T - got.mean[:, None]  # [dependent, head]
        by_label = of_arcs[:, :, None] + got.labels[:, None] + got.head_labels[None]
        off_diagonal = ~np.eye(n, dtype=bool)
        np.testing.assert_allclose(
            by_label[off_diagonal], z.grad.transpose(0, 1).numpy()[off_diagonal], atol=1e-4
        )
        np.testing.assert_allclose(for_vectors[0][k], h.grad.numpy(), atol=1e-4)
    np.testing.assert_allclose(layer.get_grad("roles"), table.grad.numpy(), atol=1e-4)


def test_graph_layer_with_dependents_trains_the_semantic_parser():
    gradients = []
    for dependents in (False, True):
        nlp, examples = make_pipeline(
            ("spigot_sdp", sdp_config()),
            ("tagger", tagger_config(graph_concat(dependents=dependents))),
            docs=lambda vocab: [tagged(doc) for doc in parsed_docs(vocab)],
        )
        losses = nlp.update(examples, sgd=False, losses={})
        assert losses["spigot_sdp"] == 0.0
        gradients.append(torch_gradients(nlp, "spigot_sdp"))
        assert sum(float(g.abs().sum()) for g in gradients[-1].values()) > 0
        assert len(list(nlp.pipe(["", "the cat", " ", "run"]))) == 4
    assert any(not torch.allclose(gradients[0][name], gradients[1][name]) for name in gradients[0])


# ---- the cost


class CountingModule:
    """numpy, with its calls counted."""

    def __init__(self, calls):
        self._calls = calls

    def __getattr__(self, name):
        found = getattr(np, name)
        if not callable(found) or isinstance(found, (type, np.ufunc)):
            return found

        def call(*args, **kwargs):
            self._calls.append(name)
            return found(*args, **kwargs)

        return call


@pytest.mark.parametrize("kind", ["tree", "tree of means", "graph"])
def test_number_of_array_operations_does_not_grow_with_the_batch(kind):
    def count(n_docs):
        rng, calls = np.random.RandomState(0), []
        vectors = [rng.randn(4, 3).astype("f") for _ in range(n_docs)]
        if kind == "graph":
            decisions = leaf([np.array([[0, 1, 0], [2, 3, 1]])] * n_docs, [])
            decisions.attrs["labels"] = ["a", "b"]
            layer = build_graph_concat(leaf(vectors, [], nO=3), decisions, dependents=True)
            layer.initialize()
        else:
            decisions = leaf([np.array([1, -1, 1, 2])] * n_docs, [])
            layer = build_tree_concat(
                leaf(vectors, [], nO=3), decisions, "mean" if kind == "tree of means" else "sum", True
            )
        layer.ops = type("CountingOps", (NumpyOps,), {"xp": CountingModule(calls)})()
        scatter_add = layer.ops.scatter_add
        layer.ops.scatter_add = lambda *arguments: (calls.append("scatter_add"), scatter_add(*arguments))[1]
        out, backprop = layer([None] * n_docs, True)
        backprop([np.ones_like(rows) for rows in out])
        return sorted(calls)

    assert count(2) == count(20) and len(count(2)) > 5
