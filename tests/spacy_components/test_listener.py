"""Layers that listen to a parser: gradients, and every hazard of listening that spaCy pipelines know."""

import copy
import warnings

import numpy as np
import pytest
import spacy
import torch
from spacy.pipeline.tok2vec import Tok2VecListener
from spacy.tokens import Doc
from spacy.training import Example
from spacy.ty import ListenedToComponent
from thinc.api import SGD, Adam, Model, to_numpy
from toy_pipelines import (
    SHARED,
    TOK2VEC,
    bare,
    change,
    example,
    graph_concat,
    head_concat,
    joint,
    make_pipeline,
    module_of,
    ner_config,
    only,
    parsed_docs,
    parser_config,
    sdp_config,
    spancat_config,
    tagger_config,
    textcat_config,
    thinc_gradients,
    torch_gradients,
    torch_weights,
    train_step,
)

from spacy_components.ml.listening.concat import build_graph_concat, build_head_concat
from spacy_components.ml.listening.gradients import ArcGradient
from spacy_components.ml.listening.mailbox import batch_identity
from spacy_components.ml.thinc_glue.parameters import parameters
from spacy_components.pipeline.listened_pipe import ListenedPipe

FOUR = [
    ("masked_textcat", textcat_config(head_concat()), "textcat"),
    ("ner", ner_config(head_concat())),
    ("tagger", tagger_config(head_concat())),
    ("spancat", spancat_config(head_concat())),
]


def parses(vocab):
    return [only(doc, "parse") for doc in parsed_docs(vocab)]


def categories(vocab):
    return [only(doc, "cats") for doc in parsed_docs(vocab)]


def gradient_size(nlp, name="spigot_parser"):
    return sum(float(gradient.abs().sum()) for gradient in torch_gradients(nlp, name).values())


def predictions(docs):
    return [([t.head.i for t in doc], {k: round(v, 5) for k, v in doc.cats.items()}) for doc in docs]


def count_backward_passes(pipe):
    """Wraps the model so that its backward passes are counted in the list that is returned."""
    passes, forward = [], pipe.model._func

    def counted(model, docs, is_train):
        scores, backprop = forward(model, docs, is_train)

        def count(pairs):
            passes.append(len(list(pairs)))
            return backprop(pairs)

        return scores, count

    pipe.model._func = counted
    return passes


# ---- the layers' own gradients


def leaf(outputs, got, **dims):
    return Model("leaf", lambda model, docs, is_train: (outputs, lambda d: got.append(d) or []), dims=dims)


@pytest.mark.parametrize("empty", [False, True])
def test_head_concat_gradients_are_those_of_finite_differences(empty):
    rng = np.random.RandomState(0)
    sizes = [4, 0, 3] if empty else [4, 3]
    vectors = [rng.randn(n, 3).astype("f") if n else np.zeros((0, 0), dtype="f") for n in sizes]
    heads = [np.array([1, -1, 0, 2])[:n] for n in sizes]
    for_vectors, for_heads = [], []
    layer = build_head_concat(leaf(vectors, for_vectors, nO=3), leaf(heads, for_heads))
    out, backprop = layer([None] * len(sizes), True)
    assert layer.get_dim("nO") == 6 and [rows.shape for rows in out] == [(n, 6) for n in sizes]
    weights = [rng.randn(*rows.shape).astype("f") for rows in out]
    backprop(weights)

    def loss(vectors, trees):
        return sum(
            float((np.hstack([h, z @ h]) * w).sum()) for h, z, w in zip(vectors, trees, weights) if len(h)
        )

    trees = [np.zeros((n, n)) for n in sizes]
    for tree, head in zip(trees, heads):
        for j, i in enumerate(head):
            if i >= 0:
                tree[j, i] = 1
    exact = [v.astype("d") for v in vectors]
    assert loss(exact, trees) == pytest.approx(
        sum(float((o * w).sum()) for o, w in zip(out, weights)), abs=1e-4
    )
    for k, n in enumerate(sizes):
        got = for_heads[0][k].dependents @ for_heads[0][k].heads.T
        for j in range(n):
            for i in range(n):
                trees[k][j, i] += 1e-5
                up = loss(exact, trees)
                trees[k][j, i] -= 2e-5
                assert (up - loss(exact, trees)) / 2e-5 == pytest.approx(got[j, i], abs=1e-3)
                trees[k][j, i] += 1e-5
        for place in np.ndindex(*exact[k].shape):
            exact[k][place] += 1e-5
            up = loss(exact, trees)
            exact[k][place] -= 2e-5
            assert (up - loss(exact, trees)) / 2e-5 == pytest.approx(for_vectors[0][k][place], abs=1e-3)
            exact[k][place] += 1e-5


def test_graph_concat_gradients_are_those_of_finite_differences():
    rng = np.random.RandomState(0)
    n, width, roles = 5, 3, 4
    vectors = [rng.randn(n, width).astype("f"), np.zeros((0, 0), dtype="f")]
    arcs = [np.array([[0, 1, 2], [3, 1, 0], [2, 4, 1], [4, 0, 3]]), np.zeros((0, 3), dtype="i8")]
    for_vectors, for_graphs = [], []
    graph = leaf(arcs, for_graphs)
    graph.attrs["labels"] = list("abcd")
    layer = build_graph_concat(leaf(vectors, for_vectors, nO=width), graph, role_width=2)
    layer.initialize()
    out, backprop = layer([None, None], True)
    assert [rows.shape for rows in out] == [(n, 2 * width + 2), (0, 2 * width + 2)]
    weights = rng.randn(*out[0].shape).astype("f")
    backprop([weights, np.zeros((0, 2 * width + 2), dtype="f")])
    table = layer.get_param("roles").astype("d")

    def loss(z, h, table):
        """Real valued ``z [head, dependent, label]``; the mean is over as many heads as there are."""
        count = z.sum((0, 2))
        count = np.where(count > 0, count, 1)[:, None]
        mean = np.hstack([np.einsum("ijl,ic->jc", z, h), np.einsum("ijl,lr->jr", z, table)]) / count
        return float((np.hstack([h, mean]) * weights).sum())

    z, h = np.zeros((n, n, roles)), vectors[0].astype("d")
    z[tuple(arcs[0].T)] = 1
    assert loss(z, h, table) == pytest.approx(float((out[0] * weights).sum()), abs=1e-4)
    got = for_graphs[0][0]
    of_arcs = got.dependents @ got.heads.T - got.mean[:, None]

    def slope(array, place, *arguments):
        array[place] += 1e-5
        up = loss(*arguments)
        array[place] -= 2e-5
        down = loss(*arguments)
        array[place] += 1e-5
        return (up - down) / 2e-5

    for i, j, label in np.ndindex(n, n, roles):
        if z[:, j].sum():  # for a word without heads, the count has a step at 0
            assert slope(z, (i, j, label), z, h, table) == pytest.approx(
                of_arcs[j, i] + got.labels[j, label], abs=1e-3
            )
    for place in np.ndindex(*h.shape):
        assert slope(h, place, z, h, table) == pytest.approx(for_vectors[0][0][place], abs=1e-3)
    for place in np.ndindex(*table.shape):
        assert slope(table, place, z, h, table) == pytest.approx(layer.get_grad("roles")[place], abs=1e-3)


def test_dense_gradient_can_be_given_as_a_product():
    dense = np.random.RandomState(0).randn(3, 3).astype("f")
    gradient = ArcGradient(dense, np.eye(3, dtype="f"))
    assert np.allclose(gradient.dependents @ gradient.heads.T, dense)


# ---- the gradient arrives


def test_end_task_alone_trains_the_parser():
    nlp, examples = joint(docs=categories)
    parser = nlp.get_pipe("spigot_parser")
    assert isinstance(parser, ListenedToComponent) and parser.listening_components == ["textcat"]
    before = torch_weights(nlp)
    losses = train_step(nlp, examples, SGD(0.1))
    assert losses["spigot_parser"] == 0.0 and losses["textcat"] > 0
    assert change(before, torch_weights(nlp)) > 0
    control, examples = joint(docs=categories, grad_factor=0.0)
    before = torch_weights(control)
    train_step(control, examples, SGD(0.1))
    assert change(before, torch_weights(control)) == 0


def test_gradient_is_the_surrogate_of_the_layers_gradient():
    """The scores' gradient, taken apart by hand: z - proj(z - eta * dz), equation 4."""
    from diffdecode.structure import tree_argmax as layer

    nlp, examples = joint(
        docs=categories, surrogate={"@misc": "diffdecode.spigot.v1", "eta": 0.5}, grad_factor=2.0
    )
    parser, textcat = nlp.get_pipe("spigot_parser"), nlp.get_pipe("textcat")
    captured = {}
    forward = parser.model._func

    def spy(model, docs, is_train):
        scores, backprop = forward(model, docs, is_train)

        def catch(pairs):
            captured["pairs"] = list(pairs)
            return backprop(captured["pairs"])

        captured["scores"] = scores
        return scores, catch

    parser.model._func = spy
    node = next(node for node in textcat.model.walk() if node.name == "head_concat")
    listener = node.get_ref("parse")
    listen = listener._func

    def overhear(model, docs, is_train):
        heads, backprop = listen(model, docs, is_train)

        def catch(gradients):
            captured["gradients"] = gradients
            return backprop(gradients)

        return heads, catch

    listener._func = overhear
    nlp.update(examples, sgd=False)
    for part, (tensor, gradient) in zip(captured["scores"].scores, captured["pairs"]):
        assert tensor is part.arcs
        leaf_scores = part.arcs.detach().requires_grad_()
        tree = layer(leaf_scores, part.lengths, surrogate="spigot", eta=0.5, projective=True, multi_root=True)
        dense = torch.zeros_like(tree)
        starts = np.cumsum([0, *(len(eg.predicted) for eg in examples)])
        for row, (tokens, length) in enumerate(zip(part.batch.tokens, part.batch.lengths)):
            doc = int(np.searchsorted(starts, tokens[0], side="right")) - 1
            given = captured["gradients"][doc]
            product = torch.from_numpy(given.dependents @ given.heads.T)
            dense[row, 1 : length + 1, 1 : length + 1] = product
        tree.backward(dense)
        torch.testing.assert_close(gradient, 2.0 * leaf_scores.grad)
    assert sum(float(gradient.abs().sum()) for _, gradient in captured["pairs"]) > 0


def test_mixed_batch_gradient_is_the_sum_of_both_losses():
    def gradients(parse, cats):
        def docs(vocab):
            both = parsed_docs(vocab)
            first = [only(doc, *(["cats"] if cats else [])) for doc in both[:3]]
            return first + [only(doc, *(["parse"] if parse else [])) for doc in both[3:]]

        nlp, examples = joint(docs=docs)
        losses = nlp.update(examples, sgd=False, losses={})
        return torch_gradients(nlp), losses

    both, _ = gradients(True, True)
    parse, parse_losses = gradients(True, False)
    spigot, spigot_losses = gradients(False, True)
    assert parse_losses["textcat"] == 0.0 < parse_losses["spigot_parser"]
    assert spigot_losses["spigot_parser"] == 0.0 < spigot_losses["textcat"]
    for name in both:
        zero = torch.zeros_like(both[name])
        total = parse.get(name, zero) + spigot.get(name, zero)
        torch.testing.assert_close(both[name], total, atol=1e-4, rtol=1e-4)
    assert float(parse["arc.weight"].abs().max()) > 0 < float(spigot["arc.weight"].abs().max())


@pytest.mark.parametrize(
    "surrogate",
    ["spigot", "spigot_exact", "spigot_ce", "spigot_eg", "ste", "structured_st", "perturbed", "imle"],
)
def test_every_hard_surrogate_trains_the_parser(surrogate):
    nlp, examples = joint(docs=categories, surrogate=surrogate)
    before = torch_weights(nlp)
    train_step(nlp, examples, SGD(0.1))
    assert change(before, torch_weights(nlp)) > 0


@pytest.mark.parametrize("settings", [{"surrogate": "pipeline"}, {"grad_factor": 0.0}])
def test_pipeline_surrogate_does_not(settings):
    """Not a single step, on zeros either: Adam's weight decay and momentum would move the parser."""
    nlp, examples = joint(docs=categories, **settings)
    before = {key: value.copy() for key, value in parameters(nlp.get_pipe("spigot_parser").model).items()}
    optimizer = Adam(0.05, L2=0.1, L2_is_weight_decay=True)
    for _ in range(2):
        train_step(nlp, examples, optimizer)
    for key, value in parameters(nlp.get_pipe("spigot_parser").model).items():
        np.testing.assert_array_equal(value, before[key])


def test_accumulate_gradient_adds_up():
    nlp, examples = joint()
    nlp.update(examples[:3], sgd=False)
    nlp.update(examples[3:], sgd=False)
    total = torch_gradients(nlp)
    parts = []
    for part in (slice(0, 3), slice(3, None)):
        alone, same = joint()
        alone.update(same[part], sgd=False)
        parts.append(torch_gradients(alone))
    for name, gradient in total.items():
        torch.testing.assert_close(gradient, parts[0][name] + parts[1][name], atol=1e-4, rtol=1e-4)


# ---- exactly one backward pass, and when


def test_four_listeners_and_one_backward_pass():
    nlp, examples = make_pipeline(("spigot_parser", parser_config()), *FOUR)
    parser = nlp.get_pipe("spigot_parser")
    assert parser.listening_components == ["textcat", "ner", "tagger", "spancat"]
    passes = count_backward_passes(parser)
    nlp.update(examples, sgd=False)
    assert len(passes) == 1 and gradient_size(nlp) > 0
    train_step(nlp, examples, Adam(0.01))
    assert len(passes) == 2
    assert all(doc.has_annotation("DEP") for doc in nlp.pipe([eg.reference.text for eg in examples]))


def test_textcat_multilabel_listens_too():
    config = textcat_config(head_concat())
    config["model"]["exclusive_classes"] = False
    nlp, examples = make_pipeline(
        ("spigot_parser", parser_config()), ("textcat_multilabel", config), docs=categories
    )
    nlp.update(examples, sgd=False)
    assert gradient_size(nlp) > 0


def test_stock_tok2vec_loses_gradients_when_its_last_listener_is_silent():
    """Why our batches can be closed by finish_update, too: spaCy's cannot."""
    nlp, _ = make_pipeline(
        ("tok2vec", {"model": TOK2VEC}), ("tagger", tagger_config(SHARED)), ("ner", ner_config(SHARED))
    )
    silent = []
    for doc in parsed_docs(nlp.vocab):
        silent.append(example(Doc(nlp.vocab, words=[t.text for t in doc], tags=[t.tag_ for t in doc])))
    nlp.update(silent, sgd=False)
    assert sum(np.abs(g).sum() for g in thinc_gradients(nlp.get_pipe("tok2vec").model).values()) == 0


def test_silent_last_listener_does_not_lose_the_gradient():
    nlp, examples = make_pipeline(
        ("spigot_parser", parser_config()), FOUR[0], ("ner", ner_config(head_concat())), docs=parses
    )
    passes = count_backward_passes(nlp.get_pipe("spigot_parser"))
    nlp.update(examples, sgd=False)  # no entities: ner.update returns before it calls its model
    assert passes == [] and gradient_size(nlp) == 0
    before = torch_weights(nlp)
    for _, pipe in nlp.pipeline:
        pipe.finish_update(SGD(0.1))
    assert len(passes) == 1 and change(before, torch_weights(nlp)) > 0


def test_all_listeners_silent():
    """The batch is then closed when the next one begins, or before an evaluation."""
    for close in ("update", "use_params", "to_bytes"):
        nlp, examples = make_pipeline(
            ("spigot_parser", parser_config()), ("ner", ner_config(head_concat())), docs=parses
        )
        before = torch_weights(nlp)
        train_step(nlp, examples, SGD(0.1))
        assert change(before, torch_weights(nlp)) == 0
        if close == "update":
            nlp.update(examples, sgd=False)
        elif close == "use_params":
            with nlp.use_params({(0, "no such parameter"): 0}):
                pass
        else:
            nlp.get_pipe("spigot_parser").to_bytes()
        assert change(before, torch_weights(nlp)) > 0


def test_two_backward_passes_would_count_a_shared_tok2vec_twice():
    """Why there is exactly one: spaCy's last listener passes on all that has come so far."""
    nlp, examples = make_pipeline(("tok2vec", {"model": TOK2VEC}), ("spigot_parser", parser_config(SHARED)))
    tok2vec, listener = nlp.get_pipe("tok2vec"), nlp.get_pipe("spigot_parser").model.get_ref("tok2vec")

    def gradient(parts):
        for node in tok2vec.model.walk():
            for name in node.grad_names:
                if node.has_grad(name):
                    node.set_grad(name, np.zeros_like(node.get_grad(name)))
        tok2vec.update(examples)
        vectors, backprop = listener([eg.predicted for eg in examples], True)
        for _ in range(parts):
            backprop([np.ones_like(rows) / parts for rows in vectors])
        return thinc_gradients(tok2vec.model)

    once, twice = gradient(1), gradient(2)
    largest = max(once, key=lambda key: np.abs(once[key]).max())
    assert np.abs(twice[largest]).max() / np.abs(once[largest]).max() == pytest.approx(1.5, abs=1e-3)


# ---- nlp.update(sgd=optimizer)


def test_steps_in_the_same_call_with_sgd():
    nlp, examples = joint()
    before = torch_weights(nlp)
    nlp.update(examples, sgd=SGD(0.1))
    assert change(before, torch_weights(nlp)) > 0


def test_both_ways_to_update_agree():
    results = []
    for with_sgd in (True, False):
        nlp, examples = joint()
        optimizer = SGD(0.01)
        for _ in range(3):
            if with_sgd:
                nlp.update(examples, sgd=optimizer)
            else:
                train_step(nlp, examples, optimizer)
        results.append(torch_weights(nlp))
    assert change(*results) < 1e-5


# ---- which batch


def test_batch_identity_sees_order_where_spacys_does_not():
    docs = parsed_docs(spacy.blank("xx").vocab)
    assert Tok2VecListener.get_batch_id(docs) == Tok2VecListener.get_batch_id(docs[::-1])
    assert batch_identity(docs) != batch_identity(docs[::-1])
    assert batch_identity(docs) == batch_identity([bare(doc) for doc in docs])


def test_other_documents_are_refused():
    nlp, examples = joint()
    nlp.get_pipe("spigot_parser").update(examples[:3])
    for wrong in (examples[3:], examples[:3][::-1]):
        with pytest.raises(ValueError, match="same ones in another order"):
            nlp.get_pipe("textcat").update(wrong)


def test_late_gradient_is_refused():
    nlp, examples = joint()
    parser = nlp.get_pipe("spigot_parser")
    listener = parser.listeners[0]
    parser.update(examples)
    heads, backprop = listener([eg.predicted for eg in examples], True)
    parser.update(examples)
    with pytest.raises(ValueError, match="after its next batch had begun"):
        backprop([ArcGradient(np.zeros((len(h), 2), "f"), np.zeros((len(h), 2), "f")) for h in heads])


def test_parser_can_be_frozen_between_two_batches():
    """A stock listener keeps its last batch, and then says E953."""
    stock, examples = make_pipeline(
        ("tok2vec", {"model": TOK2VEC}), ("textcat", textcat_config(SHARED)), docs=categories
    )
    stock.update(examples[:3], sgd=False)
    with pytest.raises(ValueError, match="E953"):
        stock.update(examples[3:], sgd=False, exclude=["tok2vec"], annotates=["tok2vec"])
    nlp, examples = joint()
    nlp.update(examples[:3], sgd=False)
    nlp.update(examples[3:], sgd=False, exclude=["spigot_parser"], annotates=["spigot_parser"])


# ---- frozen and annotating components


def test_frozen_parser_is_read_and_left_alone():
    """It need not be listed in annotating_components: its listener asks it for the parses."""
    losses = {}
    for annotates in ([], ["spigot_parser"]):
        nlp, examples = joint()
        before = torch_weights(nlp)
        options = {"exclude": ["spigot_parser"], "annotates": annotates}
        losses[bool(annotates)] = train_step(nlp, examples, SGD(0.1), **options)
        assert change(before, torch_weights(nlp)) == 0
    assert losses[True]["textcat"] == losses[False]["textcat"] > 0


def test_frozen_parser_on_a_shared_tok2vec_has_to_annotate():
    """Its listener cannot ask it for the parses, for it would need the tok2vec's outputs first."""
    nlp, examples = joint(shared=True)
    with pytest.raises(ValueError, match="annotating_components"):
        nlp.update(examples, sgd=False, exclude=["spigot_parser"])
    frozen = {"exclude": ["spigot_parser"], "annotates": ["tok2vec", "spigot_parser"]}
    before = torch_weights(nlp)
    assert train_step(nlp, examples, SGD(0.1), **frozen)["textcat"] > 0
    assert change(before, torch_weights(nlp)) == 0


def test_annotating_parser_that_is_not_frozen():
    nlp, examples = joint()
    train_step(nlp, examples, SGD(0.01), annotates=["spigot_parser"])
    other, same = joint()
    train_step(other, same, SGD(0.01))
    assert change(torch_weights(nlp), torch_weights(other)) == 0


def test_frozen_end_task_leaves_the_parser_its_own_loss():
    nlp, examples = joint()
    before = torch_weights(nlp)
    train_step(nlp, examples, SGD(0.01), exclude=["textcat"])
    nlp.get_pipe("spigot_parser").close_batch()
    alone, same = make_pipeline(("spigot_parser", parser_config()))
    train_step(alone, same, SGD(0.01))
    assert change(before, torch_weights(nlp)) > 0
    assert change(torch_weights(alone), torch_weights(nlp)) < 1e-6


def test_spacys_own_parser_can_be_upstream_and_gets_no_gradient():
    """The layer reads the documents, so any parser will do. What it cannot do is said once."""
    with pytest.warns(UserWarning, match="D001"):
        nlp, examples = make_pipeline(
            ("parser", {"min_action_freq": 1}),
            ("masked_textcat", textcat_config(head_concat(upstream="parser")), "textcat"),
        )
    parser, textcat = nlp.get_pipe("parser"), nlp.get_pipe("textcat")
    read = {id(node): node for node in textcat.model.walk() if node.name == "parse_listener"}
    (listener,) = read.values()
    before = {key: to_numpy(value).copy() for key, value in parameters(parser.model).items()}
    options = {"exclude": ["parser"], "annotates": ["parser"]}
    with pytest.warns(UserWarning, match="D001.*'parser'.*No gradient.*distill-parser"):
        losses = train_step(nlp, examples, SGD(0.1), **options)
    assert losses["textcat"] > 0 and before
    assert all(np.array_equal(before[key], value) for key, value in parameters(parser.model).items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_step(nlp, examples, SGD(0.1), **options)
    docs = [nlp(eg.reference.text) for eg in examples]
    heads, _ = listener(docs, True)
    assert [[t.head.i if t.head.i != t.i else -1 for t in doc] for doc in docs] == [h.tolist() for h in heads]


def test_given_parses_are_used():
    nlp, examples = joint()
    textcat = nlp.get_pipe("textcat")
    parsed = examples[0].reference
    with_parse, without = textcat.predict([parsed]), textcat.predict([bare(parsed)])
    assert not np.allclose(with_parse, without)


@pytest.mark.parametrize("parsed", [True, False])
def test_rehearsal_needs_no_parses(parsed):
    """A listener that is rehearsed reads the documents, or asks the parser. spaCy's own listeners cannot be
    rehearsed: their component has no rehearse."""
    nlp, examples = joint(textcat="textcat")
    nlp.resume_training()
    nlp.update(examples, sgd=SGD(0.1))
    if parsed:
        examples = [Example(nlp(eg.reference.text), eg.reference) for eg in examples]
    else:
        examples = [example(bare(eg.reference)) for eg in examples]
    textcat = nlp.get_pipe("textcat")
    losses = [textcat.rehearse(examples, sgd=SGD(0.02), losses={})["textcat"] for _ in range(20)]
    assert 0 < losses[-1] < losses[0]
    assert "textcat" in nlp.rehearse(examples, losses={})


def test_rehearsal_on_a_shared_tok2vec_needs_its_outputs():
    nlp, examples = make_pipeline(
        ("tok2vec", {"model": TOK2VEC}),
        ("spigot_parser", parser_config(SHARED)),
        ("textcat", textcat_config(head_concat())),
    )
    nlp.resume_training()
    with pytest.raises(ValueError, match="rehearse"):
        nlp.get_pipe("textcat").rehearse([example(bare(eg.reference)) for eg in examples], sgd=SGD(0.1))


def test_deep_copy_of_a_listener_holds_no_batch():
    nlp, examples = joint()
    nlp.get_pipe("spigot_parser").update(examples)
    copied = copy.deepcopy(nlp.get_pipe("textcat").model)
    boxes = [node.attrs["mailbox"] for node in copied.walk() if "mailbox" in node.attrs]
    assert boxes and all(box.batch_id is None for box in boxes)


# ---- empty documents


def test_empty_documents_in_every_place():
    nlp, examples = joint()
    empty = Example(nlp.make_doc(""), Doc(nlp.vocab))
    for batch in ([empty], [empty, *examples, empty], [empty, empty]):
        nlp.update(batch, sgd=SGD(0.01))
    docs = list(nlp.pipe(["", "a cat", "", " "]))
    assert [len(doc) for doc in docs] == [0, 2, 0, 1] and all(doc.cats for doc in docs)


def test_shared_tok2vec_and_empty_documents():
    nlp, examples = joint(shared=True)
    empty = Example(nlp.make_doc(""), Doc(nlp.vocab))
    nlp.update([empty, *examples], sgd=SGD(0.01))
    nlp.update([examples[0], empty], sgd=SGD(0.01))
    assert len(list(nlp.pipe(["", "a cat", ""]))) == 3


def test_mixed_batch_without_any_annotation():
    nlp, examples = joint()
    nothing = [example(bare(eg.reference)) for eg in examples]
    losses = nlp.update(nothing, sgd=SGD(0.1), losses={})
    assert losses == {"spigot_parser": 0.0, "textcat": 0.0}


# ---- a shared tok2vec


def shared_gradients(break_parser=False):
    nlp, examples = joint(shared=True)
    if break_parser:
        listener = nlp.get_pipe("spigot_parser").model.get_ref("tok2vec")
        forward = listener._func
        listener._func = lambda model, docs, is_train: (forward(model, docs, is_train)[0], lambda d: [])
    nlp.update(examples, sgd=False)
    return thinc_gradients(nlp.get_pipe("tok2vec").model)


def test_parsers_gradient_arrives_at_a_shared_tok2vec():
    """It would not if the layer gave the tok2vec its gradient first: see _head_forward."""
    with_parser, without = shared_gradients(), shared_gradients(break_parser=True)
    assert max(np.abs(with_parser[key] - without[key]).max() for key in without) > 1e-4


def test_order_that_would_lose_a_gradient_is_refused():
    parser = ("spigot_parser", parser_config(SHARED))
    textcat = ("masked_textcat", textcat_config(head_concat()), "textcat")
    tok2vec, ner = ("tok2vec", {"model": TOK2VEC}), ("ner", ner_config(SHARED))
    with pytest.raises(ValueError, match="Move 'ner' before 'spigot_parser' or after 'textcat'"):
        make_pipeline(tok2vec, parser, ner, textcat)
    make_pipeline(tok2vec, ner, parser, textcat)
    make_pipeline(tok2vec, parser, textcat, ner)


@pytest.mark.parametrize("order", ["before", "after"])
def test_allowed_orders_lose_nothing(order):
    """The parser's gradient arrives at the shared tok2vec, once."""
    parser = ("spigot_parser", parser_config(SHARED))
    textcat = ("masked_textcat", textcat_config(head_concat()), "textcat")
    tok2vec, tagger = ("tok2vec", {"model": TOK2VEC}), ("tagger", tagger_config(SHARED))
    pipes = [tok2vec, tagger, parser, textcat] if order == "before" else [tok2vec, parser, textcat, tagger]
    nlp, examples = make_pipeline(*pipes)
    listener = nlp.get_pipe("spigot_parser").model.get_ref("tok2vec")
    forward, sent = listener._func, []

    def spy(model, docs, is_train):
        vectors, backprop = forward(model, docs, is_train)
        return vectors, lambda d: (sent.append(sum(float(np.abs(rows).sum()) for rows in d)), backprop(d))[1]

    listener._func = spy
    nlp.update(examples, sgd=False)
    assert len(sent) == 1 and sent[0] > 0
    full = thinc_gradients(nlp.get_pipe("tok2vec").model)
    mute, same = make_pipeline(*pipes)
    for node in mute.get_pipe("spigot_parser").model.walk():
        if isinstance(node, Tok2VecListener):
            quiet = node._func
            node._func = lambda model, docs, is_train, quiet=quiet: _zeroed(quiet(model, docs, is_train))
    mute.update(same, sgd=False)
    muted = thinc_gradients(mute.get_pipe("tok2vec").model)
    assert full.keys() == muted.keys() and max(np.abs(full[k] - muted[k]).max() for k in full) > 1e-4


def _zeroed(result):
    vectors, backprop = result
    return vectors, lambda d: backprop([np.zeros_like(rows) for rows in d])


def test_parser_without_anything_to_learn_still_reports_to_a_shared_tok2vec():
    """It is the last one that the tok2vec waits for: silence would lose the tagger's gradient."""
    nlp, _ = make_pipeline(
        ("tok2vec", {"model": TOK2VEC}),
        ("tagger", tagger_config(SHARED)),
        ("spigot_parser", parser_config(SHARED)),
    )
    tagged = [
        example(Doc(nlp.vocab, words=[t.text for t in doc], tags=[t.tag_ for t in doc]))
        for doc in parsed_docs(nlp.vocab)
    ]
    nlp.update(tagged, sgd=False)
    assert sum(np.abs(g).sum() for g in thinc_gradients(nlp.get_pipe("tok2vec").model).values()) > 0


# ---- syntax -> semantics -> end task


def chain(docs=None, sdp=None):
    return make_pipeline(
        ("spigot_parser", parser_config()),
        ("spigot_sdp", sdp_config(head_concat(), **(sdp or {}))),
        ("masked_textcat", textcat_config(graph_concat()), "textcat"),
        docs=docs,
    )


def test_gradient_passes_through_graph_and_tree():
    nlp, examples = chain(docs=categories)
    assert nlp.get_pipe("spigot_parser").listening_components == ["spigot_sdp"]
    assert nlp.get_pipe("spigot_sdp").listening_components == ["textcat"]
    passes = [count_backward_passes(nlp.get_pipe(name)) for name in ("spigot_parser", "spigot_sdp")]
    losses = nlp.update(examples, sgd=False, losses={})
    assert losses["spigot_parser"] == losses["spigot_sdp"] == 0.0 < losses["textcat"]
    assert [len(p) for p in passes] == [1, 1]
    assert gradient_size(nlp, "spigot_sdp") > 0 < gradient_size(nlp)


@pytest.mark.parametrize("with_sgd", [True, False])
def test_chain_with_a_frozen_end(with_sgd):
    """Nobody reports to the semantic parser; both batches are closed in the right order nevertheless."""
    nlp, examples = chain()
    passes = [count_backward_passes(nlp.get_pipe(name)) for name in ("spigot_parser", "spigot_sdp")]
    before = torch_weights(nlp), torch_weights(nlp, "spigot_sdp")
    for _ in range(2):
        if with_sgd:
            nlp.update(examples, sgd=SGD(0.001), exclude=["textcat"])
        else:
            train_step(nlp, examples, SGD(0.001), exclude=["textcat"])
    nlp.get_pipe("spigot_parser").close_batch()
    assert [len(p) for p in passes] == [2, 2]
    assert change(before[0], torch_weights(nlp)) > 0 < change(before[1], torch_weights(nlp, "spigot_sdp"))


# ---- saving, sourcing, private copies


@pytest.mark.parametrize("shared", [False, True])
def test_saved_pipeline_is_the_same(tmp_path, shared):
    nlp, examples = joint(shared=shared)
    for _ in range(2):
        nlp.update(examples, sgd=Adam(0.01))
    texts = [eg.reference.text for eg in examples] + ["", " ", "one", "a " * 200]
    expected = predictions(nlp.pipe(texts))
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert loaded.get_pipe("spigot_parser").listening_components == ["textcat"]
    assert predictions(loaded.pipe(texts)) == expected
    assert predictions(loaded.pipe(texts, batch_size=2)) == expected
    loaded.update(examples, sgd=False)
    assert gradient_size(loaded) > 0
    assert predictions(loaded.pipe(texts, n_process=2, batch_size=3)) == expected


def test_sourced_components_find_each_other():
    nlp, examples = joint()
    nlp.update(examples, sgd=Adam(0.01))
    new = spacy.blank("xx")
    new.add_pipe("spigot_parser", source=nlp)
    new.add_pipe("textcat", source=nlp)
    assert new.get_pipe("spigot_parser").listening_components == ["textcat"]
    texts = [eg.reference.text for eg in examples]
    assert predictions(new.pipe(texts)) == predictions(nlp.pipe(texts))
    new.update(examples, sgd=False)
    assert gradient_size(new) > 0


def test_replaced_listener_is_a_private_parser(tmp_path):
    spigot = {"@misc": "diffdecode.spigot.v1", "eta": 0.25}
    nlp, examples = joint(projective=False, surrogate=spigot, grad_factor=0.5)
    for _ in range(2):
        nlp.update(examples, sgd=Adam(0.01))
    texts = [eg.reference.text for eg in examples]
    expected = [doc.cats for doc in nlp.pipe(texts)]
    nlp.replace_listeners("spigot_parser", "textcat", ["model.tok2vec.parse"])
    assert nlp.get_pipe("spigot_parser").listeners == []
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    for given in (nlp, loaded):
        for doc, cats in zip(given.pipe(texts), expected):
            assert doc.cats == pytest.approx(cats, abs=1e-5)
    parse = loaded.config["components"]["textcat"]["model"]["tok2vec"]["parse"]
    assert parse["@architectures"] == "diffdecode.StandaloneParse.v1"
    assert (parse["projective"], parse["surrogate"]["eta"], parse["grad_factor"]) == (False, 0.25, 0.5)
    private = next(
        node.shims[0].module
        for node in loaded.get_pipe("textcat").model.walk()
        if node.name == "biaffine_parser"
    )
    before, mine = torch_weights(loaded), private.arc.weight.detach().clone()
    surprising = [bare(doc) for doc in parsed_docs(loaded.vocab)]
    for doc, gold in zip(surprising, parsed_docs(loaded.vocab)):
        doc.cats = {"POS": gold.cats["NEG"], "NEG": gold.cats["POS"]}
    train_step(loaded, [example(doc) for doc in surprising], SGD(0.5))
    assert change(before, torch_weights(loaded)) == 0
    assert float((private.arc.weight.detach() - mine).abs().max()) > 0


def test_pipes_of_other_kinds_are_not_listened_to():
    nlp, _ = chain()
    assert all(isinstance(nlp.get_pipe(name), ListenedPipe) for name in ("spigot_parser", "spigot_sdp"))
    kinds = {
        name: {node.attrs["mailbox"].kind for node in nlp.get_pipe(name).listeners}
        for name in ("spigot_parser", "spigot_sdp")
    }
    assert kinds == {"spigot_parser": {"parse"}, "spigot_sdp": {"graph"}}


def test_upstream_wildcard():
    nlp, _ = make_pipeline(
        ("spigot_parser", parser_config(), "my_parser"),
        ("masked_textcat", textcat_config(head_concat(upstream="*")), "textcat"),
    )
    assert nlp.get_pipe("my_parser").listening_components == ["textcat"]


def test_listener_can_be_removed():
    nlp, _ = joint()
    parser = nlp.get_pipe("spigot_parser")
    (listener,) = parser.listeners
    assert parser.remove_listener(listener, "textcat") and not parser.listening_components
    assert not parser.remove_listener(listener, "textcat")


def test_use_averages_evaluates_both_kinds_of_layers():
    nlp, examples = joint()
    optimizer = Adam(0.05, use_averages=True)
    for _ in range(4):
        train_step(nlp, examples, optimizer)
    before = copy.deepcopy(module_of(nlp).state_dict())
    with warnings.catch_warnings(), nlp.use_params(optimizer.averages):
        assert not torch.equal(before["arc.weight"], module_of(nlp).state_dict()["arc.weight"])
