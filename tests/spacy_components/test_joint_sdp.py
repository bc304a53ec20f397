"""Two semantic parsers that decide together: losses, gradients, texts with one graph, listeners."""

import itertools
import pickle

import numpy as np
import pytest
import spacy
import torch
from hypothesis import given
from hypothesis import strategies as st
from thinc.api import SGD, Adam
from toy_pipelines import (
    TOK2VEC,
    bare,
    example,
    graph_concat,
    joint_config,
    learn,
    make_pipeline,
    only,
    parsed_docs,
    tagger_config,
    textcat_config,
)

from diffdecode.structure import (
    GraphParts,
    JointParts,
    SemanticGraph,
    given_the_other,
    graph_argmax,
    make_surrogate,
    possible_arcs,
)
from spacy_components.ml.graphs.joint import JointDecoder, JointScores, likely_places
from spacy_components.ml.graphs.losses import joint_local, local
from spacy_components.ml.graphs.scorers import PartScores
from spacy_components.ml.trees.models import DocScores
from spacy_components.sdp_graph import get_graph

KEYS = ("dm", "eud")
JOINT = ("joint_sdp", joint_config())

# ---- the loss


def random_parts(seed, words, lengths, labels=(2, 3), share=0.5):
    torch.manual_seed(seed)
    size, batch = words + 1, len(lengths)
    first, second = (
        GraphParts(
            torch.randn(batch, size, dtype=torch.float64),
            torch.randn(batch, size, size, dtype=torch.float64),
            torch.randn(batch, size, size, count, dtype=torch.float64),
        )
        for count in labels
    )
    is_place = possible_arcs(lengths, size) & (torch.rand(batch, size, size) < share)
    places = is_place.nonzero()
    return JointParts(first, second, places, torch.randn(len(places), *labels, dtype=torch.float64))


def random_gold(words, labels, lengths):
    graphs = []
    for count in labels:
        arcs = torch.randint(-1, count, (len(lengths), words + 1, words + 1))
        arcs = arcs.masked_fill(~possible_arcs(lengths, words + 1), -1)
        graphs.append(SemanticGraph(arcs, (arcs >= 0).any(1)))
    return tuple(graphs)


def by_hand(parts, gold, known, lengths):
    """One decision after the other."""
    places = {tuple(place): pair for place, pair in zip(parts.places.tolist(), parts.pairs)}
    loss, size = torch.zeros((), dtype=torch.float64), parts.first.arcs.shape[1]
    for b, length in enumerate(lengths.tolist()):
        for own, graph, annotated in zip(parts[:2], gold, known):
            if annotated[b].any():
                for i in range(length + 1):
                    p = torch.sigmoid(own.predicates[b, i])
                    loss -= torch.log(p if graph.predicates[b, i] else 1 - p)
        for i, j in itertools.product(range(1, length + 1), range(length + 1)):
            if i == j:
                continue
            scores = [own.arcs[b, i, j] + own.labels[b, i, j] for own in parts[:2]]
            choices = {}
            for one, other in itertools.product(range(-1, len(scores[0])), range(-1, len(scores[1]))):
                choices[one, other] = sum(s[label] for s, label in zip(scores, (one, other)) if label >= 0)
                if min(one, other) >= 0 and (b, i, j) in places:
                    choices[one, other] = choices[one, other] + places[b, i, j][one, other]
            values = {choice: torch.as_tensor(v, dtype=torch.float64) for choice, v in choices.items()}
            agree = [
                value
                for choice, value in values.items()
                if all(not k[b, i, j] or g.labels[b, i, j] == c for k, g, c in zip(known, gold, choice))
            ]
            loss -= torch.stack(agree).logsumexp(0) - torch.stack(list(values.values())).logsumexp(0)
    assert size > 1
    return loss


@given(
    seed=st.integers(0, 10**6),
    words=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    annotated=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=2),
    partly=st.booleans(),
)
def test_the_loss_is_that_of_each_decision(seed, words, share, annotated, partly):
    lengths = torch.tensor([words, max(1, words - 1)])
    parts = random_parts(seed, words, lengths, share=share)
    gold = random_gold(words, (2, 3), lengths)
    known = [
        torch.tensor(flags)[:, None, None].expand(2, words + 1, words + 1).clone()
        for flags in zip(*annotated)
    ]
    if partly:
        known = [one & (torch.rand(2, words + 1) < 0.7)[:, :, None] for one in known]
    found = joint_local(parts, gold, tuple(known), lengths)
    torch.testing.assert_close(found, by_hand(parts, gold, known, lengths))


def test_without_pairs_it_is_the_loss_of_two_parsers():
    lengths = torch.tensor([4, 3])
    parts = random_parts(0, 4, lengths, share=0.0)
    gold, known = random_gold(4, (2, 3), lengths), torch.ones(2, 5, 5, dtype=torch.bool)
    expected = sum(local(own, graph, lengths, torch.zeros(0)) for own, graph in zip(parts[:2], gold))
    torch.testing.assert_close(joint_local(parts, gold, (known, known), lengths), expected)


def test_a_graph_that_is_not_there_is_summed_out():
    """Were it read as empty, the other graph's arcs would be what its arcs are not."""
    lengths = torch.tensor([3, 3])
    parts = random_parts(1, 3, lengths, share=1.0)
    gold, known = random_gold(3, (2, 3), lengths), torch.ones(2, 4, 4, dtype=torch.bool)
    nothing = torch.zeros_like(known)
    empty = SemanticGraph(torch.full_like(gold[1].labels, -1), torch.zeros_like(gold[1].predicates))
    absent = [joint_local(parts, (gold[0], other), (known, nothing), lengths) for other in (gold[1], empty)]
    assert absent[0] == absent[1] < joint_local(parts, (gold[0], empty), (known, known), lengths)
    assert joint_local(parts, gold, (nothing, nothing), lengths).abs() < 1e-12


# ---- decisions and their gradients


class Batch:
    """As much of a batch of segments as is needed."""

    def __init__(self, words, count):
        self.tokens = np.arange(words * count).reshape(count, words)


@pytest.mark.parametrize("surrogate", ["structured_st", "spigot", "ste"])
@pytest.mark.parametrize("which", [0, 1])
def test_the_gradient_reaches_all_parts_that_a_graph_depends_on(which, surrogate):
    lengths = torch.tensor([4, 3])
    parts = random_parts(3, 4, lengths, share=0.6)
    leaves = [part.requires_grad_() for part in (*parts.first, *parts.second, parts.pairs)]
    made = make_surrogate(surrogate)
    scores = DocScores(None, [JointScores(Batch(4, 2), lengths, parts)])
    decision = JointDecoder(made, 0.5).decide(which, scores)
    (batch,) = decision.decision.batches
    weights = [torch.randn_like(part) for part in batch.z[1:]]
    batch.gradient = tuple(weights)
    found = dict.fromkeys(map(id, leaves), 0.0)
    for tensor, gradient in decision.pairs():
        found[id(tensor)] = gradient
    other = JointDecoder(made).best(scores)[0][1 - which]
    own = given_the_other(parts, which, other)
    z = graph_argmax(own.arcs, own.labels, own.predicates, lengths, surrogate=made)
    expected = torch.autograd.grad((z.arcs, z.labels), leaves, weights, allow_unused=True)
    for leaf, gradient in zip(leaves, expected):
        wanted = torch.zeros_like(leaf) if gradient is None else 0.5 * gradient
        torch.testing.assert_close(torch.zeros_like(leaf) + found[id(leaf)], wanted)
    assert expected[-1].any()


@given(seed=st.integers(0, 10**6), words=st.integers(1, 5), heads=st.integers(1, 7))
def test_pairs_are_scored_where_both_graphs_are_likely_to_have_arcs(seed, words, heads):
    lengths = torch.tensor([words, max(1, words - 2)])
    parts = random_parts(seed, words, lengths)
    first, second = (PartScores(Batch(words, 2), lengths, own) for own in parts[:2])
    found = {tuple(place) for place in likely_places(first, second, heads).tolist()}
    best = sum(own.arcs + own.labels.amax(3) for own in parts[:2])
    for b, length in enumerate(lengths.tolist()):
        for i in range(1, length + 1):
            ranked = sorted((j for j in range(length + 1) if j != i), key=lambda j: -best[b, i, j])
            assert {(b, i, j) for j in ranked[:heads]} == {place for place in found if place[:2] == (b, i)}


# ---- the component


@pytest.fixture(scope="module", params=["local", "likelihood"])
def trained(request):
    reader = textcat_config(graph_concat(upstream="joint_sdp", key="eud"))
    nlp, examples = make_pipeline(
        ("joint_sdp", joint_config(own=TOK2VEC, loss=request.param)), ("masked_textcat", reader, "textcat")
    )

    def learned(_):
        scores = nlp.evaluate(examples)
        return scores["dm_lm"] == scores["eud_lm"] == 1.0

    learn(nlp, examples, Adam(0.03), learned, at_most=60)
    return nlp, examples


def test_both_graphs_are_learned_scored_and_written(trained):
    nlp, examples = trained
    scores = nlp.evaluate(examples)
    assert scores["dm_lf"] == scores["eud_lf"] == 1.0 and "sdp_lf" not in scores
    assert nlp.config["training"]["score_weights"]["eud_lf"] > 0
    for eg in examples:
        doc = nlp(bare(eg.reference))
        assert all(get_graph(doc, key) == get_graph(eg.reference, key) for key in KEYS)
    assert nlp.get_pipe("joint_sdp").labels[:2] == ("dm:ARG1", "dm:ARG2")
    assert nlp.get_pipe("joint_sdp").label_data["eud"] == {"labels": ["PAT", "fixed"]}


@pytest.mark.parametrize("way", ["bytes", "disk", "pickle"])
def test_a_saved_pipeline_parses_the_same(trained, way, tmp_path):
    nlp, examples = trained
    if way == "bytes":
        other = spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())
    elif way == "disk":
        nlp.to_disk(tmp_path)
        other = spacy.load(tmp_path)
    else:
        other = pickle.loads(pickle.dumps(nlp))
    for eg in examples:
        one, two = nlp(bare(eg.reference)), other(bare(eg.reference))
        assert all(one._.get(key) == two._.get(key) for key in KEYS) and one.cats == pytest.approx(two.cats)


def alone(doc, key):
    """The document with one of the two graphs."""
    copy = only(doc, "graph")
    copy._.set(next(other for other in KEYS if other != key), None)
    return copy


@pytest.mark.parametrize(("key", "loss"), [("dm", "local"), ("eud", "local"), ("eud", "likelihood")])
def test_texts_with_one_graph_teach_that_one(key, loss):
    """And of the other they say nothing, not that it is empty: with them alone it keeps its arcs."""
    nlp, examples = make_pipeline(("joint_sdp", joint_config(loss=loss)))

    def learned(_):
        scores = nlp.evaluate(examples)
        return scores["dm_lm"] == scores["eud_lm"] == 1.0

    half = [example(alone(eg.reference, key)) for eg in examples]
    learn(nlp, half, Adam(0.03), lambda _: nlp.evaluate(examples)[f"{key}_lm"] == 1.0, at_most=60)
    learn(nlp, examples, Adam(0.03), learned, at_most=60)
    for _ in range(10):
        nlp.update(half, sgd=SGD(0.01))
    assert learned(None)


def test_no_graph_no_loss_and_no_step():
    nlp, examples = make_pipeline(JOINT)
    pipe = nlp.get_pipe("joint_sdp")
    before = pipe.model.to_bytes()
    assert nlp.update([example(bare(eg.reference)) for eg in examples], sgd=SGD(0.1)) == {"joint_sdp": 0.0}
    assert pipe.model.to_bytes() == before


@pytest.mark.parametrize("key", KEYS)
def test_a_listener_is_given_the_graph_of_its_key_and_sends_a_gradient(key):
    reader = tagger_config(graph_concat(upstream="joint_sdp", key=key))
    nlp, examples = make_pipeline(JOINT, ("tagger", reader))
    pipe = nlp.get_pipe("joint_sdp")
    (listener,) = pipe.listeners
    assert listener.attrs["labels"] == pipe.label_data[key]["labels"]
    module = pipe.model.shims[0].module
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    nlp.update([example(only(eg.reference, "tags")) for eg in examples], sgd=SGD(0.1))
    changed = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    own, other = ("first.", "second.") if key == "dm" else ("second.", "first.")
    assert any(name.startswith(f"{own}label") for name in changed)
    assert any(name.startswith("pair.") for name in changed)
    assert not any(name.startswith(other) for name in changed)


def test_two_listeners_read_a_graph_each():
    readers = [
        (name, tagger_config(graph_concat(upstream="joint_sdp", key=key)), f"tagger_{key}")
        for name, key in (("tagger", "dm"), ("tagger", "eud"))
    ]
    nlp, examples = make_pipeline(JOINT, *readers)
    nlp.update(examples, sgd=SGD(0.01))
    assert [listener.attrs["key"] for listener in nlp.get_pipe("joint_sdp").listeners] == list(KEYS)


@pytest.mark.parametrize(("key", "told"), [("", "a graph without a key"), ("psd", "graphs of key 'psd'")])
def test_a_listener_has_to_say_which_graph_it_reads(key, told):
    reader = tagger_config(graph_concat(upstream="joint_sdp", key=key))
    with pytest.raises(ValueError, match=f"'tagger' reads {told}, 'joint_sdp' makes dm and eud"):
        make_pipeline(JOINT, ("tagger", reader))


def test_a_listener_cannot_have_a_private_copy():
    nlp, _ = make_pipeline(JOINT, ("tagger", tagger_config(graph_concat(upstream="joint_sdp", key="dm"))))
    with pytest.raises(ValueError, match="joint_sdp cannot be replaced"):
        nlp.replace_listeners("joint_sdp", "tagger", ["model.tok2vec.graph"])


@pytest.mark.parametrize("keys", ["dm", ["dm"], ["dm", "dm"], ["dm", "eud", "psd"], ["dm", "a b"]])
def test_impossible_keys(keys):
    with pytest.raises((ValueError, TypeError), match="key"):
        spacy.blank("xx").add_pipe("joint_sdp", config=joint_config(keys=keys))


def test_labels_may_come_from_elsewhere():
    docs = [example(alone(doc, "dm")) for doc in parsed_docs(spacy.blank("xx").vocab)]
    nlp = spacy.blank("xx")
    pipe = nlp.add_pipe("joint_sdp", config=joint_config())
    with pytest.raises(ValueError, match=r"in doc._.eud"):
        nlp.initialize(lambda: docs)
    nlp.config["initialize"]["components"] = {"joint_sdp": {"labels": {"eud": {"labels": ["X", "W"]}}}}
    nlp.initialize(lambda: docs)
    assert pipe.label_data == {"dm": {"labels": ["ARG1", "ARG2", "mwe"]}, "eud": {"labels": ["W", "X"]}}
