"""Options that have been renamed work under their old names, with a warning, until 0.3."""

import dataclasses
import logging

import pytest
import test_scheduled_sampling_criterion
import test_soft_beam_criterion
import toy_corpus
import toy_models
from fairseq.dataclass import FairseqDataclass
from omegaconf import OmegaConf

import diffdecode
from fairseq_plugins.criterions.soft_beam import SoftBeamConfig
from fairseq_plugins.old_names import follow_old_names

OLD = {
    "--top-k-operator": (test_soft_beam_criterion, "top_k_operator", "softsort", "operator", "softsort"),
    "--relaxation": (
        test_scheduled_sampling_criterion,
        "relaxation",
        "gumbel_soft",
        "estimator",
        "gumbel_soft",
    ),
    "--relaxation, value": (
        test_scheduled_sampling_criterion,
        "relaxation",
        "soft_argmax",
        "estimator",
        "soft",
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_name_is_the_new_one(name):
    module, old, value, new, now = OLD[name]
    with pytest.warns(FutureWarning, match=rf"--{old.replace('_', '-')} {value} is now --{new} {now}"):
        criterion = module.criterion_for(toy_models.tagger(), **{old: value})
    assert getattr(criterion.cfg, new) == now and getattr(criterion.cfg, old) is None


def test_old_and_new_together_are_refused():
    with pytest.raises(ValueError, match="--top-k-operator is the old name of --operator: give one of them"):
        test_soft_beam_criterion.criterion_for(
            toy_models.tagger(), top_k_operator="softsort", operator="lapsum"
        )


def test_new_names_warn_of_nothing(recwarn):
    test_soft_beam_criterion.criterion_for(toy_models.tagger(), operator="softsort")
    assert not [warning for warning in recwarn if warning.category is FutureWarning]


def test_on_the_command_line(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    data = toy_corpus.write_corpus(tmp_path, sentences=10)
    options = [
        *toy_corpus.TAGGER,
        "--criterion",
        "soft_beam",
        "--max-epoch",
        "1",
        "--no-save",
        "--alpha",
        "5",
    ]
    found = []
    for option in ("--top-k-operator", "--operator"):
        caplog.clear()
        toy_corpus.train(data, tmp_path / "run", *options, option, "lapsum")
        found.append(toy_corpus.logged(caplog, "train")[-1]["train_beam_overlap"])
    caplog.clear()
    toy_corpus.train(data, tmp_path / "run", *options)
    assert found[0] == found[1] != toy_corpus.logged(caplog, "train")[-1]["train_beam_overlap"]


def test_in_a_configuration():
    cfg = OmegaConf.merge(OmegaConf.structured(SoftBeamConfig), {"top_k_operator": "lapsum"})
    with pytest.warns(FutureWarning):
        follow_old_names(cfg, SoftBeamConfig)
    assert cfg.operator == "lapsum" and cfg.top_k_operator is None


def test_old_names_go_with_the_release_that_was_promised():
    """From 0.3 on this test fails: then remove the fields made by ``old_name``."""

    def configurations(base):
        yield base
        for one in base.__subclasses__():
            yield from configurations(one)

    left = [
        f"{config.__name__}.{field.name}"
        for config in configurations(FairseqDataclass)
        for field in dataclasses.fields(config)
        if "new" in field.metadata
    ]
    assert not left or tuple(map(int, diffdecode.__version__.split(".")[:2])) < (0, 3), left
