"""Several graphs on one document: semantic parsers of each, and listeners that read the right one."""

import pickle

import numpy as np
import pytest
import spacy
from spacy import registry
from spacy.tokens import Doc
from spacy.util import fix_random_seed
from spacy.vocab import Vocab
from thinc.api import Adam, Model
from toy_pipelines import (
    SHARED,
    TOK2VEC,
    bare,
    example,
    graph_concat,
    learn,
    parsed_docs,
    sdp_config,
    textcat_config,
    thinc_gradients,
)

from spacy_components.ml.listening.mailbox import listening_nodes
from spacy_components.sdp_graph import get_graph, graph_keys, set_graph
from spacy_components.training.scorers import weights_by_key

# ---- listeners alone


def listener(**options):
    settings = {"@architectures": "diffdecode.GraphListener.v1", "labels": ["A", "B"], **options}
    return registry.resolve({"model": settings})["model"]


def doc_of_two_graphs():
    doc = Doc(Vocab(), words=["a", "b", "c"])
    set_graph(doc, [(0, 1, "A")])
    set_graph(doc, [(2, 1, "B")], key="psd")
    return doc


@pytest.mark.parametrize(("key", "arcs"), [("", [[0, 1, 0]]), ("sdp", [[0, 1, 0]]), ("psd", [[2, 1, 1]])])
def test_a_listener_reads_the_graph_of_its_key(key, arcs):
    model = listener(key=key)
    other = Model.from_bytes(listener(), model.to_bytes())
    for reader in (model, model.copy(), pickle.loads(pickle.dumps(model)), other):
        (rows,) = reader.predict([doc_of_two_graphs()])
        assert rows.tolist() == arcs


def test_a_document_without_the_graph_of_the_key_is_an_error():
    with pytest.raises(ValueError, match="has none"):
        listener(key="ccd").predict([doc_of_two_graphs()])
    with pytest.raises(ValueError, match="cannot be the key of a graph"):
        listener(key="a b")


# ---- semantic parsers, side by side


def docs_of_two_kinds(vocab):
    """Each document has its graph as ``dm``, and as ``psd`` with the arcs turned round and other labels."""
    docs = parsed_docs(vocab)
    for doc in docs:
        graph = get_graph(doc)
        set_graph(doc, graph.arcs, graph.top, "dm")
        turned = {(dep, head, "mwe-psd" if label == "mwe" else "PAT") for head, dep, label in graph.arcs}
        set_graph(doc, turned, graph.top, "psd")
        doc._.sdp = None
    return docs


def two_parsers(upstream, key=""):
    """``dm`` and ``psd``, and a classifier that listens to the one named."""
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    for name in ("dm", "psd"):
        nlp.add_pipe("spigot_sdp", name=name, config=sdp_config(key=name))
    tok2vec = graph_concat(upstream=upstream)
    tok2vec["graph"]["key"] = key
    nlp.add_pipe("masked_textcat", name="textcat", config=textcat_config(tok2vec))
    examples = [example(doc) for doc in docs_of_two_kinds(nlp.vocab)]
    nlp.initialize(lambda: examples)
    return nlp, examples


@pytest.fixture(scope="module")
def trained():
    nlp, examples = two_parsers("psd")

    def learned(_):
        scores = nlp.evaluate(examples)
        return scores["dm_lm"] == scores["psd_lm"] == 1.0

    learn(nlp, examples, Adam(0.03), learned, at_most=60)
    return nlp, examples


def test_each_parser_learns_and_writes_its_own_graph(trained):
    nlp, examples = trained
    for eg in examples:
        doc = nlp(bare(eg.reference))
        assert graph_keys(doc) == ["dm", "psd"]
        assert all(get_graph(doc, key) == get_graph(eg.reference, key) for key in ("dm", "psd"))
    assert nlp.get_pipe("dm").labels == ("ARG1", "ARG2", "mwe")
    assert nlp.get_pipe("psd").labels == ("PAT", "mwe-psd")


def test_each_parser_is_scored_by_its_own_graph(trained):
    nlp, examples = trained
    scores = nlp.evaluate(examples)
    assert scores["dm_lf"] == scores["psd_lf"] == 1.0 and set(scores["psd_lf_per_type"]) == {"PAT", "mwe-psd"}
    assert not any(name.startswith("sdp_") for name in scores)


def test_the_scores_that_training_shows_and_weighs_are_there(trained):
    nlp, examples = trained
    weights, scores = nlp.config["training"]["score_weights"], nlp.evaluate(examples)
    assert {name for name, weight in weights.items() if weight is not None} <= set(scores)
    assert weights["dm_lf"] == weights["psd_lf"] > 0
    assert weights["sdp_lf"] is weights["dm_lf_per_type"] is None


@pytest.mark.parametrize(
    ("before", "keys", "after"),
    [
        ({"sdp_lf": 0.5, "dep_uas": 0.5}, ["dm"], {"sdp_lf": None, "dm_lf": 0.5, "dep_uas": 0.5}),
        ({"sdp_lf": 0.5}, ["sdp", "dm"], {"sdp_lf": 0.5, "dm_lf": 0.5}),
        ({"sdp_lf": 1.0, "dm_lf": 0.2, "dm_uf": 0.8}, ["dm"], {"sdp_lf": None, "dm_lf": 0.2, "dm_uf": 0.8}),
        ({"sdp_lf": None, "dm_lf": 0.2}, ["dm", "psd"], {"sdp_lf": None, "dm_lf": 0.2, "psd_lf": None}),
        ({"sdp_lf": 1.0}, ["sdp"], {"sdp_lf": 1.0}),
    ],
)
def test_what_a_config_says_of_a_key_stays(before, keys, after):
    weights_by_key(before, keys)
    assert {name: before[name] for name in after} == after
    assert all(before[name] is None for name in set(before) - set(after))
    again = dict(before)
    weights_by_key(again, keys)
    assert again == before


@pytest.mark.parametrize("upstream", ["dm", "psd", "*"])
def test_a_listener_reads_the_graph_of_its_upstream(upstream):
    nlp, examples = two_parsers(upstream)
    (listener,) = listening_nodes(nlp.get_pipe("textcat"))
    key = "psd" if upstream == "*" else upstream  # the nearest one before
    for eg in examples:
        (rows,) = listener.predict([eg.reference])
        graph, labels = get_graph(eg.reference, key), nlp.get_pipe(key).labels
        assert {(head, dep, labels[label]) for head, dep, label in rows.tolist()} == set(graph.arcs)


def shared_gradients(order, keys, together=True):
    """Of a tok2vec that the parsers share, beside one of their own, where documents have these graphs."""
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    nlp.add_pipe("tok2vec", config={"model": TOK2VEC})
    for name in order:
        encoders = {"@layers": "concatenate.v1", "*": {"shared": SHARED, "own": TOK2VEC}}
        nlp.add_pipe("spigot_sdp", name=name, config=sdp_config(encoders if together else SHARED, key=name))
    examples = [example(doc) for doc in docs_of_two_kinds(nlp.vocab)]
    nlp.initialize(lambda: examples)
    for eg in examples:
        for key in {"dm", "psd"} - set(keys):
            eg.reference._.set(key, None)
    nlp.update(examples, sgd=False)
    return thinc_gradients(nlp.get_pipe("tok2vec").model)


@pytest.mark.parametrize("order", [("dm", "psd"), ("psd", "dm")])
def test_a_shared_encoder_learns_from_whichever_graph_a_batch_has(order):
    """Also where the last parser that listens to it has no graph in the batch, and so no loss."""
    both, *alone = (shared_gradients(order, keys, False) for keys in (("dm", "psd"), ("dm",), ("psd",)))
    for place, gradient in both.items():
        np.testing.assert_allclose(sum(one[place] for one in alone), gradient, rtol=1e-3, atol=1e-4)
    assert all(max(np.abs(g).max() for g in one.values()) > 0.01 for one in alone)
    concatenated = shared_gradients(order, ("dm",))
    assert max(np.abs(g).max() for g in concatenated.values()) > 0.01


def test_what_a_listener_was_told_is_saved(trained, tmp_path):
    nlp, examples = trained
    nlp.to_disk(tmp_path / "nlp")
    copies = [spacy.load(tmp_path / "nlp", exclude=exclude) for exclude in ([], ["dm", "psd"])]
    expected = [nlp(bare(eg.reference)).cats for eg in examples]
    for copy in [*copies, pickle.loads(pickle.dumps(nlp))]:
        docs = [bare(eg.reference) for eg in examples]
        if "psd" not in copy.pipe_names:  # the graphs come with the documents
            for doc, eg in zip(docs, examples):
                for key in ("dm", "psd"):
                    set_graph(doc, *get_graph(eg.reference, key), key)
        assert [doc.cats for doc in copy.pipe(docs)] == [pytest.approx(cats) for cats in expected]


def test_a_listener_of_another_graph_is_refused():
    assert two_parsers("psd", key="psd")
    with pytest.raises(ValueError, match="'textcat' reads graphs of key 'dm', 'psd' makes 'psd'"):
        two_parsers("psd", key="dm")


def test_what_is_no_key_is_refused():
    with pytest.raises(ValueError, match=r"'spigot_sdp': 'a b' cannot be the key of a graph"):
        spacy.blank("xx").add_pipe("spigot_sdp", config={"key": "a b"})


def test_no_graph_of_the_key_is_named():
    nlp = spacy.blank("xx")
    nlp.add_pipe("spigot_sdp", config=sdp_config(key="ccd"))
    with pytest.raises(ValueError, match=r"no label found.*doc\._\.ccd"):
        nlp.initialize(lambda: [example(doc) for doc in docs_of_two_kinds(nlp.vocab)])
