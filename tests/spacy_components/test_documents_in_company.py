"""Alone as in company: batch mates, their order, batch size, threads and processes change nothing."""

from functools import cache

import numpy as np
import pytest
import torch
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import SGD, to_numpy
from toy_pipelines import (
    TOK2VEC,
    bare,
    graph_concat,
    head_concat,
    joint_config,
    make_pipeline,
    ner_config,
    only,
    parsed_docs,
    parser_config,
    sdp_config,
    soft_head_concat,
    spancat_config,
    tagger_config,
    textcat_config,
    tree_concat,
)

from spacy_components.sdp_graph import get_graph

PARSER, SDP = ("spigot_parser", parser_config()), ("spigot_sdp", sdp_config())
LAYERS = {"tree": (PARSER, head_concat()), "graph": (SDP, graph_concat())}
END_TASKS = {
    "masked_textcat": lambda layer: ("masked_textcat", textcat_config(layer), "end"),
    "masked_textcat_multilabel": lambda layer: (
        "masked_textcat_multilabel",
        textcat_config(layer, exclusive=False),
        "end",
    ),
    "textcat": lambda layer: ("textcat", textcat_config(layer), "end"),
    "tagger": lambda layer: ("tagger", tagger_config(layer), "end"),
    "ner": lambda layer: ("ner", ner_config(layer), "end"),
    "spancat": lambda layer: ("spancat", spancat_config(layer), "end"),
    "masked_spancat": lambda layer: ("masked_spancat", spancat_config(layer), "end"),
}
READS = {
    "masked_textcat": LAYERS,
    "masked_textcat_multilabel": ["tree"],
    "textcat": ["graph"],
    "tagger": LAYERS,
    "ner": ["tree"],
    "spancat": ["tree"],
    "masked_spancat": ["graph"],
}
"""Each task reads one of them, two tasks read both: a layer gives every task the same kind of vectors."""
PIPELINES = {
    "parser": [PARSER],
    "nonprojective": [("spigot_parser", parser_config(projective=False, multi_root=False))],
    "sdp": [SDP],
    "joint": [("joint_sdp", joint_config())],
    "joint-own": [
        ("joint_sdp", joint_config(own=TOK2VEC)),
        END_TASKS["tagger"](graph_concat(upstream="joint_sdp", key="eud")),
    ],
    "chain": [PARSER, ("spigot_sdp", sdp_config(head_concat())), END_TASKS["masked_textcat"](graph_concat())],
    **{
        f"{task}-{layer}": [LAYERS[layer][0], END_TASKS[task](LAYERS[layer][1])]
        for task, layers in READS.items()
        for layer in layers
    },
    "tagger-attention": [PARSER, END_TASKS["tagger"](soft_head_concat())],
    "tagger-children": [PARSER, END_TASKS["tagger"](tree_concat("mean", grandparent=True))],
    "tagger-dependents": [SDP, END_TASKS["tagger"](graph_concat(dependents=True))],
}
TEXTS = [
    "the small cat saw a dog .",
    "",
    "run",
    " \n\n ",
    "dogs bark . she gave him the old book yesterday .  go !",
    "\t",
    "she saw",
    "",
    " go\n!",
    "him",
]
LONG = " ".join("a man with a telescope saw the boy .".split() * 33)


@cache
def pipeline(name):
    nlp, examples = make_pipeline(*PIPELINES[name])
    for _ in range(3):
        nlp.update(examples, sgd=SGD(0.01))
    return nlp, examples


def found(doc, with_cats=True):
    """Decisions, and the classifier's scores. spaCy's textcat gives an empty document zeros when it is alone,
    and a score of no words in company; masked_textcat does not."""
    graphs = [get_graph(doc, key) for key in ("sdp", "dm", "eud")]
    decisions = (
        [token.head.i for token in doc],
        [token.dep_ for token in doc],
        [token.tag_ for token in doc],
        [token.ent_iob_ + token.ent_type_ for token in doc],
        sorted((span.start, span.end, span.label_) for span in doc.spans.get("sc", [])),
        [None if graph is None else (graph.arcs, graph.top) for graph in graphs],
        [bool(token.is_sent_start) for token in doc],
    )
    return decisions, doc.cats if with_cats or len(doc) else {}


def assert_same(docs, expected, **options):
    for doc, (decisions, cats) in zip(docs, expected, strict=True):
        got = found(doc, **options)
        assert got[0] == decisions, doc.text[:40]
        assert got[1] == pytest.approx(cats, abs=1e-5), doc.text[:40]


@pytest.mark.parametrize(("name", "threads"), [*((name, 1) for name in PIPELINES), ("parser", 2)])
def test_prediction(name, threads):
    nlp, _ = pipeline(name)
    options = {"with_cats": not name.startswith("textcat")}
    texts = [*TEXTS, LONG] if name in ("parser", "nonprojective") else TEXTS
    torch.set_num_threads(threads)
    try:
        expected = [found(nlp(text), **options) for text in texts]
        for size in (2, 3, len(texts)):
            assert_same(nlp.pipe(texts, batch_size=size), expected, **options)
        order = np.random.RandomState(0).permutation(len(texts))
        mixed = nlp.pipe([texts[i] for i in order], batch_size=4)
        assert_same(mixed, [expected[i] for i in order], **options)
        assert_same(
            nlp.pipe(["", " ", ""]), [expected[1], found(nlp(" "), **options), expected[1]], **options
        )
    finally:
        torch.set_num_threads(1)


def test_prediction_in_two_processes():
    nlp, _ = pipeline("chain")
    expected = [found(nlp(text)) for text in TEXTS]
    assert_same(nlp.pipe(TEXTS, n_process=2, batch_size=3), expected)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("task", ["masked_textcat", "tagger"])
def test_prediction_of_private_copies(task, layer):
    nlp, _ = make_pipeline(*PIPELINES[f"{task}-{layer}"])
    name, slot = PIPELINES[f"{task}-{layer}"][0][0], {"tree": "parse", "graph": "graph"}[layer]
    with_listener = [found(nlp(text)) for text in TEXTS]
    nlp.replace_listeners(name, "end", [f"model.tok2vec.{slot}"])
    expected = [found(nlp(text)) for text in TEXTS]
    assert_same(nlp.pipe(TEXTS), with_listener)
    for size in (1, 3, len(TEXTS)):
        assert_same(nlp.pipe(TEXTS, batch_size=size), expected)


# ---- gradients: those of a batch are the sum of those of its documents


def gradients(nlp, examples):
    """Of all parameters of all components, from one batch."""
    take_gradients(nlp)  # the pipeline is shared: an earlier test may have left some
    nlp.update(examples, sgd=False)
    for _, pipe in nlp.pipeline:
        if hasattr(pipe, "close_batch"):
            pipe.close_batch()
    return take_gradients(nlp)


def take_gradients(nlp):
    """What has been collected so far, which is then zero again."""
    total = {}
    for name, pipe in nlp.pipeline:
        for i, node in enumerate(pipe.model.walk()):
            for key in node.grad_names:
                if node.has_grad(key):
                    total[name, i, key] = np.array(to_numpy(node.get_grad(key)), dtype="d")
                    node.set_grad(key, node.ops.xp.zeros_like(node.get_grad(key)))
            for shim in node.shims:
                for key, value in shim.module.named_parameters():
                    if value.grad is not None:
                        total[name, i, key] = value.grad.double().numpy().copy()
                        value.grad = None
    return total


def summed(parts):
    total = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0) + value
    return total


def assert_equal_gradients(one, other):
    assert any(np.abs(value).max() > 1e-4 for value in one.values())
    for key in one.keys() | other.keys():
        value, reference = one.get(key, 0.0), other.get(key, 0.0)
        np.testing.assert_allclose(value, reference, atol=2e-5, rtol=2e-4, err_msg=str(key))


def nothing(nlp):
    """Documents that say nothing: without annotation, without words."""
    texts = ("a cat barks at the telescope", "", " \n", "run", "dogs " * 40)
    return [Example(nlp.make_doc(text), nlp.make_doc(text)) for text in texts]


SUMS = [name for name in PIPELINES if not name.startswith("ner")]
"""spaCy's ner cuts its sequences at random, and has another gradient each time."""


@pytest.mark.parametrize("name", SUMS)
def test_gradient_of_a_batch_is_the_sum_of_its_documents(name):
    nlp, examples = pipeline(name)
    parts = [gradients(nlp, [example]) for example in examples]
    assert_equal_gradients(gradients(nlp, examples), summed(parts))
    assert_equal_gradients(gradients(nlp, examples[::-1]), summed(parts))
    thirds = [gradients(nlp, examples[start::3]) for start in range(3)]
    assert_equal_gradients(summed(thirds), summed(parts))


MASKED = [name for name in SUMS if not name.startswith(("textcat", "spancat"))]


@pytest.mark.parametrize("name", MASKED)
def test_mates_that_say_nothing_change_nothing(name):
    nlp, examples = pipeline(name)
    expected = gradients(nlp, examples)
    mates = nothing(nlp)
    assert_equal_gradients(gradients(nlp, [*mates[:2], *examples[:3], *mates[2:], *examples[3:]]), expected)


@pytest.mark.parametrize("name", ["chain", "masked_textcat-tree", "masked_textcat-graph"])
def test_mates_that_say_something_else_change_nothing(name):
    """Half the corpus has trees, half has categories, and a third part has graphs."""
    nlp, _ = pipeline(name)
    docs = parsed_docs(nlp.vocab)
    kinds = ["parse", "cats", "graph", "parse", "cats", "graph"]
    mixed = [Example(bare(doc), only(doc, kind)) for doc, kind in zip(docs, kinds)]
    apart = [
        [example for example, of in zip(mixed, kinds) if of == kind] for kind in ("parse", "cats", "graph")
    ]
    assert_equal_gradients(gradients(nlp, mixed), summed(gradients(nlp, part) for part in apart if part))


def test_losses_of_the_parsers_are_sums():
    for name in ("parser", "sdp"):
        nlp, examples = pipeline(name)
        pipe = PIPELINES[name][0][0]
        whole = nlp.update(examples, sgd=False, losses={})[pipe]
        parts = sum(nlp.update([example], sgd=False, losses={})[pipe] for example in examples)
        assert whole == pytest.approx(parts, rel=1e-5)
        mates = nlp.update([*nothing(nlp), *examples], sgd=False, losses={})[pipe]
        assert mates == pytest.approx(whole, rel=1e-5)


def test_empty_document_has_no_category():
    nlp, _ = pipeline("masked_textcat-tree")
    for docs in (nlp.pipe([""]), nlp.pipe(["", "run"]), nlp.pipe(["a dog", ""])):
        for doc in docs:
            assert bool(len(doc)) == any(doc.cats.values()) and set(doc.cats) == {"NEG", "POS"}


def test_no_documents_at_all():
    for name in PIPELINES:
        nlp, _ = pipeline(name)
        assert list(nlp.pipe([])) == []
        for _, pipe in nlp.pipeline:
            pipe.set_annotations([], pipe.predict([]))
    assert isinstance(nlp(""), Doc)
