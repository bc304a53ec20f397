"""A listener that nobody delivers to: never a document of roots only, whatever is missing and whenever."""

import copy
import pickle
import warnings
from functools import cache

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import SGD
from toy_pipelines import (
    SHARED,
    TOK2VEC,
    bare,
    graph_concat,
    head_concat,
    make_pipeline,
    ner_config,
    parsed_docs,
    parser_config,
    sdp_config,
    soft_head_concat,
    tagger_config,
    textcat_config,
)

from spacy_components.ml.listening.mailbox import listening_nodes
from spacy_components.sdp_graph import set_graph

KINDS = {
    "parse": ("spigot_parser", parser_config, head_concat),
    "probabilities": ("spigot_parser", parser_config, soft_head_concat),
    "graph": ("spigot_sdp", sdp_config, graph_concat),
}
OTHER = {"parse": "graph", "probabilities": "graph", "graph": "parse"}
TEXT = "the small cat saw a dog"


def pipeline(kind, textcat="textcat", upstream=None, tok2vec=TOK2VEC):
    factory, config, layer = KINDS[kind]
    first = [("tok2vec", {"model": TOK2VEC})] if tok2vec is SHARED else []
    layer = layer(upstream=upstream or factory)
    return make_pipeline(*first, (factory, config(tok2vec)), (textcat, textcat_config(layer), "textcat"))


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Pipelines on disk after a few steps: trees and graphs have arcs, and the classes depend on them."""

    @cache
    def saved(kind):
        nlp, examples = pipeline(kind)
        for _ in range(8):
            nlp.update(examples, sgd=SGD(0.02))
        nlp.to_disk(folder := tmp_path_factory.mktemp(kind))
        return folder

    return saved


@pytest.fixture
def trained(folder_of):
    """A new one of these pipelines."""
    return lambda kind, **options: spacy.load(folder_of(kind), **options)


def cats(doc):
    return pytest.approx(doc.cats, abs=1e-6)


def unlinked(kind, way, trained):
    """A pipeline whose classifier's upstream is not there, and what it has instead."""
    factory = KINDS[kind][0]
    if way == "excluded":
        return trained(kind, exclude=[factory]), "nothing"
    if way == "not sourced":
        new = spacy.blank("xx")
        new.add_pipe("textcat", source=trained(kind))
        return new, "nothing"
    nlp = trained(kind)
    if way == "removed":
        nlp.remove_pipe(factory)
        return nlp, "nothing|makes a"
    if way == "renamed":
        nlp.rename_pipe(factory, "renamed")
        nlp.disable_pipe("renamed")
        return nlp, "'renamed'"
    if way == "after":
        parser = nlp.get_pipe(factory)
        loaded = trained(kind, exclude=[factory])
        loaded.add_pipe(factory, source=nlp)
        assert loaded.pipe_names == ["textcat", factory] and parser.name == factory
        return loaded, "nothing"
    raise AssertionError(way)


WAYS = [("parse", way) for way in ("excluded", "not sourced", "removed", "renamed", "after")]
WAYS += [("graph", "excluded"), ("graph", "after"), ("probabilities", "excluded")]


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_prediction_and_training_without_the_component_are_errors(kind, way, trained):
    nlp, there = unlinked(kind, way, trained)
    match = rf"(?s)'textcat' reads the .*'{KINDS[kind][0]}'.*has none.*({there})"
    examples = [Example(bare(doc), doc) for doc in parsed_docs(nlp.vocab)]
    if way == "after":
        nlp.disable_pipe(KINDS[kind][0])  # it would annotate what the classifier is then given as example
    with pytest.raises(ValueError, match=match):
        nlp(TEXT)
    with pytest.raises(ValueError, match=match):
        list(nlp.pipe(["run", "", TEXT]))
    with pytest.raises(ValueError, match=match):
        nlp.evaluate(examples)
    textcat = nlp.get_pipe("textcat")
    with pytest.raises(ValueError, match=match):
        textcat.update(examples, sgd=SGD(0.1))
    textcat._rehearsal_model = copy.deepcopy(textcat.model)
    with pytest.raises(ValueError, match=match):
        textcat.rehearse(examples, sgd=SGD(0.1))
    for text in ("", " \n ", "run", " run\n"):  # there is nothing to decide in these
        assert textcat(nlp.make_doc(text)).cats


@pytest.fixture(scope="module")
def annotated(folder_of):
    """Documents as bytes with what the whole pipeline writes on them, and their categories."""

    @cache
    def found(kind):
        whole = spacy.load(folder_of(kind))
        docs = [whole(text) for text in (TEXT, "she gave him a book .", "run", "")]
        return [(doc.to_bytes(), cats(doc)) for doc in docs]

    return found


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_what_is_on_the_documents_is_enough(kind, way, trained, annotated):
    """From another parser, by hand, or from a corpus: no error and, in prediction, no warning."""
    nlp, _ = unlinked(kind, way, trained)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content, expected in annotated(kind):
            assert nlp.get_pipe("textcat")(Doc(nlp.vocab).from_bytes(content)).cats == expected


@pytest.mark.parametrize("kind", KINDS)
def test_disabled_component_is_asked_with_a_warning(kind, trained):
    nlp = trained(kind)
    factory = KINDS[kind][0]
    texts = [TEXT, "run", "dogs bark at the old man"]
    expected = [cats(doc) for doc in nlp.pipe(texts)]
    with nlp.select_pipes(disable=[factory]):
        with pytest.warns(UserWarning, match=f"(?s)D002.*'textcat'.*{TEXT}.*'{factory}'"):
            assert [doc.cats for doc in nlp.pipe(texts)] == expected
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # once is enough
            assert [nlp(text).cats for text in texts] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_disabled_component_that_cannot_be_asked(kind):
    nlp, examples = pipeline(kind, tok2vec=SHARED)
    factory = KINDS[kind][0]
    with nlp.select_pipes(disable=[factory]):
        with pytest.raises(ValueError, match=f"'textcat' reads.*'{factory}' did not see it.*Enable it"):
            nlp(TEXT)
        with pytest.raises(ValueError, match="annotating_components"):
            nlp.update(examples, sgd=SGD(0.1))
        assert nlp("run").cats and nlp("").cats


@pytest.mark.parametrize("kind", KINDS)
def test_document_without_annotation_is_asked_for_alone_and_in_company(kind, trained):
    """A mate that has an annotation must not make absence look like one."""
    nlp = trained(kind)
    textcat, parsed = nlp.get_pipe("textcat"), nlp(TEXT)
    expected = textcat.predict([nlp("dogs bark at the old man")])
    with pytest.warns(UserWarning, match="D002"):
        together = textcat.predict([parsed, nlp.make_doc("dogs bark at the old man"), parsed])
    assert np.allclose(together[1], expected[0], atol=1e-6)
    assert np.allclose(together[0], textcat.predict([parsed])[0], atol=1e-6)


# ---- at initialization


@pytest.mark.parametrize("textcat", ["textcat", "masked_textcat"])
@pytest.mark.parametrize("kind", KINDS)
def test_initialization_refuses_a_name_that_is_not_there(kind, textcat):
    with pytest.raises(ValueError, match=f"'textcat' reads.*no component 'parzer'.*{KINDS[kind][0]}"):
        pipeline(kind, textcat, upstream="parzer")


@pytest.mark.parametrize("kind", KINDS)
def test_initialization_refuses_a_component_that_stands_after(kind):
    factory, config, layer = KINDS[kind]
    with pytest.raises(ValueError, match=f"'textcat' reads.*'{factory}' stands after it.*Move"):
        make_pipeline(("masked_textcat", textcat_config(layer()), "textcat"), (factory, config()))
    with pytest.raises(ValueError, match=r"'textcat' reads.*\('\*'\), and no component makes one"):
        make_pipeline(("masked_textcat", textcat_config(layer(upstream="*")), "textcat"), (factory, config()))


@pytest.mark.parametrize("kind", KINDS)
def test_initialization_refuses_a_component_of_another_kind(kind):
    factory, config, _ = KINDS[OTHER[kind]]
    layer = KINDS[kind][2]
    with pytest.raises(ValueError, match=f"'tagger' reads.*'{factory}' makes a"):
        make_pipeline((factory, config()), ("tagger", tagger_config(layer(upstream=factory))))
    with pytest.raises(ValueError, match=r"'tagger' reads.*no component makes one"):
        make_pipeline((factory, config()), ("tagger", tagger_config(layer(upstream="*"))))


@pytest.mark.parametrize(
    ("factory", "config"), [("textcat", textcat_config), ("tagger", tagger_config), ("ner", ner_config)]
)
def test_initialization_without_any_of_our_components_warns(factory, config):
    """Only the layer itself is there to say so, and the documents might have parses from elsewhere."""
    with pytest.warns(UserWarning, match="(?s)D001.*'parzer'.*nothing.*document without one is an error"):
        nlp, examples = make_pipeline((factory, config(head_concat(upstream="parzer"))))
    fresh = [Example(bare(example.reference), example.reference) for example in examples]
    with pytest.raises(ValueError, match=r"parse_listener reads the parse that 'parzer' makes.*has none"):
        nlp(TEXT)
    with pytest.raises(ValueError, match=r"parse_listener reads the parse that 'parzer' makes.*has none"):
        nlp.update(fresh, sgd=SGD(0.1))


def test_documents_of_the_initialization_are_no_exception_later():
    """Their widths were asked for before anything had run; that is over when others have been seen."""
    with pytest.warns(UserWarning, match="D001"):
        nlp, examples = make_pipeline(("tagger", tagger_config(head_concat(upstream="parzer"))))
    with pytest.raises(ValueError, match="has none"):
        nlp.get_pipe("tagger").predict([example.predicted for example in examples])


def test_spacys_parser_before_is_somebody_to_listen_to():
    for upstream in ("parser", "*"):
        with pytest.warns(UserWarning, match="D001"):
            nlp, _ = make_pipeline(
                ("parser", {"min_action_freq": 1}),
                ("masked_textcat", textcat_config(head_concat(upstream=upstream)), "textcat"),
            )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert nlp(TEXT).cats
        with nlp.select_pipes(disable=["parser"]), pytest.raises(ValueError, match="has none"):
            nlp(TEXT)


def test_documents_that_come_with_parses_need_no_parser():
    nlp = spacy.blank("xx")
    parsed = parsed_docs(nlp.vocab)
    nlp.add_pipe("masked_textcat", name="textcat", config=textcat_config(head_concat(upstream="*")))
    with pytest.warns(UserWarning, match="D001"):
        nlp.initialize(lambda: [Example(doc, doc) for doc in parsed])
        nlp.update([Example(doc, doc) for doc in parsed], sgd=SGD(0.1))
    assert nlp.get_pipe("textcat").predict(parsed).shape == (len(parsed), 2)


@Language.component("function_that_parses")
def function_that_parses(doc):
    return Doc(doc.vocab, words=[t.text for t in doc], heads=[0] * len(doc), deps=["dep"] * len(doc))


def test_function_that_says_nothing_of_itself_is_believed_by_name():
    config = textcat_config(head_concat(upstream="function_that_parses"))
    with pytest.warns(UserWarning, match="D001"):
        nlp, _ = make_pipeline(("function_that_parses", {}), ("masked_textcat", config, "textcat"))
    assert nlp(TEXT).cats


# ---- the wildcard


def test_wildcard_is_the_nearest_component_before():
    """It is what prediction reads, too: the last parser's trees are on the documents."""
    nlp, examples = make_pipeline(
        ("spigot_parser", parser_config(), "first"),
        ("spigot_parser", parser_config(), "second"),
        ("masked_textcat", textcat_config(head_concat(upstream="*")), "textcat"),
    )
    for _ in range(2):
        assert nlp.get_pipe("first").listeners == []
        assert nlp.get_pipe("second").listening_components == ["textcat"]
        nlp._link_components()
    nlp.update(examples, sgd=SGD(0.1))
    nlp.remove_pipe("second")
    assert nlp.get_pipe("first").listening_components == ["textcat"]
    nlp.update(examples, sgd=SGD(0.1))


# ---- copies and processes


@pytest.mark.parametrize("kind", KINDS)
def test_copies_listen_to_their_own_upstream(kind, trained):
    nlp = trained(kind)
    (node,) = {id(node): node for node in listening_nodes(nlp.get_pipe("textcat"))}.values()
    pipes = copy.deepcopy([nlp.get_pipe(KINDS[kind][0]), nlp.get_pipe("textcat")])
    copied = next(iter(listening_nodes(pipes[1])))
    assert copied.attrs["mailbox"].pipe is pipes[0] is not nlp.get_pipe(KINDS[kind][0])
    alone = copy.deepcopy(nlp.get_pipe("textcat").model)
    box = next(node.attrs["mailbox"] for node in alone.walk() if "mailbox" in node.attrs)
    assert box.pipe is node.attrs["mailbox"].pipe
    box = pickle.loads(pickle.dumps(type(box)("*", kind)))
    assert (box.upstream, box.kind, box.pipe, box.batch_id) == ("*", kind, None, None)


def test_two_processes_without_the_parser_say_so(trained):
    nlp, _ = unlinked("parse", "excluded", trained)
    with pytest.raises(ValueError, match="'textcat' reads the parse that 'spigot_parser' makes"):
        list(nlp.pipe([TEXT, TEXT], n_process=2, batch_size=1))


def test_private_copy_needs_nobody(trained):
    nlp = trained("parse")
    expected = cats(nlp(TEXT))
    nlp.replace_listeners("spigot_parser", "textcat", ["model.tok2vec.parse"])
    nlp.remove_pipe("spigot_parser")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nlp(TEXT).cats == expected


# ---- what counts as annotation


def test_heads_without_labels_are_a_parse(trained):
    nlp = trained("parse")
    textcat = nlp.get_pipe("textcat")
    labelled = Doc(nlp.vocab, words=["a", "b", "c"], heads=[1, 1, 1], deps=["x"] * 3)
    heads = Doc(nlp.vocab, words=["a", "b", "c"])
    heads.from_array(["HEAD"], np.array([1, 0, -1], dtype=np.int64).astype(np.uint64).reshape(-1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.allclose(textcat.predict([labelled]), textcat.predict([heads]))


def test_empty_graph_is_an_annotation(trained):
    nlp = trained("graph")
    doc = nlp.make_doc(TEXT)
    set_graph(doc, [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nlp.get_pipe("textcat").predict([doc]).shape == (1, 2)


@pytest.mark.parametrize("factory, config", [("spigot_parser", parser_config), ("spigot_sdp", sdp_config)])
def test_a_parser_that_nobody_listens_to_is_named_at_initialization(factory, config):
    """``spacy init config`` cannot connect components."""
    reader = ("tagger", tagger_config(TOK2VEC))
    with pytest.warns(
        UserWarning, match=f"D005.*'{factory}': 'tagger' cannot.*init-diffdecode.*grad_factor = 0"
    ):
        make_pipeline((factory, config()), reader)
    layer = head_concat() if factory == "spigot_parser" else graph_concat()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_pipeline((factory, config()))
        make_pipeline((factory, config(grad_factor=0.0)), reader)
        make_pipeline((factory, config(surrogate="pipeline")), reader)
        make_pipeline(reader, (factory, config()), (factory, config(), "another"))
        make_pipeline((factory, config()), ("tagger", tagger_config(layer)))
