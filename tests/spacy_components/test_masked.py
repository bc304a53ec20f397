"""The masked components: documents without the annotation give no loss and no gradient."""

import pickle

import numpy as np
import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example
from thinc.api import Adam, fix_random_seed

from spacy_components.ml.thinc_glue.parameters import parameters
from spacy_components.pipeline import masked_spancat, masked_textcat  # noqa: F401 - registers the factories
from spacy_components.training import scorers  # noqa: F401 - registers the scorers

TOK2VEC = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 16,
    "depth": 1,
    "embed_size": 200,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": False,
}
TEXTCAT = {
    "@architectures": "spacy.TextCatReduce.v1",
    "exclusive_classes": True,
    "use_reduce_first": False,
    "use_reduce_last": False,
    "use_reduce_max": False,
    "use_reduce_mean": True,
    "tok2vec": TOK2VEC,
}
SPANCAT = {
    "@architectures": "spacy.SpanCategorizer.v1",
    "tok2vec": TOK2VEC,
    "reducer": {"@layers": "spacy.mean_max_reducer.v1", "hidden_size": 8},
    "scorer": {"@layers": "spacy.LinearLogistic.v1"},
}
MODELS = {
    "textcat": TEXTCAT,
    "textcat_multilabel": TEXTCAT | {"exclusive_classes": False},
    "spancat": SPANCAT,
}
MASKED = [f"masked_{task}" for task in MODELS]


def annotated(nlp, text, good=None, spans=None):
    doc = Doc(nlp.vocab, words=text.split())
    if good is not None:
        doc.cats = {"good": float(good), "bad": float(not good)}
    if spans is not None:
        doc.spans["sc"] = [Span(doc, start, end, label=label) for start, end, label in spans]
    return Example(Doc(nlp.vocab, words=text.split()), doc)


def corpus(nlp):
    labelled = [annotated(nlp, "nice film", good=True, spans=[(0, 1, "OPINION")])]
    labelled += [annotated(nlp, "dull long film", good=False, spans=[(0, 1, "OPINION"), (1, 3, "THING")])]
    return labelled, [annotated(nlp, "the parser has trees"), annotated(nlp, "for these")]


def made(factory):
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    pipe = nlp.add_pipe(factory, config={"model": MODELS[factory.removeprefix("masked_")]})
    labelled, unlabelled = corpus(nlp)
    nlp.initialize(lambda: [*labelled, *unlabelled])
    return nlp, pipe, labelled, unlabelled


def gradient(pipe, examples):
    """Loss and all gradients of one update without a step. Output layers start at 0: random weights first."""
    state = np.random.default_rng(0)
    for node in pipe.model.walk():
        for name in node.param_names:
            if node.has_param(name):
                node.set_param(name, state.normal(size=node.get_param(name).shape).astype("float32") * 0.3)
                node.set_grad(name, np.zeros_like(node.get_param(name)))
    losses = pipe.update(examples)
    grads = [n.get_grad(name) for n in pipe.model.walk() for name in n.param_names if n.has_grad(name)]
    return losses[pipe.name], np.concatenate([grad.ravel() for grad in grads])


@pytest.mark.parametrize("task", ["textcat", "spancat"])
def test_stock_component_learns_from_documents_that_nobody_annotated(task):
    _, pipe, _, unlabelled = made(task)
    loss, grad = gradient(pipe, unlabelled)
    assert loss > 0.01 and np.abs(grad).max() > 1e-3


@pytest.mark.parametrize("task", MASKED)
def test_masked_component_gets_nothing_from_unannotated_documents(task):
    _, pipe, labelled, unlabelled = made(task)
    loss, grad = gradient(pipe, unlabelled)
    assert loss == 0.0 and not grad.any()
    alone, mixed = gradient(pipe, labelled), gradient(pipe, [unlabelled[0], *labelled, unlabelled[1]])
    assert mixed[0] == pytest.approx(alone[0], rel=1e-5) and alone[0] > 0
    np.testing.assert_allclose(mixed[1], alone[1], atol=1e-5)


@pytest.mark.parametrize("task", MODELS)
def test_masked_component_is_the_stock_one_where_everything_is_annotated(task):
    _, stock, labelled, _ = made(task)
    _, masked, again, _ = made(f"masked_{task}")
    loss, grad = gradient(stock, labelled)
    masked_loss, masked_grad = gradient(masked, again)
    assert masked_loss == pytest.approx(loss) and np.abs(grad).max() > 1e-3
    np.testing.assert_array_equal(masked_grad, grad)


def test_an_empty_group_of_spans_is_an_annotation():
    nlp, pipe, _, _ = made("masked_spancat")
    loss, grad = gradient(pipe, [annotated(nlp, "nothing here", spans=[])])
    assert loss > 0.01 and np.abs(grad).max() > 1e-3


def test_empty_documents_and_batches():
    for task in MASKED:
        nlp, pipe, labelled, _ = made(task)
        empty = Example(Doc(nlp.vocab), Doc(nlp.vocab))
        assert pipe.update([empty])[pipe.name] == 0.0
        assert np.isfinite(pipe.update([empty, *labelled])[pipe.name])


def test_multilabel_loss_and_score_leave_out_what_nobody_annotated():
    """spaCy's gradient does so, too; its loss is a mean over all documents, its score without gold 0."""
    _, stock, labelled, unlabelled = made("textcat_multilabel")
    _, masked, *_ = made("masked_textcat_multilabel")
    mixed = [*labelled, *unlabelled]
    (loss, grad), (alone, _) = gradient(stock, mixed), gradient(stock, labelled)
    masked_loss, masked_grad = gradient(masked, mixed)
    assert loss == pytest.approx(alone / 2) and masked_loss == pytest.approx(alone)
    np.testing.assert_array_equal(masked_grad, grad)
    assert stock.score(unlabelled)["cats_score"] == 0.0 and masked.score(unlabelled)["cats_score"] is None


def test_multilabel_categories_that_a_document_does_not_mention_are_unknown():
    nlp, pipe, _, _ = made("masked_textcat_multilabel")
    partly = annotated(nlp, "nice film")
    partly.reference.cats = {"good": 1.0}
    scores = pipe.model.ops.asarray2f([[0.25, 0.75]])
    _, d_scores = pipe.get_loss([partly], scores)
    assert list(zip(pipe.labels, d_scores[0].tolist())) == [("good", -0.75), ("bad", 0.0)]


def test_multilabel_gives_a_document_several_categories_and_an_empty_one_none():
    nlp, _, labelled, unlabelled = made("masked_textcat_multilabel")
    labelled[0].reference.cats = {"good": 1.0, "bad": 1.0}
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.02
    for _ in range(60):
        nlp.update([*unlabelled, *labelled], sgd=optimizer)
    both, one, empty = (doc.cats for doc in nlp.pipe(["nice film", "dull long film", ""]))
    assert min(both.values()) > 0.5 and one["bad"] > 0.5 > one["good"] and set(empty.values()) == {0.0}
    scores = nlp.evaluate([*labelled, *unlabelled])
    assert scores["cats_micro_f"] == 1.0 and scores["cats_acc"] is None
    reloaded = spacy.blank("xx").from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert reloaded("nice film").cats == both


def test_both_learn_from_a_corpus_where_no_document_has_both():
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    for name in ("masked_textcat", "masked_spancat"):
        nlp.add_pipe(name, config={"model": MODELS[name.removeprefix("masked_")]})
    examples = [annotated(nlp, "nice film", good=True), annotated(nlp, "dull film", good=False)]
    examples += [annotated(nlp, "nice long film", spans=[(0, 1, "OPINION"), (1, 3, "THING")])]
    examples += [annotated(nlp, "no words of it"), annotated(nlp, "dull story", spans=[(0, 1, "OPINION")])]
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.02
    for _ in range(40):
        nlp.update(examples, sgd=optimizer)
    scores = nlp.evaluate(examples)
    assert scores["cats_acc"] == 1.0 and scores["spans_sc_f"] == 1.0
    reloaded = spacy.blank("xx").from_config(nlp.config).from_bytes(nlp.to_bytes())
    doc, again = nlp("nice long film"), reloaded("nice long film")
    assert again.cats == doc.cats and [s.label_ for s in again.spans["sc"]] == ["OPINION", "THING"]


@pytest.mark.parametrize("task", MODELS)
def test_a_component_may_have_a_learning_rate_of_its_own(task):
    def step(**config):
        fix_random_seed(0)
        nlp = spacy.blank("xx")
        pipe = nlp.add_pipe(f"masked_{task}", config={"model": MODELS[task], **config})
        labelled, _ = corpus(nlp)
        nlp.initialize(lambda: labelled)
        before = {key: value.copy() for key, value in parameters(pipe.model).items()}
        nlp.update(labelled, sgd=Adam(0.01, L2=0.0))
        after = parameters(pipe.model)
        assert pickle.loads(pickle.dumps(pipe)).step_size == pipe.step_size
        return [after[key] - value for key, value in before.items()]

    for whole, tenth in zip(step(), step(step_size=0.1), strict=True):
        np.testing.assert_allclose(0.1 * whole, tenth, atol=1e-6)


def test_a_learning_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"'masked_textcat': step_size must be above 0, got 0"):
        spacy.blank("xx").add_pipe("masked_textcat", config={"step_size": 0.0})
