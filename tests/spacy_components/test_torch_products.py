"""thinc's layers with torch's matrix products do what they do with thinc's own."""

import numpy as np
import pytest
import spacy
from thinc.api import NumpyOps, fix_random_seed

from spacy_components.ml.thinc_glue.hash_embed_cnn import build_hash_embed_cnn
from spacy_components.ml.thinc_glue.torch_products import TorchProducts, with_torch_products


@pytest.mark.parametrize("trans2", [False, True])
@pytest.mark.parametrize("trans1", [False, True])
@pytest.mark.parametrize("n, m, k", [(3, 5, 4), (1, 1, 1), (0, 5, 4), (3, 5, 0)])
def test_products_are_those_of_numpy(n, m, k, trans1, trans2):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(n, m)).astype("float32"), draw.normal(size=(m, k)).astype("float32")
    x.flags.writeable = False  # as parameters that were loaded may be
    left, right = x.T if trans1 else x, y.T if trans2 else y  # not contiguous, either
    found = TorchProducts().gemm(left, right, trans1=trans1, trans2=trans2)
    assert found.dtype == np.float32 and found.shape == (n, k)
    np.testing.assert_allclose(found, x @ y, atol=1e-6)


def test_a_product_is_written_where_it_is_wanted():
    x, out = np.arange(6, dtype="float32").reshape(2, 3), np.full((3, 3), 7, dtype="float32")
    assert TorchProducts().gemm(x, x, out=out, trans1=True) is out
    np.testing.assert_array_equal(out, x.T @ x)


def test_the_encoder_gives_the_vectors_and_gradients_of_spacys():
    fix_random_seed(0)
    docs = [spacy.blank("en").make_doc(text) for text in ("Nobody saw the man .", "", "He left")]
    ours = build_hash_embed_cnn(width=8, depth=2, embed_size=20)
    ours.initialize(X=docs)
    assert {type(node.ops) for node in ours.walk()} == {TorchProducts}
    stock = ours.copy()
    stock._to_ops(NumpyOps())
    outputs = []
    for model in (ours, stock):
        vectors, backprop = model.begin_update(docs)
        backprop([rows + 1 for rows in vectors])
        gradients = [node.get_grad(name) for node in model.walk() for name in node.grad_names]
        outputs.append([*vectors, *gradients])
    assert len(outputs[0]) == len(docs) + 16
    for mine, theirs in zip(*outputs):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_products_made_for_a_processor_stay():
    class OtherOps(NumpyOps):
        pass

    model = build_hash_embed_cnn(width=8, depth=1, embed_size=20)
    for node in model.walk():
        node.ops = OtherOps()
    assert {type(node.ops) for node in with_torch_products(model).walk()} == {OtherOps}
