"""Parameters and losses that are NaN or infinite stop training and prediction, with their name."""

import pytest
import torch
from spacy.training import Example
from thinc.api import SGD
from toy_pipelines import (
    SHARED,
    TOK2VEC,
    bare,
    example,
    graph_concat,
    head_concat,
    joint_config,
    make_pipeline,
    module_of,
    only,
    parsed_docs,
    parser_config,
    sdp_config,
    textcat_config,
)

from spacy_components.ml.thinc_glue.finite import NotFinite, require_finite
from spacy_components.ml.thinc_glue.parameters import parameters

PIPES = {"spigot_parser": parser_config(), "spigot_sdp": sdp_config(), "joint_sdp": joint_config()}


def spoilt(model, number):
    """Each parameter of the model with one number in it changed, one after the other."""
    for value in parameters(model).values():
        kept = value.copy()
        value[...] = number
        yield
        value[...] = kept


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", PIPES)
def test_any_parameter_that_is_no_number_is_found(name, number):
    """In training as in prediction; where it makes no difference nothing has to be said."""
    nlp, examples = make_pipeline((name, PIPES[name]))
    pipe, docs = nlp.get_pipe(name), [bare(doc) for doc in parsed_docs(nlp.vocab)]
    for doc in docs:
        pipe(doc)
    found = 0
    for _ in spoilt(pipe.model, number):
        for use in (lambda: pipe.predict(docs), lambda: pipe.update(examples, losses={})):
            try:
                use()
            except ValueError as error:
                found += 1
                assert f"'{name}': " in str(error) and "is not finite" in str(error), str(error)
                assert "Its parameter " in str(error)
    pipe.predict(docs)
    assert found > 20


def test_the_parameter_is_named():
    nlp, examples = make_pipeline(("spigot_parser", parser_config()))
    pipe = nlp.get_pipe("spigot_parser")
    with torch.no_grad():
        module_of(nlp).arc.weight[0, 0] = torch.nan
    message = r"'spigot_parser': the scores of arcs .* parameter arc.weight \(biaffine_parser\)"
    for use in (nlp, lambda text: nlp.update(examples), lambda text: list(nlp.pipe([text]))):
        with pytest.raises(NotFinite, match=message):
            use("a cat")
    assert pipe.model.name == "biaffine_parser"


@pytest.mark.parametrize("name", PIPES)
def test_an_end_task_alone_notices_too(name):
    """Without any gold annotation of its own in the batch."""
    key = "eud" if name == "joint_sdp" else ""
    concat = head_concat() if name == "spigot_parser" else graph_concat(upstream=name, key=key)
    nlp, _ = make_pipeline((name, PIPES[name]), ("masked_textcat", textcat_config(concat), "textcat"))
    docs = [only(doc, "cats") for doc in parsed_docs(nlp.vocab)]
    next(spoilt(nlp.get_pipe(name).model, float("nan")))
    with pytest.raises(NotFinite, match=rf"'{name}': .*Its parameter"):
        nlp.update([Example(bare(doc), doc) for doc in docs], sgd=SGD(0.1))


def test_a_shared_encoder_is_to_blame():
    nlp, examples = make_pipeline(("tok2vec", {"model": TOK2VEC}), ("spigot_parser", parser_config(SHARED)))
    next(spoilt(nlp.get_pipe("tok2vec").model, float("nan")))
    with pytest.raises(NotFinite, match=r"All of its own parameters are finite: what it reads is not"):
        nlp("a cat")
    with pytest.raises(NotFinite, match=r"a tok2vec or transformer that it"):
        nlp.update(examples)


def test_private_copies_say_so_too():
    nlp, _ = make_pipeline(("spigot_parser", parser_config()), ("textcat", textcat_config(head_concat())))
    nlp.replace_listeners("spigot_parser", "textcat", ["model.tok2vec.parse"])
    nlp.remove_pipe("spigot_parser")
    parser = next(n for n in nlp.get_pipe("textcat").model.walk() if n.name == "standalone_parse")
    next(spoilt(parser, float("nan")))
    with pytest.raises(NotFinite, match=r"'standalone_parse': .*Its parameter"):
        nlp("a cat")


@pytest.mark.parametrize("kind", ["kl", "tree_kl", "l2"])
def test_drift_stops_as_well(kind):
    nlp, examples = make_pipeline(("spigot_parser", parser_config(drift=kind)))
    pipe = nlp.get_pipe("spigot_parser")
    pipe.update(examples)
    next(spoilt(pipe.model, float("nan")))
    with pytest.raises(NotFinite, match="'spigot_parser'"):
        pipe.rehearse([example(doc) for doc in parsed_docs(nlp.vocab)])


def test_impossible_is_a_score():
    assert require_finite(torch.tensor([-torch.inf, 1.0]), "x").tolist() == [-torch.inf, 1.0]
    assert require_finite(torch.zeros(0), "x").numel() == 0
    for bad in (torch.nan, torch.inf):
        with pytest.raises(NotFinite, match="x are no finite numbers"):
            require_finite(torch.tensor([[0.0, bad], [1.0, 2.0]]), "x")
