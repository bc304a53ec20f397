"""Settings are written once: what feeds from them, their blocks, their old names, and what they do."""

import copy
import inspect
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
import spacy
import torch
from spacy.util import registry
from thinc.api import SGD, Adam
from toy_pipelines import (
    change,
    example,
    graph_concat,
    joint,
    make_pipeline,
    only,
    parsed_docs,
    parser_config,
    sdp_config,
    textcat_config,
    torch_weights,
    train_step,
)

from diffdecode.structure import SURROGATES
from diffdecode.structure.surrogates import Spigot, StraightThrough, StructuredStraightThrough
from spacy_components.finetuning.balance import GradientBalance
from spacy_components.finetuning.drift import Drift
from spacy_components.finetuning.graph_drift import GRAPH_DRIFTS, graph_drift
from spacy_components.finetuning.tuning import create_tune_parser
from spacy_components.ml.graphs.scorers import PartScores
from spacy_components.ml.listening.standalone import build_standalone_graph, build_standalone_parse
from spacy_components.pipeline.spigot_parser import make_spigot_parser
from spacy_components.pipeline.spigot_sdp import make_spigot_sdp
from spacy_components.settings import (
    OLD_NAMES,
    SpigotParserSettings,
    SpigotSdpSettings,
    as_config,
    hard_surrogate,
    values_of,
)

FACTORIES = {"spigot_parser": SpigotParserSettings, "spigot_sdp": SpigotSdpSettings}
SETTINGS = list(FACTORIES.values())


def categories(vocab):
    return [only(doc, "cats") for doc in parsed_docs(vocab)]


def names_of(settings):
    return {setting.name for setting in fields(settings)}


# ---- one place


def test_everything_takes_the_fields_of_the_dataclass():
    """A new field is a new setting everywhere, without another line."""

    def taken(function, *others):
        return set(inspect.signature(function).parameters) - {*others, *OLD_NAMES}

    assert taken(make_spigot_parser, "nlp", "name", "model", "scorer") == names_of(SpigotParserSettings)
    assert taken(make_spigot_sdp, "nlp", "name", "model", "scorer") == names_of(SpigotSdpSettings)
    assert taken(create_tune_parser, "component") == set(SpigotParserSettings.of_training())
    assert taken(build_standalone_parse, "parser", "soft", "temperature") < names_of(SpigotParserSettings)
    assert taken(build_standalone_graph, "parser", "labels", "deterministic") < names_of(SpigotSdpSettings)
    assert names_of(SpigotParserSettings) - set(SpigotParserSettings.of_training()) == {
        "projective",
        "multi_root",
        "confidence",
    }


@pytest.mark.parametrize("name", FACTORIES)
def test_defaults_of_a_pipeline_are_those_of_the_dataclass(name):
    nlp = spacy.blank("xx")
    pipe = nlp.add_pipe(name)
    assert pipe.settings == FACTORIES[name]()
    block = nlp.config["components"][name]
    assert as_config(values_of(pipe.settings)).items() <= block.items()
    assert block["surrogate"] == {"@misc": "diffdecode.structured_st.v1", "sample": False}
    again = spacy.util.load_model_from_config(nlp.config)
    assert again.get_pipe(name).settings == pipe.settings


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_are_frozen_and_checked(settings):
    made = settings()
    with pytest.raises(AttributeError):
        made.grad_factor = 2.0
    for wrong, message in (
        ({"loss": "nll"}, "no loss 'nll'; there are "),
        ({"drift": "kld"}, "no drift 'kld'; there are None, kl"),
        ({"surrogate": "marginals"}, "structured_st"),
        ({"freeze": "tok2vec"}, r"freeze takes a list, such as \['tok2vec'\]"),
        ({"step_size": 0.0}, "step_size must be above 0"),
        ({"warm_steps": -1}, "warm_steps must be 0 or more"),
        ({"drift": Drift("tree")}, "no drift 'tree'"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(**wrong)
    with pytest.raises(ValueError, match="weight of a drift"):
        Drift(weight=-1.0)


# ---- blocks


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_every_surrogate_has_a_block(name):
    """With its own options, by their names and types; the component says which it cannot use."""
    made = registry.resolve({"x": {"@misc": f"diffdecode.{name}.v1"}})["x"]
    assert made == SURROGATES[name]()
    with pytest.raises(ValueError, match=r"unexpected|extra"):
        registry.resolve({"x": {"@misc": f"diffdecode.{name}.v1", "no_such_option": 1}})
    nlp = spacy.blank("xx")
    if made.hard:
        pipe = nlp.add_pipe("spigot_parser", config={"surrogate": {"@misc": f"diffdecode.{name}.v1"}})
        assert pipe.settings.surrogate == made == hard_surrogate(name)
        block = {"@misc": f"diffdecode.{name}.v1"} | {f.name: getattr(made, f.name) for f in fields(made)}
        assert nlp.config["components"]["spigot_parser"]["surrogate"] == block
    else:
        with pytest.raises(ValueError, match=r"'spigot_parser': .*one hard structure"):
            nlp.add_pipe("spigot_parser", config={"surrogate": {"@misc": f"diffdecode.{name}.v1"}})


def test_a_name_alone_is_a_block_without_options():
    nlp = spacy.blank("xx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = nlp.add_pipe("spigot_parser", config={"surrogate": "spigot", "drift": "l2"}).settings
    assert (settings.surrogate, settings.drift) == (Spigot(), Drift("l2"))


def test_a_private_copy_has_the_settings(tmp_path):
    for surrogate in ({"@misc": "diffdecode.spigot.v1", "eta": 0.25}, "ste"):
        nlp, _ = joint(surrogate=surrogate, projective=False, grad_factor=0.5)
        expected = nlp.get_pipe("spigot_parser").settings
        nlp.replace_listeners("spigot_parser", "textcat", ["model.tok2vec.parse"])
        nlp.to_disk(tmp_path)
        for other in (nlp, spacy.load(tmp_path)):
            layer = other.get_pipe("textcat").model.get_ref("tok2vec").layers[1]
            decoder = layer.attrs["decide"].args[0]
            assert (decoder.surrogate, decoder.grad_factor) == (expected.surrogate, expected.grad_factor)
            assert not decoder.trees.projective


# ---- old names


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize(
    "old, new",
    [
        ({"surrogate": "spigot", "eta": 0.5, "surrogate_options": {}}, Spigot(eta=0.5)),
        ({"surrogate": "spigot", "eta": 0.5, "surrogate_options": {"max_norm": 2.0}}, Spigot(0.5, 2.0)),
        ({"surrogate": "spigot", "eta": 1.0, "surrogate_options": {"eta": "clip"}}, Spigot("clip")),
        ({"surrogate": "ste", "eta": 1.0, "surrogate_options": {}}, StraightThrough()),
        ({"eta": 0.5}, Spigot(eta=0.5)),  # it was the default
        ({"surrogate_options": {"polytope": "exact"}}, Spigot(polytope="exact")),
    ],
)
def test_old_settings_mean_what_they_meant(name, old, new):
    nlp = spacy.blank("xx")
    with pytest.warns(FutureWarning, match=r"old settings, which go with version 0\.3"):
        pipe = nlp.add_pipe(name, config=old)
    assert pipe.settings.surrogate == new


def test_old_drift_and_old_ways_to_change_a_setting():
    nlp = spacy.blank("xx")
    with pytest.warns(FutureWarning, match="drift_weight"):
        pipe = nlp.add_pipe(
            "spigot_parser", config={"drift": "kl", "drift_weight": 0.25, "surrogate": "spigot"}
        )
    assert pipe.settings.drift == Drift("kl", 0.25)
    with pytest.warns(FutureWarning, match="eta"):
        pipe.configure(eta=0.125)
    with pytest.warns(FutureWarning, match="drift_weight"):
        pipe.configure(drift_weight=0.5)
    assert pipe.settings.surrogate == Spigot(0.125) and pipe.settings.drift == Drift("kl", 0.5)
    tune = {
        "@callbacks": "diffdecode.tune_parser.v1",
        "surrogate": "spigot",
        "eta": 0.75,
        "surrogate_options": None,
    }
    with pytest.warns(FutureWarning, match="eta"):
        registry.resolve({"x": tune})["x"](nlp)
    assert pipe.settings.surrogate == Spigot(0.75)


def test_a_private_copy_of_before_means_what_it_meant():
    """The config of a pipeline that was saved with one."""
    parser = {"@architectures": "diffdecode.BiaffineParser.v1", **parser_config()["model"]}
    old = {"surrogate": "spigot", "surrogate_options": {"max_norm": 2.0}, "eta": 0.5, "grad_factor": 1.0}
    block = {"@architectures": "diffdecode.StandaloneParse.v1", "parser": parser, "projective": True, **old}
    with pytest.warns(FutureWarning, match="eta, surrogate_options"):
        layer = registry.resolve({"x": block})["x"]
    assert layer.attrs["decide"].args[0].surrogate == Spigot(0.5, 2.0)


def test_the_old_place_of_the_factories():
    import spacy_components.factories as old

    with pytest.warns(FutureWarning, match=r"pipeline\.spigot_parser\.make_spigot_parser now"):
        assert old.make_spigot_parser is make_spigot_parser
    with pytest.raises(AttributeError, match="no attribute 'make_something'"):
        _ = old.make_something


# ---- what they do


def test_step_size_is_this_components_own():
    moved = {}
    for size in (1.0, 0.25):
        nlp, examples = joint(step_size=size)
        before = torch_weights(nlp)
        train_step(nlp, examples, SGD(0.01, L2=0.0, grad_clip=0.0))
        moved[size] = {key: value - before[key] for key, value in torch_weights(nlp).items()}
    for key, value in moved[1.0].items():
        assert torch.allclose(0.25 * value, moved[0.25][key], atol=1e-7)
    pipe = nlp.get_pipe("spigot_parser")
    pipe.step_size *= 0.5  # as a guard does
    pipe.configure(grad_factor=0.5)
    assert pipe.step_size == 0.125
    pipe.configure(step_size=0.5)
    assert pipe.step_size == 0.5


@pytest.mark.parametrize("with_sgd", [True, False])
def test_the_gradient_is_let_in_after_the_warm_steps(with_sgd):
    """The end task's alone: before that, the parser does not move at all."""
    nlp, examples = joint(docs=categories, warm_steps=2, surrogate="ste")
    optimizer, moves = SGD(0.01), []
    for _ in range(4):
        before = torch_weights(nlp)
        if with_sgd:
            nlp.update(examples, sgd=optimizer)
        else:
            train_step(nlp, examples, optimizer)
        moves.append(change(before, torch_weights(nlp)))
    assert moves[0] == moves[1] == 0 < moves[2] and moves[3] > 0
    begin = nlp.get_pipe("spigot_parser").initialize
    begin(lambda: [example(doc) for doc in parsed_docs(nlp.vocab)], nlp=nlp)
    before = torch_weights(nlp)
    nlp.update(examples, sgd=optimizer)
    assert change(before, torch_weights(nlp)) == 0


def graph_pipeline(**settings):
    return make_pipeline(
        ("spigot_sdp", sdp_config(**settings)),
        ("masked_textcat", textcat_config(graph_concat()), "textcat"),
        docs=categories,
    )


def test_a_semantic_parser_has_them_all():
    nlp, examples = graph_pipeline(warm_steps=1, freeze=["label"], drift="l2", surrogate="ste")
    pipe = nlp.get_pipe("spigot_sdp")
    before = torch_weights(nlp, "spigot_sdp")
    losses = [train_step(nlp, examples, SGD(0.005)) for _ in range(2)]
    after = torch_weights(nlp, "spigot_sdp")
    frozen = [key for key in before if key.startswith("label.")]
    assert frozen and all(torch.equal(before[key], after[key]) for key in frozen)
    assert change(before, after) > 0 and losses[0]["spigot_sdp_drift"] == pytest.approx(0, abs=1e-5)
    losses = train_step(nlp, examples, SGD(0.005))
    assert losses["spigot_sdp_drift"] > 0 and pipe.rehearse(examples, losses={})["spigot_sdp"] > 0
    tune = create_tune_parser("spigot_sdp", grad_factor=0.25, loss="likelihood")
    assert tune(nlp).get_pipe("spigot_sdp").settings == replace(
        pipe.settings, grad_factor=0.25, loss="likelihood"
    )
    with pytest.raises(ValueError, match=r"'spigot_sdp': no loss 'cross_entropy'"):
        create_tune_parser("spigot_sdp", loss="cross_entropy")(nlp)


@pytest.mark.parametrize("kind", sorted(GRAPH_DRIFTS))
def test_graph_drift_gradients_are_those_of_finite_differences(kind):
    nlp, _ = make_pipeline(("spigot_sdp", sdp_config()))
    pipe = nlp.get_pipe("spigot_sdp")
    docs = [nlp.make_doc("a cat"), nlp.make_doc("run")]
    (part,) = pipe.model.predict(docs).scores

    def perturbed(seed):
        generator = torch.Generator().manual_seed(seed)
        parts = [
            s.double() + torch.randn(s.shape, generator=generator, dtype=torch.float64) for s in part.parts
        ]
        return PartScores(part.batch, part.lengths, type(part.parts)(*parts))

    now, original = perturbed(0), perturbed(1)
    assert float(graph_drift(kind, now, copy.deepcopy(now))) == pytest.approx(0, abs=1e-12)
    leaves = [scores.requires_grad_() for scores in now.parts]
    loss = graph_drift(kind, now, original)
    assert float(loss.detach()) > 0
    loss.backward()
    for leaf in leaves:
        data = leaf.detach()
        assert leaf.grad.isfinite().all() and (leaf.grad != 0).any()
        for place in np.ndindex(*leaf.shape):
            if data[place].isfinite():
                data[place] += 1e-5
                up = float(graph_drift(kind, now, original).detach())
                data[place] -= 2e-5
                down = float(graph_drift(kind, now, original).detach())
                data[place] += 1e-5
                assert (up - down) / 2e-5 == pytest.approx(float(leaf.grad[place]), abs=1e-6)


# ---- balance


def test_balance_is_the_ratio_of_the_two_gradients():
    scores = torch.randn(3, 4, requires_grad=True)
    balance = GradientBalance("x")
    balance.EVERY = 1
    balance.watch([(2.0 * scores.sum(), None)], [(scores, torch.full((3, 4), -3.0))])
    assert balance.ratio == pytest.approx(1.5)
    assert scores.grad is None
    balance.watch([], [(scores, scores)])
    balance.watch([(scores.sum(), None)], [])
    assert balance.ratio == pytest.approx(1.5)


def test_an_end_task_that_outweighs_the_treebank_is_a_warning(monkeypatch):
    """Once, with the three remedies; not where the treebank has the say."""
    monkeypatch.setattr(GradientBalance, "BATCHES", 3)
    monkeypatch.setattr(GradientBalance, "EVERY", 2)
    for factor, outweighed in ((1000.0, True), (0.001, False)):
        nlp, examples = joint(surrogate="ste", grad_factor=factor)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(12):
                nlp.update(examples, sgd=SGD(1e-5))
        said = [str(warning.message) for warning in caught if "D004" in str(warning.message)]
        assert len(said) == outweighed
        for text in said:
            assert "'spigot_parser'" in text
            assert all(remedy in text for remedy in ("grad_factor", "structured_st", "fractions"))


def test_watching_changes_nothing(monkeypatch):
    weights = []
    for every in (1, 10**9):
        monkeypatch.setattr(GradientBalance, "EVERY", every)
        nlp, examples = joint()
        for _ in range(2):
            train_step(nlp, examples, Adam(0.01))
        weights.append(torch_weights(nlp))
    assert change(*weights) == 0


def test_safe_by_default():
    """A parser that knows its trees keeps them while an end task pulls at them; with SPIGOT it does not."""
    assert SpigotParserSettings().surrogate == StructuredStraightThrough()
    kept = {}
    for surrogate in ("structured_st", "spigot"):
        nlp, examples = make_pipeline(("spigot_parser", parser_config(surrogate=surrogate)))
        optimizer = Adam(0.01)
        for _ in range(60):
            nlp.update(examples, sgd=optimizer)
        gold = [example(doc) for doc in parsed_docs(nlp.vocab)]
        assert nlp.evaluate(gold)["dep_uas"] == 1.0
        kept[surrogate] = pulled(nlp)
    assert kept["structured_st"] >= 0.9 > kept["spigot"]


def pulled(nlp):
    """UAS after a classifier alone has pulled at the trees."""
    from toy_pipelines import head_concat

    nlp.add_pipe("masked_textcat", name="textcat", config=textcat_config(head_concat()))
    examples = [example(doc) for doc in categories(nlp.vocab)]
    nlp.get_pipe("textcat").initialize(lambda: examples, nlp=nlp)
    optimizer = Adam(0.01)
    for _ in range(15):
        nlp.update(examples, sgd=optimizer)
    return nlp.evaluate([example(doc) for doc in parsed_docs(nlp.vocab)])["dep_uas"]
