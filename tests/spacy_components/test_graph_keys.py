"""Listeners that read the one graph of several that they are meant to."""

import pickle

import pytest
from spacy import registry
from spacy.tokens import Doc
from spacy.vocab import Vocab
from thinc.api import Model

from spacy_components.sdp_graph import set_graph


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
