"""spigot_sdp: what it learns, what it writes, and what listens to it."""

import itertools

import numpy as np
import pytest
import spacy
import torch
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from thinc.api import SGD, Adam
from toy_pipelines import (
    SEGMENTER,
    TOK2VEC,
    bare,
    change,
    example,
    graph_concat,
    head_concat,
    learn,
    make_pipeline,
    only,
    parsed_docs,
    parser_config,
    sdp_config,
    textcat_config,
    torch_gradients,
    torch_weights,
    train_step,
)

from diffdecode.structure import graph_argmax as graph_layer
from spacy_components.ml.graphs.losses import GRAPH_LOSSES
from spacy_components.ml.segments import segment_docs, whole_docs
from spacy_components.pipeline.gold_graphs import aligned_arcs, gold_batch
from spacy_components.sdp_graph import get_graph, set_graph
from spacy_components.training.graph_labels import TOP, label_inventory, read_graph_labels


def sdp(tok2vec=TOK2VEC, docs=None, **settings):
    return make_pipeline(("spigot_sdp", sdp_config(tok2vec, **settings)), docs=docs)


def joint(docs=None, **settings):
    return make_pipeline(
        ("spigot_sdp", sdp_config(**settings)),
        ("masked_textcat", textcat_config(graph_concat()), "textcat"),
        docs=docs,
    )


def categories(vocab):
    return [only(doc, "cats") for doc in parsed_docs(vocab)]


# ---- learning


@pytest.mark.parametrize("loss", sorted(GRAPH_LOSSES))
def test_sdp_overfits(loss):
    nlp, examples = sdp(loss=loss)

    def learned(_):
        return nlp.evaluate(examples)["sdp_lm"] == 1.0

    learn(nlp, examples, Adam(0.03), learned, at_most=80)
    for given, gold in zip(nlp.pipe([bare(eg.reference) for eg in examples]), examples):
        assert get_graph(given) == get_graph(gold.reference)
    scores = nlp.evaluate(examples)
    assert scores["sdp_lf"] == scores["sdp_uf"] == scores["sdp_lm"] == 1.0


@pytest.mark.parametrize("syntax", [False, True])
def test_neurbo_parser_overfits_with_and_without_syntax(syntax):
    model = {
        "@architectures": "diffdecode.NeurboParser.v1",
        "hidden_width": 16,
        "lstm_width": 12,
        "lstm_depth": 2,
        "tok2vec": head_concat() if syntax else TOK2VEC,
        "segmenter": SEGMENTER,
    }
    parser = [("spigot_parser", parser_config())] if syntax else []
    nlp, examples = make_pipeline(*parser, ("spigot_sdp", {"model": model, "loss": "likelihood"}))
    optimizer = Adam(0.02)
    first = nlp.update(examples, sgd=optimizer, losses={})["spigot_sdp"]

    def learned(losses):
        return losses["spigot_sdp"] < first / 4 and nlp.evaluate(examples)["sdp_lf"] > 0.8

    learn(nlp, examples, optimizer, learned, at_most=70)
    assert learned(nlp.update(examples, sgd=False, losses={}))


def test_documents_without_a_graph_give_no_loss_and_no_gradient():
    nlp, examples = sdp()
    losses = nlp.update([example(bare(eg.reference)) for eg in examples], sgd=False, losses={})
    assert losses == {"spigot_sdp": 0.0} and not torch_gradients(nlp, "spigot_sdp")


def test_empty_graph_is_annotation():
    nlp, _ = sdp()
    doc = Doc(nlp.vocab, words=["a", "small", "cat"])
    set_graph(doc, [])
    losses = nlp.update([example(doc)], sgd=False, losses={})
    assert losses["spigot_sdp"] > 0


def test_settings_are_checked():
    nlp = spacy.blank("xx")
    with pytest.raises(ValueError, match=r"no loss 'crf'.*local"):
        nlp.add_pipe("spigot_sdp", config={"loss": "crf"})
    with pytest.raises(ValueError, match="structured_st"):
        nlp.add_pipe("spigot_sdp", config={"surrogate": "marginals"})


def test_needs_a_label():
    nlp = spacy.blank("xx")
    nlp.add_pipe("spigot_sdp", config=sdp_config())
    with pytest.raises(ValueError, match="no label found"):
        nlp.initialize(lambda: [example(only(doc, "parse")) for doc in parsed_docs(nlp.vocab)])


# ---- labels and determinism


def test_determinism_list_comes_from_the_data():
    vocab = spacy.blank("xx").vocab
    one, two = Doc(vocab, words=list("abcd")), Doc(vocab, words=list("abcd"))
    set_graph(one, [(0, 1, "A"), (0, 2, "A"), (0, 3, "B"), (1, 3, "B")], top=[0, 1])
    set_graph(two, [(2, 1, "C")], top=[2])
    found = label_inventory([one, two, Doc(vocab, words=["x"])])
    assert found == {"labels": ["A", "B", "C"], "deterministic": ["B", "C"]}
    assert TOP in label_inventory([two])["deterministic"]


@pytest.mark.parametrize("deterministic", [None, [], ["ARG1"]])
def test_deterministic_labels_are_used_once_by_a_predicate(deterministic):
    nlp, _ = sdp(deterministic=deterministic)
    pipe = nlp.get_pipe("spigot_sdp")
    with torch.no_grad():  # every word wants to be the ARG1 of every predicate
        module = pipe.model.shims[0].module
        module.label.form.zero_()
        module.label.form[-1, pipe.labels.index("ARG1"), -1] = 5.0
        module.label.form[-1, pipe.labels.index("mwe"), -1] = 3.0
    doc = pipe(Doc(nlp.vocab, words=["a", "b", "c", "d"]))
    uses = [sum(label == "ARG1" for h, _, label in get_graph(doc).arcs if h == head) for head in range(4)]
    if deterministic == ["ARG1"]:
        assert max(uses) == 1 and all(len(label) for *_, label in get_graph(doc).arcs)
    elif deterministic == []:
        assert max(uses) == 3


def test_labels_and_determinism_of_a_file(tmp_path):
    nlp, _ = sdp()
    docs = parsed_docs(nlp.vocab)
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "train.spacy")
    assert read_graph_labels(tmp_path / "train.spacy") == label_inventory(docs)
    assert label_inventory(docs) == nlp.get_pipe("spigot_sdp").label_data


def test_label_data_round_trip():
    nlp, _ = sdp()
    pipe = nlp.get_pipe("spigot_sdp")
    fresh = spacy.blank("xx")
    again = fresh.add_pipe("spigot_sdp", config=sdp_config())
    again.initialize(lambda: [example(only(doc)) for doc in parsed_docs(fresh.vocab)], labels=pipe.label_data)
    assert again.labels == pipe.labels and again.deterministic == pipe.deterministic


def test_tops_have_their_own_label():
    nlp, examples = sdp()
    pipe = nlp.get_pipe("spigot_sdp")
    scores = pipe.model.predict([eg.predicted for eg in examples])
    for part in scores.scores:
        labels = part.parts.labels[:, 1:]
        assert (labels[:, :, 0, :-1] == -torch.inf).all() and (labels[:, :, 1:, -1] == -torch.inf).all()
        assert torch.isfinite(labels[:, :, 0, -1]).all() and torch.isfinite(labels[:, :, 1:, :-1]).all()
    with pytest.raises(ValueError, match="cannot take more"):
        pipe.add_label("new")


# ---- prediction


def test_graphs_do_not_depend_on_the_batch():
    nlp, examples = sdp()
    optimizer = Adam(0.02)
    for _ in range(10):
        nlp.update(examples, sgd=optimizer)
    texts = [eg.reference.text for eg in examples] + ["", " ", "one", "a  dog\n barks", "b " * 120]
    alone = [get_graph(nlp(text)) for text in texts]
    assert sum(len(graph.arcs) for graph in alone) > 0
    for batch_size in (1, 3, 1000):
        assert [get_graph(doc) for doc in nlp.pipe(texts, batch_size=batch_size)] == alone
    assert [get_graph(doc) for doc in nlp.pipe(texts, n_process=2, batch_size=3)] == alone


def test_white_space_has_no_arcs():
    nlp, examples = sdp()
    for _ in range(10):
        nlp.update(examples, sgd=Adam(0.05))
    doc = nlp("the  small\ncat saw a dog .")
    spaces = {t.i for t in doc if t.is_space}
    graph = get_graph(doc)
    assert len(spaces) == 2 and not spaces & ({i for h, d, _ in graph.arcs for i in (h, d)} | set(graph.top))


def test_empty_documents():
    nlp, examples = joint()
    empty = Example(nlp.make_doc(""), Doc(nlp.vocab))
    for batch in ([empty], [empty, *examples[:2]], [empty, empty]):
        nlp.update(batch, sgd=SGD(0.01))
    assert [len(doc) for doc in nlp.pipe(["", "go", ""])] == [0, 1, 0]
    assert nlp.get_pipe("spigot_sdp").predict([]) == []


# ---- gold graphs


def test_gold_graph_on_other_tokens():
    vocab = spacy.blank("xx").vocab
    gold = Doc(vocab, words=["do", "n't", "go", "now"], spaces=[False, True, True, False])
    set_graph(gold, [(2, 0, "A"), (2, 3, "B")], top=[2])
    eg = Example(Doc(vocab, words=["don't", "go", "now"], spaces=[True, True, False]), gold)
    arcs, known = aligned_arcs([eg, eg], ["A", "B", TOP])
    assert sorted(map(tuple, arcs)) == [(-1, 1, 2), (-1, 4, 2), (1, 2, 1), (4, 5, 1)]
    assert known.tolist() == [False, True, True] * 2


def test_gold_batch_masks_what_is_not_known():
    vocab = spacy.blank("xx").vocab
    docs = [Doc(vocab, words=list("abc")), Doc(vocab, words=list("de"))]
    (batch,) = segment_docs(docs, whole_docs()).batches
    arcs = np.array([[0, 1, 0], [-1, 0, 2], [1, 3, 1], [4, 3, 1]])  # the third leaves its document
    known = np.array([True, True, False, True, True])
    labels, annotated = gold_batch(batch, arcs, known)
    assert sorted(map(tuple, np.argwhere(labels >= 0))) == [(0, 1, 0), (0, 2, 1), (1, 1, 2)]
    assert annotated[0].tolist() == [[True, True, True, False]] * 3 + [[False] * 4]
    assert annotated[1].tolist() == [[True, True, True, False]] * 3 + [[False] * 4]


@pytest.mark.parametrize("loss", sorted(GRAPH_LOSSES))
def test_unknown_tokens_get_no_gradient(loss):
    nlp, _ = sdp(loss=loss)
    pipe = nlp.get_pipe("spigot_sdp")
    gold = Doc(nlp.vocab, words=["do", "n't", "go", "now"], spaces=[False, True, True, False])
    set_graph(gold, [(2, 3, "ARG1")], top=[2])
    eg = Example(Doc(nlp.vocab, words=["don't", "go", "now"], spaces=[True, True, False]), gold)
    scores, _ = pipe.model.begin_update([eg.predicted])
    (part,) = scores.scores
    for tensor in part.parts:
        tensor.retain_grad()
    _, ((total, _),) = pipe.get_loss([eg], scores)
    total.backward()
    arcs = part.parts.arcs.grad[0]
    assert (arcs[1] == 0).all() and (arcs[:, 1] == 0).all() and (arcs[2:, 2:] != 0).any()
    labels = part.parts.labels.grad[0]
    assert torch.isfinite(labels).all() and (labels[1] == 0).all() and (labels[:, 1] == 0).all()


# ---- listening


def test_end_task_alone_trains_the_semantic_parser():
    nlp, examples = joint(docs=categories)
    assert nlp.get_pipe("spigot_sdp").listening_components == ["textcat"]
    before = torch_weights(nlp, "spigot_sdp")
    losses = train_step(nlp, examples, SGD(0.1))
    assert losses["spigot_sdp"] == 0.0 < losses["textcat"]
    assert change(before, torch_weights(nlp, "spigot_sdp")) > 0


@pytest.mark.parametrize("surrogate", ["spigot", "spigot_ce", "spigot_eg", "ste", "structured_st"])
def test_other_surrogates(surrogate):
    nlp, examples = joint(docs=categories, surrogate=surrogate, deterministic=[])
    before = torch_weights(nlp, "spigot_sdp")
    train_step(nlp, examples, SGD(0.1))
    assert change(before, torch_weights(nlp, "spigot_sdp")) > 0


def test_delivered_graph_and_gradient_are_those_of_the_layer():
    """What the listener delivers is the argmax, and what goes back is the surrogate of the dense gradient."""
    nlp, examples = joint(
        docs=categories, surrogate={"@misc": "diffdecode.spigot.v1", "eta": 0.5}, grad_factor=3.0
    )
    pipe = nlp.get_pipe("spigot_sdp")
    docs = [eg.predicted for eg in examples]
    scores, _ = pipe.model.begin_update(docs)
    decision = pipe.decide(scores)
    delivered = decision.outputs(pipe.model.ops)
    starts = np.cumsum([0, *map(len, docs)])
    rng = np.random.RandomState(0)
    width, labels = 3, len(pipe.labels)
    gradients = [
        (
            rng.randn(len(doc), width).astype("f"),
            rng.randn(len(doc), width).astype("f"),
            rng.randn(len(doc), labels).astype("f"),
            rng.randn(len(doc)).astype("f"),
        )
        for doc in docs
    ]
    from spacy_components.ml.listening.gradients import GraphGradient

    decision.add([GraphGradient(*parts) for parts in gradients])
    pairs = {id(tensor): gradient for tensor, gradient in decision.pairs()}
    for part in scores.scores:
        leaves = [tensor.detach().requires_grad_() for tensor in part.parts]
        z = graph_layer(
            leaves[1], leaves[2], leaves[0], part.lengths, surrogate="spigot", eta=0.5,
            deterministic=pipe.deterministic,
        )  # fmt: skip
        by_arcs, by_labels = torch.zeros_like(z.arcs), torch.zeros_like(z.labels)
        for row, (tokens, length) in enumerate(zip(part.batch.tokens, part.batch.lengths)):
            doc = int(np.searchsorted(starts, tokens[0], side="right")) - 1
            arcs = {tuple(arc) for arc in delivered[doc].tolist()}
            for j, i in itertools.product(range(1, length + 1), range(1, length + 1)):
                found = [label for label in range(labels) if (i - 1, j - 1, label) in arcs]
                assert bool(found) == bool(z.arcs[row, j, i]) and all(
                    z.labels[row, j, i, k] == 1 for k in found
                )
                dependents, heads, of_labels, mean = gradients[doc]
                by_arcs[row, j, i] = float(dependents[j - 1] @ heads[i - 1] - mean[j - 1])
                by_labels[row, j, i, :-1] = torch.from_numpy(of_labels[j - 1])
        torch.autograd.backward((z.arcs, z.labels), (by_arcs, by_labels))
        for tensor, leaf in zip(part.parts, leaves):
            torch.testing.assert_close(pairs[id(tensor)], 3.0 * leaf.grad, atol=1e-5, rtol=1e-4)


def test_labels_of_the_listener_come_from_upstream():
    nlp, _ = joint()
    pipe = nlp.get_pipe("spigot_sdp")
    layer = next(node for node in nlp.get_pipe("textcat").model.walk() if node.name == "graph_concat")
    assert pipe.listeners[0].attrs["labels"] == list(pipe.labels)
    assert layer.get_param("roles").shape == (len(pipe.labels), 4)
    lonely = spacy.blank("xx")
    lonely.add_pipe("masked_textcat", config=textcat_config(graph_concat()))
    with pytest.raises(ValueError, match=r"spigot_sdp.* earlier"):
        lonely.initialize(lambda: [example(doc) for doc in parsed_docs(lonely.vocab)])


def test_frozen_semantic_parser_is_read_and_left_alone():
    losses = {}
    for annotates in ([], ["spigot_sdp"]):
        nlp, examples = joint()
        before = torch_weights(nlp, "spigot_sdp")
        options = {"exclude": ["spigot_sdp"], "annotates": annotates}
        losses[bool(annotates)] = train_step(nlp, examples, SGD(0.1), **options)
        assert change(before, torch_weights(nlp, "spigot_sdp")) == 0
    assert losses[True]["textcat"] == losses[False]["textcat"] > 0


# ---- saving


def results(docs):
    return [(get_graph(doc), {k: round(v, 4) for k, v in doc.cats.items()}) for doc in docs]


def test_saved_pipeline_is_the_same(tmp_path):
    nlp, examples = joint()
    for _ in range(3):
        nlp.update(examples, sgd=Adam(0.02))
    texts = [eg.reference.text for eg in examples] + ["", "one", "a " * 100]
    expected = results(nlp.pipe(texts))
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert results(loaded.pipe(texts)) == expected
    assert loaded.get_pipe("spigot_sdp").label_data == nlp.get_pipe("spigot_sdp").label_data
    loaded.update(examples, sgd=False)
    assert torch_gradients(loaded, "spigot_sdp")


def test_replaced_listener_is_a_private_parser(tmp_path):
    nlp, examples = joint()
    for _ in range(3):
        nlp.update(examples, sgd=Adam(0.02))
    texts = [eg.reference.text for eg in examples]
    expected = [doc.cats for doc in nlp.pipe(texts)]
    nlp.replace_listeners("spigot_sdp", "textcat", ["model.tok2vec.graph"])
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    graph = loaded.config["components"]["textcat"]["model"]["tok2vec"]["graph"]
    assert graph["@architectures"] == "diffdecode.StandaloneGraph.v1"
    for given in (nlp, loaded):
        for doc, cats in zip(given.pipe(texts), expected):
            assert doc.cats == pytest.approx(cats, abs=1e-4)
    before = torch_weights(loaded, "spigot_sdp")
    private = next(
        node.shims[0].module
        for node in loaded.get_pipe("textcat").model.walk()
        if node.name == "biaffine_graph_parser"
    )
    mine = private.arc.form.detach().clone()
    surprising = [bare(doc) for doc in parsed_docs(loaded.vocab)]
    for doc, gold in zip(surprising, parsed_docs(loaded.vocab)):
        doc.cats = {"POS": gold.cats["NEG"], "NEG": gold.cats["POS"]}
    train_step(loaded, [example(doc) for doc in surprising], SGD(0.5))
    assert change(before, torch_weights(loaded, "spigot_sdp")) == 0
    assert float((private.arc.form.detach() - mine).abs().max()) > 0
