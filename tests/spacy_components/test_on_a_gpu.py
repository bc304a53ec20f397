"""spaCy's components on a GPU: the CPU's results, and a number of waits that no document adds to."""

from contextlib import contextmanager

import numpy as np
import pytest
import spacy
import torch
import toy_pipelines as toy
from accelerators import Cuda, StandIn
from spacy.tokens import Doc
from standin_cupy import standin_gpu
from thinc.api import Adam, require_cpu, to_numpy

from spacy_components.ml.batch_size import ARCS_PER_GPU_BATCH, arcs_per_batch
from spacy_components.ml.thinc_glue.parameters import parameters

WORD_DROPOUT = {
    "@architectures": "spacy.Tok2Vec.v2",
    "embed": {
        "@architectures": "diffdecode.WordDropoutEmbed.v1",
        "width": 8,
        "attrs": ["NORM", "SUFFIX"],
        "rows": [50, 50],
        "word_dropout": 0.0,
    },
    "encode": {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": 8,
        "window_size": 1,
        "maxout_pieces": 2,
        "depth": 1,
    },
}


def parser_and(*others, tok2vec=toy.TOK2VEC, **settings):
    return [("spigot_parser", toy.parser_config(tok2vec, **settings)), *others]


def graphs_and(*others, **settings):
    return [("spigot_sdp", toy.sdp_config(**settings)), *others]


def textcat_on(tok2vec):
    return ("masked_textcat", toy.textcat_config(tok2vec), "textcat")


PIPELINES = {
    "confidence": lambda: parser_and(confidence=["head_probs", "tree_entropy"]),
    "likelihood, word dropout, textcat": lambda: parser_and(
        textcat_on(toy.head_concat()), tok2vec=WORD_DROPOUT, loss="likelihood", projective=False
    ),
    "cross entropy, shared": lambda: [
        ("tok2vec", {"model": toy.TOK2VEC}),
        *parser_and(textcat_on(toy.head_concat(toy.SHARED)), tok2vec=toy.SHARED, loss="cross_entropy"),
    ],
    "tree concat, spancat, tagger": lambda: parser_and(
        textcat_on(toy.tree_concat("mean", grandparent=True)),
        ("masked_spancat", toy.spancat_config(toy.head_concat())),
        ("tagger", toy.tagger_config(toy.head_concat())),
    ),
    "structured attention": lambda: parser_and(
        textcat_on(toy.soft_head_concat()), ("tagger", toy.tagger_config(toy.head_concat()))
    ),
    "graphs": lambda: graphs_and(textcat_on(toy.graph_concat())),
    "both directions, deterministic": lambda: graphs_and(
        textcat_on(toy.graph_concat(dependents=True)), loss="likelihood", deterministic=["ARG1"]
    ),
    "two graphs together": lambda: [
        ("joint_sdp", toy.joint_config(own=toy.TOK2VEC)),
        textcat_on(toy.graph_concat(upstream="joint_sdp", key="eud")),
    ],
}
"""Every loss, layer and kind of component, several in one pipeline."""


@contextmanager
def on_gpu(kind):
    """The context in which a pipeline is made and used on a GPU."""
    if kind == "standin":
        with standin_gpu() as card:
            yield StandIn(card)
        return
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("cupy", reason="spaCy on a GPU needs CuPy")
    spacy.require_gpu()
    try:
        yield Cuda()
    finally:
        require_cpu()


@pytest.fixture(params=["standin", pytest.param("cuda", marks=pytest.mark.gpu)])
def kind(request):
    return request.param


def weights(nlp):
    return [
        np.array(to_numpy(value))
        for _, pipe in nlp.pipeline
        if hasattr(pipe, "model")
        for value in parameters(pipe.model).values()
    ]


def trained(nlp, examples, steps=2):
    optimizer = Adam(0.01)
    return [toy.train_step(nlp, examples, optimizer) for _ in range(steps)]


def parses(nlp, examples):
    docs = list(nlp.pipe([eg.text for eg in examples]))
    return [([(t.head.i, t.dep_) for t in doc], doc._.sdp, dict(doc.cats)) for doc in docs]


@pytest.mark.parametrize("name", PIPELINES)
def test_a_gpu_trains_and_parses_as_a_cpu_does(kind, name):
    nlp, examples = toy.make_pipeline(*PIPELINES[name]())
    before = nlp.to_bytes()
    losses, found = trained(nlp, examples), parses(nlp, examples)
    with on_gpu(kind):
        there, same_examples = toy.make_pipeline(*PIPELINES[name]())
        there.from_bytes(before)
        their_losses = trained(there, same_examples)
        after = there.to_bytes()
        their_weights, their_parses = weights(there), parses(there, same_examples)
    for mine, theirs in zip(losses, their_losses):
        assert theirs == pytest.approx(mine, rel=1e-3, abs=1e-4)
    for mine, theirs in zip(weights(nlp), their_weights):
        np.testing.assert_allclose(theirs, mine, atol=2e-3)
    nlp.from_bytes(after)  # saved on a card, loaded on a CPU
    saved_parses = parses(nlp, examples)
    for (*decided, cats), (*theirs, their_cats), (*saved, saved_cats) in zip(
        found, their_parses, saved_parses
    ):
        assert decided == theirs == saved
        assert their_cats == pytest.approx(cats, abs=1e-3)
        assert saved_cats == pytest.approx(their_cats, abs=1e-3)


def docs_of(nlp, count):
    """Documents of three lengths, among them one without words."""
    words = "a small dog barks at the very old house".split()
    lengths = [len(words), 3, 0, 5]
    return [Doc(nlp.vocab, words=words[: lengths[i % 4]]) for i in range(count)]


@pytest.mark.parametrize("confidence", [[], ["head_probs", "tree_entropy"]])
def test_the_number_of_documents_adds_no_wait_to_parsing(kind, confidence):
    with on_gpu(kind) as gpu:
        nlp, _ = toy.make_pipeline(*parser_and(textcat_on(toy.head_concat()), confidence=confidence))
        parser = nlp.get_pipe("spigot_parser")
        few, many = (len(gpu.waits(parser.predict, docs_of(nlp, count))) for count in (4, 16))
        assert few == many <= 8
        few, many = (len(gpu.waits(list, nlp.pipe(docs_of(nlp, count)))) for count in (4, 16))
        assert few == many <= 10


@pytest.mark.parametrize("loss", ["hinge", "likelihood", "cross_entropy"])
def test_the_number_of_documents_adds_no_wait_to_training(kind, loss):
    with on_gpu(kind) as gpu:
        nlp, examples = toy.make_pipeline(
            *parser_and(textcat_on(toy.tree_concat()), loss=loss, surrogate="structured_st")
        )
        optimizer = Adam(0.01)
        toy.train_step(nlp, examples, optimizer)
        few, many = (len(gpu.waits(toy.train_step, nlp, examples * n, optimizer)) for n in (1, 3))
        assert few == many <= 8


@pytest.mark.parametrize("layer", ["head_concat", "tree_concat"])
def test_layers_start_a_constant_number_of_kernels(layer):
    """But for the one by which spaCy's own layers bring each document's features to the GPU."""
    with on_gpu("standin") as gpu:
        nlp, _ = toy.make_pipeline(*parser_and(textcat_on(getattr(toy, layer)())))
        textcat = nlp.get_pipe("textcat")
        docs = [nlp.get_pipe("spigot_parser")(doc) for doc in docs_of(nlp, 48) if len(doc)]
        for step in (textcat.predict, textcat.model.begin_update):
            few, many = gpu.kernels(step, docs[:6]), gpu.kernels(step, docs[:36])
            assert many - few <= 30


@pytest.mark.parametrize("name", ["graphs", "both directions, deterministic", "two graphs together"])
def test_the_number_of_documents_adds_no_wait_to_graphs(kind, name):
    with on_gpu(kind) as gpu:
        nlp, examples = toy.make_pipeline(*PIPELINES[name]())
        parser, optimizer = nlp.get_pipe(nlp.pipe_names[0]), Adam(0.01)
        few, many = (len(gpu.waits(parser.predict, docs_of(nlp, count))) for count in (4, 16))
        assert few == many <= 8
        toy.train_step(nlp, examples, optimizer)
        few, many = (len(gpu.waits(toy.train_step, nlp, examples * n, optimizer)) for n in (1, 3))
        # One more where predicates want a deterministic label twice, as the scores will have it.
        assert abs(few - many) <= 1 and max(few, many) <= 10


def test_batches_on_a_gpu_are_cut_by_its_memory_and_not_by_a_cpus_cache():
    scorer = torch.nn.Linear(2, 2)
    assert arcs_per_batch(scorer) == 50_000
    with on_gpu("standin"):
        assert arcs_per_batch(scorer.to("card")) == ARCS_PER_GPU_BATCH
        nlp, _ = toy.make_pipeline(*parser_and())
        docs = [Doc(nlp.vocab, words=["a"] * 30) for _ in range(200)]
        scores = nlp.get_pipe("spigot_parser").model.predict(docs)
        assert len(scores.scores) == 1
    nlp, _ = toy.make_pipeline(*parser_and())
    docs = [Doc(nlp.vocab, words=["a"] * 30) for _ in range(200)]
    assert len(nlp.get_pipe("spigot_parser").model.predict(docs).scores) == 4
