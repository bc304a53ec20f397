"""Finetuning a parser that there is already: frozen parts, drift from the original, sourced pipelines."""

import itertools
import logging

import numpy as np
import pytest
import spacy
import torch
from thinc.api import SGD, Adam, to_numpy
from toy_pipelines import (
    SHARED,
    TOK2VEC,
    bare,
    change,
    example,
    head_concat,
    joint,
    make_pipeline,
    only,
    parsed_docs,
    parser_config,
    textcat_config,
    torch_weights,
    train_step,
)

from diffdecode.structure import TreeKind, nonprojective_tree
from diffdecode.structure.surrogates import Spigot, StructuredStraightThrough
from spacy_components.finetuning.drift import DRIFTS, Drift, drift, kl_of_heads, kl_of_trees
from spacy_components.finetuning.tuning import create_tune_parser
from spacy_components.ml.segments import SegmentBatch
from spacy_components.ml.thinc_glue.parameters import keys_of_part, parameters
from spacy_components.ml.trees.scorers import TreeScores


def parses(vocab):
    return [only(doc, "parse") for doc in parsed_docs(vocab)]


def categories(vocab):
    return [only(doc, "cats") for doc in parsed_docs(vocab)]


def values(model, keys=None):
    """Copies of parameters by their keys."""
    found = parameters(model)
    return {key: to_numpy(found[key]).copy() for key in (found if keys is None else keys)}


def same(before, after):
    return before.keys() == after.keys() and all(np.array_equal(before[k], after[k]) for k in before)


# ---- frozen parts


@pytest.mark.parametrize("part", ["tok2vec", "scorer", "arc"])
@pytest.mark.parametrize("with_sgd", [True, False])
def test_frozen_part_stays_bit_for_bit(part, with_sgd):
    """Not even momentum from before it was frozen, or the weight decay, move it; all the rest learns."""
    nlp, examples = joint()
    parser = nlp.get_pipe("spigot_parser")
    optimizer = Adam(0.01, L2=0.1, use_averages=True)

    def train():
        if with_sgd:
            nlp.update(examples, sgd=optimizer)
        else:
            train_step(nlp, examples, optimizer)

    train()
    parser.configure(freeze=[part])
    frozen = keys_of_part(parser.model, part)
    before = values(parser.model)
    averages = {key: np.array(value) for key, value in optimizer.averages.items() if key in frozen}
    for _ in range(3):
        train()
    after = values(parser.model)
    assert frozen and same({k: before[k] for k in frozen}, {k: after[k] for k in frozen})
    assert averages and same(averages, {key: optimizer.averages[key] for key in averages})
    for key in set(after) - frozen:
        # relu units can be dead in so small a model, but no whole part may be
        assert not np.array_equal(before[key], after[key]) or "between" in key[1]
    parser.configure(freeze=[])
    train()
    assert not same({k: before[k] for k in frozen}, values(parser.model, frozen))


def test_smaller_steps():
    """Adam's first step is of the size of the learning rate, whatever the gradient."""
    moved = []
    for size in (1.0, 0.25):
        nlp, examples = joint()
        nlp.get_pipe("spigot_parser").step_size = size
        before = torch_weights(nlp)
        train_step(nlp, examples, Adam(0.01, L2=0.0))
        moved.append(change(before, torch_weights(nlp)))
    assert moved[1] == pytest.approx(moved[0] / 4, rel=1e-3)


def test_gradients_do_not_pile_up_while_frozen():
    """What came while frozen is gone: the first step after it is that of its own batch alone."""
    steps = []
    for batches in (1, 4):
        nlp, examples = make_pipeline(("spigot_parser", parser_config(freeze=["tok2vec", "scorer"])))
        for _ in range(batches):
            train_step(nlp, examples, SGD(0.1))
        nlp.get_pipe("spigot_parser").configure(freeze=[])
        train_step(nlp, examples, SGD(0.1))
        steps.append(values(nlp.get_pipe("spigot_parser").model))
    assert all(np.array_equal(*pair) for pair in zip(*(step.values() for step in steps)))


def test_gradient_passes_through_a_frozen_parser():
    """Its vectors come from another parser's trees, which go on learning."""
    nlp, examples = make_pipeline(
        ("spigot_parser", parser_config(), "first"),
        (
            "spigot_parser",
            parser_config(head_concat(upstream="first"), freeze=["tok2vec", "scorer"]),
            "second",
        ),
        ("masked_textcat", textcat_config(head_concat(upstream="second")), "textcat"),
        docs=categories,
    )
    before = torch_weights(nlp, "first"), values(nlp.get_pipe("second").model)
    train_step(nlp, examples, SGD(0.1))
    assert change(before[0], torch_weights(nlp, "first")) > 0
    assert same(before[1], values(nlp.get_pipe("second").model))


def test_frozen_scorer_lets_the_end_task_train_the_encoder():
    nlp, examples = joint(docs=categories, freeze=["scorer"])
    parser = nlp.get_pipe("spigot_parser")
    encoder = keys_of_part(parser.model, "tok2vec")
    before = values(parser.model, encoder)
    train_step(nlp, examples, SGD(0.1))
    assert not same(before, values(parser.model, encoder))


def test_parts_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"'encodr'.*tok2vec, scorer, .*arc, .*encoder"):
        joint(freeze=["encodr"])
    with pytest.raises(ValueError, match=r"'tok2vec'.*frozen_components"):
        joint(shared=True, freeze=["tok2vec"])
    nlp, _ = joint()
    parser = nlp.get_pipe("spigot_parser")
    with pytest.raises(ValueError, match=r"freeze takes a list, such as \['tok2vec'\]"):
        parser.configure(freeze="tok2vec")
    with pytest.raises(ValueError, match="no drift 'kld'; there are None, kl, tree_kl, l2"):
        parser.configure(drift="kld")
    with pytest.raises(ValueError, match="no training setting projective; there are loss, surrogate"):
        parser.configure(projective=False)
    assert parser.settings.drift is None


def test_changed_settings_are_those_of_a_private_copy_too():
    nlp, _ = joint()
    nlp.get_pipe("spigot_parser").configure(surrogate=Spigot(eta=0.25), grad_factor=0.5)
    nlp.replace_listeners("spigot_parser", "textcat", ["model.tok2vec.parse"])
    private = nlp.config["components"]["textcat"]["model"]["tok2vec"]["parse"]
    assert (private["surrogate"]["eta"], private["grad_factor"], private["projective"]) == (0.25, 0.5, True)


# ---- drift: the penalties themselves


def scores(seed, lengths=(3, 1), labels=4, forbidden=False):
    """Random scores of two sentences, with junk where nothing may be read."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    arcs = 2 * torch.randn(len(lengths), longest + 1, longest + 1, generator=generator, dtype=torch.float64)
    if forbidden:
        arcs[0, 2, 1] = -torch.inf
        arcs[:, range(longest + 1), range(longest + 1)] = -torch.inf
    table = torch.randn(longest + 1, labels, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = np.zeros((len(lengths), longest), dtype=np.int64)
    batch = SegmentBatch(tokens, np.array(lengths))
    return TreeScores(batch, torch.tensor(lengths), arcs.requires_grad_(), lambda heads: table[heads]), table


@pytest.mark.parametrize("kind", sorted(DRIFTS))
@pytest.mark.parametrize("projective", [True, False])
@pytest.mark.parametrize("forbidden", [True, False])
def test_drift_gradients_are_those_of_finite_differences(kind, projective, forbidden):
    now, labels = scores(0, forbidden=forbidden)
    original, _ = scores(1, forbidden=forbidden)
    trees = TreeKind(projective=projective, multi_root=False)
    loss = drift(kind, now, original, trees)
    assert float(loss.detach()) > 0
    loss.backward()
    for tensor in (now.arcs, labels):
        gradient, data = tensor.grad, tensor.detach()
        assert torch.isfinite(gradient).all() and (gradient != 0).any()
        for place in np.ndindex(*tensor.shape):
            if torch.isfinite(data[place]):
                data[place] += 1e-5
                up = float(drift(kind, now, original, trees).detach())
                data[place] -= 2e-5
                down = float(drift(kind, now, original, trees).detach())
                data[place] += 1e-5
                assert (up - down) / 2e-5 == pytest.approx(float(gradient[place]), abs=1e-6)
    assert original.arcs.grad is None
    assert now.arcs.grad[1, 2:].abs().sum() == now.arcs.grad[:, 0].abs().sum() == 0  # padding, the root


@pytest.mark.parametrize("kind", sorted(DRIFTS))
def test_drift_from_itself_is_zero(kind):
    now, labels = scores(0)
    loss = drift(kind, now, scores(0)[0], TreeKind(projective=True, multi_root=True))
    loss.backward()
    assert abs(float(loss.detach())) < 1e-12
    assert float(now.arcs.grad.abs().max()) < 1e-12 and float(labels.grad.abs().max()) < 1e-12


def log_probabilities(arcs, n):
    """Every nonprojective tree with one root, and the logarithm of its probability."""
    found = {}
    for heads in itertools.product(range(n + 1), repeat=n):
        fixed = torch.full((1, n + 1, n + 1), -torch.inf, dtype=torch.float64)
        fixed[0, range(1, n + 1), heads] = 0.0
        try:
            nonprojective_tree(fixed, multi_root=False)
        except ValueError:
            continue
        found[heads] = float(sum(arcs[j + 1, head] for j, head in enumerate(heads)))
    total = np.logaddexp.reduce(list(found.values()))
    return {heads: score - total for heads, score in found.items()}


def test_tree_kl_is_that_of_enumerated_trees_and_heads_that_of_single_words():
    now, original = scores(0, (3,))[0].arcs.detach(), scores(1, (3,))[0].arcs.detach()
    p, q = log_probabilities(original[0], 3), log_probabilities(now[0], 3)
    assert len(p) == 9
    expected = sum(np.exp(p[heads]) * (p[heads] - q[heads]) for heads in p)
    trees, lengths = TreeKind(projective=False, multi_root=False), torch.tensor([3])
    assert float(kl_of_trees(now, original, lengths, trees)) == pytest.approx(expected)
    by_word = 0.0
    for word in range(1, 4):
        others = [head for head in range(4) if head != word]
        p_head, q_head = original[0, word, others].softmax(0), now[0, word, others].softmax(0)
        by_word += float((p_head * (p_head / q_head).log()).sum())
    assert float(kl_of_heads(now, original, lengths, trees)) == pytest.approx(by_word)


# ---- drift: in a pipeline


def drift_block(kind, weight):
    """As a config has it."""
    return {"@misc": "diffdecode.drift.v1", "kind": kind, "weight": weight}


@pytest.mark.parametrize("kind", sorted(DRIFTS))
def test_drift_holds_the_parser_back(kind):
    """The end task pulls at the trees; the heavier the penalty, the less they follow."""
    moved, penalties = [], []
    for weight in (0.0, 1.0, 100.0):
        nlp, examples = joint(docs=categories, drift=drift_block(kind, weight))
        parser = nlp.get_pipe("spigot_parser")
        docs = [eg.predicted for eg in examples]
        before = [part.arcs.clone() for part in parser.model.predict(docs).scores]
        for _ in range(10):
            losses = train_step(nlp, examples, SGD(0.003))
        assert losses["spigot_parser"] == 0.0
        penalties.append(losses["spigot_parser_drift"])
        after = [part.arcs for part in parser.model.predict(docs).scores]
        moved.append(sum(float((b - a)[:, 1:].abs().sum()) for b, a in zip(before, after)))
    assert moved[0] > moved[1] > moved[2] and penalties[0] == 0 < penalties[1]


def test_original_is_the_parser_at_its_first_update(tmp_path, caplog):
    """It does not move, is not saved, and costs nothing unless it is asked for."""
    nlp, examples = joint(drift="kl")
    parser = nlp.get_pipe("spigot_parser")
    optimizer = Adam(0.01, use_averages=True)
    with caplog.at_level(logging.INFO, logger="spacy"):
        losses = train_step(nlp, examples, optimizer)
    assert losses["spigot_parser_drift"] == pytest.approx(0, abs=1e-4)
    (message,) = [record.getMessage() for record in caplog.records if "drift" in record.getMessage()]
    count = sum(value.size for value in parameters(parser.model).values())
    assert f"frozen copy of {count} parameters" in message
    original = values(parser._original._model)
    for _ in range(3):
        losses = train_step(nlp, examples, optimizer)
    assert losses["spigot_parser_drift"] > 0 and same(original, values(parser._original._model))
    nlp.to_disk(tmp_path / "with")
    plain, _ = joint()
    plain.to_disk(tmp_path / "without")
    with_size, without = (
        (tmp_path / name / "spigot_parser" / "model").stat().st_size for name in ("with", "without")
    )
    assert with_size == without
    loaded = spacy.load(tmp_path / "with")
    losses = train_step(loaded, [example(eg.reference) for eg in examples], optimizer)
    assert losses["spigot_parser_drift"] == pytest.approx(0, abs=1e-4)  # what was loaded is the original now
    train_step(plain, examples, optimizer)
    assert plain.get_pipe("spigot_parser")._original is None


def test_drift_needs_an_encoder_of_its_own():
    for frozen in ([], ["tok2vec"]):
        nlp, examples = joint(shared=True, drift="kl")
        if frozen:
            losses = train_step(nlp, examples, SGD(0.01), exclude=frozen, annotates=frozen)
            assert losses["spigot_parser_drift"] == pytest.approx(0, abs=1e-4)
        else:
            with pytest.raises(ValueError, match="replace_listeners"):
                train_step(nlp, examples, SGD(0.01))


def test_rehearse_brings_the_parser_back():
    nlp, examples = make_pipeline(("spigot_parser", parser_config(drift="kl")))
    parser = nlp.get_pipe("spigot_parser")
    for _ in range(5):
        train_step(nlp, examples, Adam(0.01))
    plain = [example(bare(eg.reference)) for eg in examples]
    losses = [nlp.rehearse(plain, sgd=SGD(0.002), losses={})["spigot_parser"] for _ in range(20)]
    assert 0 < losses[-1] < losses[0] / 2
    parser.configure(drift=None)
    assert nlp.rehearse(plain, sgd=SGD(0.01), losses={}) == {}
    parser.configure(drift="kl", freeze=["tok2vec", "scorer"])
    before = values(parser.model)
    parser.rehearse(plain, sgd=SGD(0.01))
    assert same(before, values(parser.model))


def test_empty_documents_do_not_drift():
    nlp, _ = make_pipeline(("spigot_parser", parser_config(drift="kl")))
    empty = example(nlp.make_doc(""))
    assert train_step(nlp, [empty, empty], SGD(0.1)) == {"spigot_parser": 0.0}
    assert nlp.get_pipe("spigot_parser").rehearse([empty], sgd=SGD(0.1)) == {"spigot_parser": 0.0}


# ---- a parser from another pipeline


def sourced_config(folder, **parser):
    """A config that takes a parser, and for ``shared`` its tok2vec, from a folder, and adds a classifier."""
    textcat = {"factory": "masked_textcat", **textcat_config(head_concat())}
    components = {"spigot_parser": {"source": str(folder), **parser}, "textcat": textcat}
    tune = {"@callbacks": "diffdecode.tune_parser.v1", "component": "spigot_parser"}
    return {
        "nlp": {"lang": "xx", "pipeline": list(components)},
        "components": components,
        "initialize": {"before_init": tune},
    }


@pytest.fixture(scope="module", params=[False, True], ids=["own tok2vec", "shared tok2vec"])
def trained(request, tmp_path_factory):
    """Folder of a parser (alone, or with a tok2vec that it listens to), which it is, and its heads."""
    first = [("tok2vec", {"model": TOK2VEC})] if request.param else []
    config = parser_config(SHARED if request.param else TOK2VEC)
    nlp, examples = make_pipeline(*first, ("spigot_parser", config))
    optimizer = Adam(0.01)
    for _ in range(15):
        train_step(nlp, examples, optimizer)
    folder = tmp_path_factory.mktemp("trained")
    nlp.to_disk(folder)
    return folder, request.param, heads_of(nlp)


def heads_of(nlp):
    return [[t.head.i for t in doc] for doc in nlp.pipe([bare(doc) for doc in parsed_docs(nlp.vocab)])]


def test_sourced_parser_is_tuned_by_the_new_task_alone(trained, tmp_path):
    """With a tok2vec that it shared, replace_listeners gives it a copy of its own."""
    folder, shared, heads = trained
    config = sourced_config(folder, **({"replace_listeners": ["model.tok2vec"]} if shared else {}))
    config["initialize"]["before_init"] |= {"drift": "l2", "grad_factor": 0.5, "freeze": ["label"]}
    nlp = spacy.util.load_model_from_config(config, auto_fill=True)
    examples = [example(doc) for doc in categories(nlp.vocab)]
    nlp.resume_training()
    with nlp.select_pipes(disable=["spigot_parser"]):  # as spacy train does with what is sourced
        nlp.initialize(lambda: examples)
    parser = nlp.get_pipe("spigot_parser")
    assert (
        heads_of(nlp) == heads
        and parser.settings.drift == Drift("l2")
        and parser.settings.surrogate == StructuredStraightThrough()
    )
    assert parser.stands_alone and parser.listening_components == ["textcat"]
    frozen, moving = keys_of_part(parser.model, "label"), keys_of_part(parser.model, "tok2vec")
    before = values(parser.model)
    for _ in range(3):
        losses = train_step(nlp, examples, Adam(0.01))
    after = values(parser.model)
    assert losses["spigot_parser"] == 0.0 < losses["spigot_parser_drift"]
    assert same({k: before[k] for k in frozen}, {k: after[k] for k in frozen})
    assert not same({k: before[k] for k in moving}, {k: after[k] for k in moving})
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert heads_of(loaded) == heads_of(nlp)
    assert loaded.get_pipe("spigot_parser").settings.drift is None  # its own settings are what was saved


def test_sourced_by_hand(trained):
    folder, shared, heads = trained
    source = spacy.load(folder)
    if shared:
        source.replace_listeners("tok2vec", "spigot_parser", ["model.tok2vec"])
    nlp = spacy.blank("xx")
    nlp.add_pipe("spigot_parser", source=source).configure(drift="kl", freeze=["scorer"])
    nlp.add_pipe("masked_textcat", name="textcat", config=textcat_config(head_concat()))
    examples = [example(doc) for doc in categories(nlp.vocab)]
    nlp.get_pipe("textcat").initialize(lambda: examples, nlp=nlp)
    assert heads_of(nlp) == heads
    before = torch_weights(nlp)
    for _ in range(2):
        losses = nlp.update(examples, sgd=Adam(0.01), losses={})
    assert losses["spigot_parser_drift"] > 0 and change(before, torch_weights(nlp)) == 0


def test_order_of_sourced_components_is_checked(tmp_path):
    nlp, _ = make_pipeline(("tok2vec", {"model": TOK2VEC}), ("spigot_parser", parser_config(SHARED)))
    nlp.to_disk(tmp_path)
    config = sourced_config(tmp_path)
    tagger = {"factory": "tagger", "model": {"@architectures": "spacy.Tagger.v2", "tok2vec": SHARED}}
    config["components"] |= {"tok2vec": {"source": str(tmp_path)}, "tagger": tagger}
    config["nlp"]["pipeline"] = ["tok2vec", "spigot_parser", "tagger", "textcat"]
    nlp = spacy.util.load_model_from_config(config, auto_fill=True)
    refused = pytest.raises(ValueError, match="Move 'tagger' before 'spigot_parser' or after 'textcat'")
    with nlp.select_pipes(disable=["tok2vec", "spigot_parser"]), refused:
        nlp.initialize(lambda: [example(doc) for doc in parsed_docs(nlp.vocab)])


def test_only_a_spigot_parser_can_be_tuned():
    nlp = spacy.blank("xx")
    nlp.add_pipe("parser", name="spigot_parser")
    with pytest.raises(
        ValueError, match=r"no spigot_parser or spigot_sdp .but DependencyParser.*distill-parser"
    ):
        create_tune_parser()(nlp)


def test_settings_of_a_pipelines_config():
    """The component's own block takes them too; a sourced one has no such block."""
    block = drift_block("tree_kl", 0.25)
    nlp, _ = joint(freeze=["arc", "label"], drift=block)
    found = nlp.config["components"]["spigot_parser"]
    assert (found["freeze"], found["drift"]) == (["arc", "label"], block)
    assert nlp.get_pipe("spigot_parser").settings.drift == Drift("tree_kl", 0.25)
