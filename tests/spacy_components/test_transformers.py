"""Transformers under the parser: tiny ones, made here with random weights, so nothing is downloaded."""

from typing import NamedTuple

import numpy as np
import pytest
import spacy
from spacy.training import Example
from thinc.api import SGD, Adam
from toy_pipelines import (
    SENTENCES,
    TOK2VEC,
    change,
    head_concat,
    make_pipeline,
    only,
    parsed_docs,
    parser_config,
    textcat_config,
    torch_weights,
    train_step,
)

from spacy_components.ml.thinc_glue.parameters import parameters

WIDTH = 16


def vocabulary():
    """Words whole, and letters for the rest."""
    words = sorted({word for text, *_ in SENTENCES for word in text.split()})
    letters = [start + letter for letter in "abcdefghijklmnopqrstuvwxyz" for start in ("", "##")]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(words[1:] + letters)]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A file of word pieces."""
    path = tmp_path_factory.mktemp("pieces") / "vocab.txt"
    path.write_text("\n".join(vocabulary()))
    return path


class Kind(NamedTuple):
    """How a package's transformer is put into a pipeline."""

    transformer: tuple
    listener: dict
    initialize: dict = {}


@pytest.fixture(scope="module")
def spacy_transformers(pieces):
    pytest.importorskip("spacy_transformers", reason="needs diffdecode[transformers]")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary()), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(pieces.parent)
    BertTokenizerFast(str(pieces)).save_pretrained(pieces.parent)
    model = {
        "@architectures": "spacy-transformers.TransformerModel.v3",
        "name": str(pieces.parent),
        "tokenizer_config": {"use_fast": True},
        "get_spans": {"@span_getters": "spacy-transformers.strided_spans.v1", "window": 32, "stride": 24},
    }
    listener = {
        "@architectures": "spacy-transformers.TransformerListener.v1",
        "grad_factor": 1.0,
        "upstream": "*",
        "pooling": {"@layers": "reduce_mean.v1"},
    }
    return Kind(("transformer", {"model": model}), listener)


@pytest.fixture(scope="module")
def curated_transformers(pieces):
    pytest.importorskip("spacy_curated_transformers", reason="needs spacy-curated-transformers 0.3")
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("spacy-curated-transformers 0.3.1 cannot train on numpy 2.4 (float of an array of one)")
    name = "spacy-curated-transformers"
    model = {
        "@architectures": f"{name}.BertTransformer.v1",
        "vocab_size": len(vocabulary()),
        "hidden_width": WIDTH,
        "intermediate_width": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
        "piece_encoder": {"@architectures": f"{name}.BertWordpieceEncoder.v1"},
        "with_spans": {"@architectures": f"{name}.WithStridedSpans.v1", "stride": 24, "window": 32},
    }
    listener = {
        "@architectures": f"{name}.LastTransformerLayerListener.v1",
        "width": WIDTH,
        "pooling": {"@layers": "reduce_mean.v1"},
        "upstream": "*",
        "grad_factor": 1.0,
    }
    loader = {"@model_loaders": f"{name}.WordpieceLoader.v1", "path": str(pieces)}
    return Kind(
        ("curated_transformer", {"model": model}, "transformer"),
        listener,
        {"transformer": {"piecer_loader": loader}},
    )


@pytest.fixture(params=["spacy_transformers", "curated_transformers"])
def kind(request):
    return request.getfixturevalue(request.param)


def categories(vocab):
    return [only(doc, "cats") for doc in parsed_docs(vocab)]


def pipeline(kind, *, shared=False, docs=None, **settings):
    """A transformer under the parser, and under the classifier if it is ``shared``."""
    textcat = textcat_config(head_concat(kind.listener if shared else TOK2VEC))
    return make_pipeline(
        kind.transformer,
        ("spigot_parser", parser_config(kind.listener, **settings)),
        ("masked_textcat", textcat, "textcat"),
        docs=docs,
        initialize=kind.initialize,
    )


def movement(nlp, examples, **options):
    """How far each parameter of the transformer goes in one step of size 1."""
    model = nlp.get_pipe("transformer").model
    before = {key: np.array(value) for key, value in parameters(model).items()}
    losses = train_step(nlp, examples, SGD(1.0, L2=0.0, grad_clip=0.0), **options)
    after = parameters(model)
    return np.array([np.abs(after[key] - value).sum() for key, value in before.items()]), losses


def test_end_task_reaches_the_transformer_through_the_hard_parse(kind):
    """The classifier has vectors of its own, so there is no other way for its gradient to go."""
    nlp, examples = pipeline(kind, docs=categories)
    moved, losses = movement(nlp, examples)
    assert losses["spigot_parser"] == 0.0 < losses["textcat"]
    assert (moved > 0).sum() > 20
    control, same = pipeline(kind, docs=categories, surrogate="pipeline")
    assert movement(control, same)[0].max() == 0


def test_width_is_known_at_the_first_document(kind):
    nlp, _ = pipeline(kind)
    assert nlp.get_pipe("spigot_parser").model.shims[0].cfg["width"] == WIDTH


@pytest.mark.parametrize("shared", [False, True])
def test_saved_pipeline_is_the_same(kind, shared, tmp_path):
    nlp, examples = pipeline(kind, shared=shared)
    for _ in range(3):
        losses = train_step(nlp, examples, Adam(0.003))
    assert np.isfinite(list(losses.values())).all()
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    texts = [eg.reference.text for eg in examples] + ["an unseen sentence", ""]
    for before, after in zip(nlp.pipe(texts), loaded.pipe(texts)):
        assert [(t.head.i, t.dep_) for t in before] == [(t.head.i, t.dep_) for t in after]
        assert before.cats == after.cats
    again = [Example(loaded.make_doc(eg.reference.text), eg.reference) for eg in examples]
    assert movement(loaded, again)[0].max() > 0


def test_shared_transformer_gets_both_gradients(kind):
    """The classifier's own, and, from the same backward pass, the one that comes through the parse."""

    def moved(**settings):
        nlp, examples = pipeline(kind, shared=True, docs=categories, **settings)
        before = torch_weights(nlp)
        moved, _ = movement(nlp, examples)
        return moved, change(before, torch_weights(nlp))

    with_parse, parser = moved()
    without, control = moved(surrogate="pipeline")
    assert parser > 0 == control
    assert np.abs(with_parse - without).max() > 1e-6 < without.max()


def test_order_that_would_lose_a_gradient_is_refused(kind):
    textcat = textcat_config(head_concat())
    tagger = ("tagger", {"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": kind.listener}})
    with pytest.raises(ValueError, match="Move 'tagger' before 'spigot_parser' or after 'textcat'"):
        make_pipeline(
            kind.transformer,
            ("spigot_parser", parser_config(kind.listener)),
            tagger,
            ("masked_textcat", textcat, "textcat"),
            initialize=kind.initialize,
        )


def test_drift_is_measured_where_the_transformer_is_the_parsers_own(kind):
    nlp, examples = pipeline(kind, drift="kl")
    with pytest.raises(ValueError, match="replace_listeners"):
        train_step(nlp, examples, SGD(0.1))
    nlp, examples = pipeline(kind, drift="kl")
    nlp.replace_listeners("transformer", "spigot_parser", ["model.tok2vec"])
    nlp.remove_pipe("transformer")
    for _ in range(2):
        losses = train_step(nlp, examples, SGD(0.001))
    assert 0 < losses["spigot_parser_drift"] < 10
