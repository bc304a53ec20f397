"""The translation recipe: its preparation, and what is read from files when it goes on."""

from unittest import mock

import pytest
import sacrebleu
from rich.console import Console

from examples._shared import translation
from examples.translation import run


def test_the_signature_needs_no_score_made_before():
    with mock.patch.object(run, "BLEU", sacrebleu.metrics.BLEU()):
        assert run.signature(["a b c d"]).startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_sides_of_different_length_are_one_line(tmp_path):
    for name, text in (("train.de", "a\nb\n"), ("train.en", "a\n"), ("dev.de", "a\n"), ("dev.en", "a\n")):
        (tmp_path / name).write_text(text)
    args = run.arguments(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"])
    with pytest.raises(ValueError, match=r"train\.de has 2 lines, train\.en 1: line n of one"):
        translation.prepare(args, Console(quiet=True))


def test_data_of_a_killed_command_is_made_again(tmp_path):
    """Text without units or binarised data is none."""
    for name in ("train.de", "train.en", "dev.de", "dev.en"):
        (tmp_path / name).write_text("a b a b\nb a\n")
    (tmp_path / "out").mkdir()
    args = run.arguments(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--vocabulary", "8"])
    with mock.patch.object(translation, "fairseq_command", side_effect=KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            translation.prepare(args, Console(quiet=True))
        assert not list((tmp_path / "out").iterdir())
    with mock.patch.object(translation, "fairseq_command") as binarise:
        assert translation.prepare(args, Console(quiet=True)) == ["a b a b", "b a"]
        assert translation.prepare(args, Console(quiet=True)) == ["a b a b", "b a"]
    assert binarise.call_count == 1
    assert (tmp_path / "out" / "data" / "units" / "train.de").is_file()
