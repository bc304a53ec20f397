"""Options: how they are shown, and their old names, which work with a warning until 0.3."""

import argparse
import dataclasses
import logging

import pytest
import test_scheduled_sampling_criterion
import test_soft_beam_criterion
import toy_corpus
import toy_models
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.utils import gen_parser_from_dataclass
from omegaconf import OmegaConf

import diffdecode
from fairseq_plugins import __main__ as shown
from fairseq_plugins.criterions.soft_beam import SoftBeamConfig
from fairseq_plugins.options import follow_old_names, option, rows

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
    "--no-fused": (test_scheduled_sampling_criterion, "no_fused", True, "fused", "never"),
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_name_is_the_new_one(name):
    module, old, value, new, now = OLD[name]
    given = f"--{old.replace('_', '-')}" + ("" if value is True else f" {value}")
    with pytest.warns(FutureWarning, match=f"{given} is now --{new} {now}"):
        criterion = module.criterion_for(toy_models.tagger(), **{old: value})
    assert getattr(criterion.cfg, new) == now and not getattr(criterion.cfg, old)


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
    for name in ("--top-k-operator", "--operator"):
        caplog.clear()
        toy_corpus.train(data, tmp_path / "run", *options, name, "lapsum")
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
    """From 0.3 on this test fails: then remove the fields made by ``old_name`` and ``old_switch``."""

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


def test_everything_registered_is_shown(capsys):
    with pytest.raises(SystemExit, match="0"):
        shown.main(["--help"])
    text = capsys.readouterr().out
    for name in (
        "--criterion soft_beam",
        "--criterion differentiable_scheduled_sampling",
        "--criterion minimum_risk",
        "--task sequence_tagging",
        "--task direct_loss_translation",
        "--arch fixed_attention_lstm_ner",
        "--arch fixed_attention_lstm_ccg",
        "--scoring conll_f1",
    ):
        assert f"\n{name}\n" in text
    words = " ".join(text.split())
    for _, _, config, about in shown.additions():
        assert about
        for row in rows(config) if config else ():
            assert f"{row.name} (default: {row.default})" in words
            assert " ".join(f"{row.meaning} [{row.source}]".replace("`", "").split()) in words


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_fairseq_shows_the_options_of_what_is_chosen(word, capsys):
    chosen = ["--task", "sequence_tagging", "--arch", "fixed_attention_lstm", "--criterion", "soft_beam"]
    with pytest.raises(SystemExit, match="0"):
        toy_corpus.run("train", "--user-dir", toy_corpus.USER_DIR, *chosen, word)
    text = " ".join(capsys.readouterr().out.split())
    for choice, name, config, _ in shown.additions():
        if config is not None and [choice, name] in [chosen[i : i + 2] for i in (0, 2, 4)]:
            for row in rows(config):
                assert f"{row.name} " in text or row.name == "--data"  # fairseq-train DATA
                assert f"(default: {row.default}; source: {row.source})" in text
    assert "--top-k-operator TOP_K_OPERATOR old name of --operator, until 0.3" in text


def test_a_misspelt_option_names_the_nearest(capsys):
    options = [
        *toy_corpus.TAGGER,
        "--criterion",
        "soft_beam",
        "--aplha",
        "3",
        "--soft-baem-size=2",
        "--xyzzyx",
    ]
    with pytest.raises(SystemExit, match="2"):
        toy_corpus.run("train", "data", "--user-dir", toy_corpus.USER_DIR, *options)
    message = capsys.readouterr().err
    assert "unrecognized arguments: --aplha 3 --soft-baem-size=2 --xyzzyx" in message
    assert "--aplha: did you mean --alpha?" in message
    assert "--soft-baem-size: did you mean --soft-beam-size?" in message
    assert "--xyzzyx: did" not in message


def test_an_option_may_hold_a_percent_sign():
    @dataclasses.dataclass
    class Config(FairseqDataclass):
        share: float = option(0.5, "from 0 to 100%", "ours")

    parser = argparse.ArgumentParser()
    gen_parser_from_dataclass(parser, Config())
    assert "from 0 to 100% (default: 0.5; source: ours)" in " ".join(parser.format_help().split())
