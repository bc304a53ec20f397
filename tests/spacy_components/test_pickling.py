"""Pipelines in other processes: pickled, copied, forked and spawned, whatever they are built of.

What is tested comes from the package's entry points, so that a new factory or architecture is tested without
being named here. An architecture that needs something new gets it by a new entry in ``PARTS``.
"""

import copy
import inspect
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import entry_points
from typing import get_type_hints

import pytest
from patience import HANGS_AFTER
from spacy.tokens import Doc
from thinc.api import SGD, Model, fix_random_seed
from thinc.types import Floats2d, Ints1d, Ints2d
from toy_pipelines import (
    SEGMENTER,
    SENTENCES,
    TOK2VEC,
    example,
    graph_concat,
    head_concat,
    make_pipeline,
    parsed_docs,
    parser_config,
    sdp_config,
    soft_head_concat,
    tagger_config,
    textcat_config,
    train_step,
)

from spacy_components.ml.trees.models import DocScores
from spacy_components.ml.trees.soft_trees import SoftTree

TEXTS = [text for text, *_ in SENTENCES] + ["", "  ", "dogs  saw a\nboy"]
PARSE = {"@architectures": "diffdecode.ParseListener.v1", "upstream": "spigot_parser"}
SOFT = Model[list[Doc], list[SoftTree]]
GRAPH = {"@architectures": "diffdecode.GraphListener.v1", "upstream": "spigot_sdp"}
PARTS = {
    "tok2vec": TOK2VEC,
    "segmenter": SEGMENTER,
    "parse": PARSE,
    "graph": GRAPH,
    "width": 16,
    "attrs": ["NORM", "PREFIX"],
    "rows": [100, 50],
    "word_dropout": 0.2,
}
"""Settings that an architecture cannot do without."""


def registered(group):
    found = entry_points(group=group)
    return {entry.name: entry for entry in found if entry.value.startswith("spacy_components.")}


FACTORIES, ARCHITECTURES = registered("spacy_factories"), registered("spacy_architectures")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A parser of Stanza's that reads nothing but the words."""
    pytest.importorskip("stanza", reason="needs diffdecode[stanza]")
    from stanza_models import train_checkpoint, treebank, without_tags

    sizes = {"tag_emb_dim": 0, "word_emb_dim": 0, "max_steps": 2, "eval_interval": 9}
    return str(
        train_checkpoint(tmp_path_factory.mktemp("stanza"), "chars", without_tags(treebank(30)), **sizes)
    )


@pytest.fixture(params=[*FACTORIES, *ARCHITECTURES])
def pipeline(request):
    """One pipeline for each registered factory and architecture, and examples for it."""
    if request.param in FACTORIES:
        return make_pipeline((request.param, {}))
    return pipeline_of(request.param, request)


def pipeline_of(name, request):
    """A small pipeline with the architecture in a place that its type fits."""
    build = ARCHITECTURES[name].load()
    signature = inspect.signature(build).parameters
    made = get_type_hints(build)["return"]
    needed = [key for key, value in signature.items() if value.default is value.empty]
    if "parser" in needed:
        return standalone(name, made)
    config = {"@architectures": name} | {key: PARTS[key] for key in needed}
    if signature.get("parse") and get_type_hints(build)["parse"] == SOFT:
        config["parse"] = soft_head_concat()["parse"]
    if "checkpoint" in signature:
        config["checkpoint"] = request.getfixturevalue("checkpoint")
    if made == Model[list[Doc], DocScores]:
        graphs = "joint_sdp" if name == "diffdecode.JointGraphParser.v1" else "spigot_sdp"
        factory = graphs if ".graphs." in build.__module__ else "spigot_parser"
        return make_pipeline((factory, {"model": config}))
    if made == Model[list[Doc], list[Ints1d]]:
        config = head_concat() | {"parse": config}
    elif made == SOFT:
        config = soft_head_concat() | {"parse": config}
    elif made == Model[list[Doc], list[Ints2d]]:
        config = graph_concat() | {"graph": config}
    else:
        assert made == Model[list[Doc], list[Floats2d]], f"{name}: a place for {made} is to be found"
    return make_pipeline(*parsers(), ("tagger", tagger_config(config)), ("textcat", textcat_config(config)))


def parsers():
    return ("spigot_parser", parser_config()), ("spigot_sdp", sdp_config())


def standalone(name, made):
    """What has a parser of its own comes of a listener."""
    layer, listener, upstream = (
        (graph_concat(), "graph", "spigot_sdp")
        if made == Model[list[Doc], list[Ints2d]]
        else (head_concat(), "parse", "spigot_parser")
    )
    nlp, examples = make_pipeline(*parsers(), ("textcat", textcat_config(layer)))
    nlp.replace_listeners(upstream, "textcat", [f"model.tok2vec.{listener}"])
    assert nlp.config["components"]["textcat"]["model"]["tok2vec"][listener]["@architectures"] == name
    return nlp, examples


def annotated(nlp, texts=TEXTS, **options):
    """What a pipeline writes on documents."""
    return [(doc.to_json(), doc._.sdp) for doc in nlp.pipe(texts, **options)]


def trained(nlp):
    """The same after a few steps: a copy has to learn as the original does."""
    fix_random_seed(0)  # of word dropout
    losses = [train_step(nlp, [example(doc) for doc in parsed_docs(nlp.vocab)], SGD(0.01)) for _ in range(2)]
    return losses, annotated(nlp)


@pytest.fixture(scope="module")
def starting():
    """How processes start that know nothing of this one: like spawned ones, but all import torch once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "spacy"])
    return "forkserver"


@pytest.fixture(scope="module")
def elsewhere(starting):
    """A new Python process, which knows nothing of this one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(starting)) as pool:
        yield pool


def test_pickled_copied_and_in_other_processes_it_is_the_same(pipeline, elsewhere):
    nlp, examples = pipeline
    nlp.update(examples)  # leaves a batch open where a listener stays silent
    expected = annotated(nlp)
    assert len({str(sorted(one.items())) for one, _ in expected}) > 3
    assert elsewhere.submit(annotated, nlp).result(timeout=HANGS_AFTER) == expected
    copies = pickle.loads(pickle.dumps(nlp)), copy.deepcopy(nlp)
    assert [annotated(other) for other in copies] == [expected, expected]
    after = trained(nlp)
    assert [trained(other) for other in copies] == [after, after]


def test_spacys_own_workers_can_be_forked_and_spawned(starting):
    """``nlp.pipe(n_process=2)``, also where processes are spawned, as on macOS: every factory at once."""
    layers = {"masked_textcat": textcat_config(graph_concat(head_concat()))}
    first = [name for name in ("spigot_parser", "spigot_sdp") if name in FACTORIES]
    rest = [name for name in FACTORIES if name not in first]
    nlp, _ = make_pipeline(
        *((name, layers.get(name, {})) for name in (*first, *rest)), ("tagger", tagger_config(head_concat()))
    )
    expected = annotated(nlp)
    assert annotated(nlp, n_process=2, batch_size=2) == expected
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(starting, force=True)
    try:
        assert annotated(nlp, n_process=2, batch_size=2) == expected
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_a_copied_listener_knows_the_copied_component():
    nlp, _ = make_pipeline(*parsers(), ("tagger", tagger_config(head_concat())))
    for other in (copy.deepcopy(nlp), pickle.loads(pickle.dumps(nlp))):
        (box,) = (n.attrs["mailbox"] for n in other.get_pipe("tagger").model.walk() if "mailbox" in n.attrs)
        assert box.pipe is other.get_pipe("spigot_parser") is not nlp.get_pipe("spigot_parser")


def test_an_open_batch_stays_where_it_is():
    """Half of an update can be pickled: the copy holds no batch, the original has closed its own."""
    nlp, examples = make_pipeline(*parsers(), ("tagger", tagger_config(head_concat())))
    nlp.get_pipe("spigot_parser").update(examples)
    other = pickle.loads(pickle.dumps(nlp))
    boxes = [n.attrs["mailbox"] for n in other.get_pipe("tagger").model.walk() if "mailbox" in n.attrs]
    assert boxes and all(box.batch_id is None is box.pipe._open_batch for box in boxes)
