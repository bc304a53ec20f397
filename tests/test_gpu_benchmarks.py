"""``make gpu``: nothing without a card, and a rehearsal of its stages on the CPU."""

import importlib
import json
import sys

import pytest
import torch

from benchmarks.fairseq_step import CRITERIONS
from benchmarks.gpu.__main__ import MODULES, STAGES, files_for_a_card, main
from benchmarks.gpu.card import Card


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_does_nothing_without_a_card(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("nothing done: there is no CUDA device")


def test_takes_less_than_nine_minutes():
    assert sum(STAGES.values()) < 9 * 60


def test_all_files_for_a_card_are_run(request):
    """Of those that are collected in this run."""
    found = {
        item.path.relative_to(item.config.rootpath).as_posix()
        for item in request.session.items
        if item.get_closest_marker("gpu")
    }
    assert found <= set(files_for_a_card())
    assert {"tests/gpu/test_waits.py", "tests/spacy_components/test_on_a_gpu.py"} <= set(files_for_a_card())


def test_a_rehearsal_writes_where_it_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--rehearse"])
    assert "--out" in capsys.readouterr().err


def test_what_has_its_results_is_not_run_again(tmp_path, capsys, monkeypatch):
    run = []
    monkeypatch.setattr(
        "benchmarks.gpu.__main__._run", lambda stage, *rest: run.append(stage) or stage != "fairseq"
    )
    (tmp_path / "structure.json").write_text(
        json.dumps({"about": {"card": "c", "torch": "t", "date": "d"}, "complete": True, "tables": {}})
    )
    assert main(["--rehearse", "--out", str(tmp_path)]) == 1
    assert run == [stage for stage in STAGES if stage != "structure"]
    assert "failed: fairseq" in capsys.readouterr().out
    run.clear()
    main(["--rehearse", "--out", str(tmp_path), "structure"])
    assert run == ["structure"]


def once(self, steps, **_):
    for step in steps.values():
        step()
    return dict.fromkeys(steps, 1.0)


def test_stages_with_a_framework_have_a_first_table(monkeypatch):
    monkeypatch.setattr(Card, "medians", once)
    monkeypatch.setattr("benchmarks.gpu.spacy_parsers.CHOSEN", ("spigot_parser",))
    monkeypatch.setattr(
        "benchmarks.gpu.fairseq_criterions.CRITERIONS", {"cross entropy": CRITERIONS["cross entropy"]}
    )
    for stage in ("fairseq", "spacy"):
        what, rows = next(importlib.import_module(MODULES[stage]).measure(Card.found(rehearse=True)))
        assert what and rows and not any("failed" in one for one in rows)


@pytest.mark.parametrize("stage", ["structure", "sequence"])
def test_stages_are_rehearsed(tmp_path, stage, monkeypatch):
    """Those without frameworks, to their end."""
    monkeypatch.setattr(Card, "medians", once)
    out = str(tmp_path / "out")
    assert main(["--rehearse", "--measure", "--out", out, stage]) == 0
    tables = json.loads((tmp_path / "out" / f"{stage}.json").read_text())["tables"]
    assert all(one["ms"] > 0 for rows in tables.values() for one in rows)
    monkeypatch.setattr("benchmarks.gpu.__main__._run", lambda *_: True)
    assert main(["--rehearse", "--out", out, stage]) == 0
    assert "| what | ms | ratio |" in (tmp_path / "out" / "tables.md").read_text()
    assert (tmp_path / "out" / "ratios.png").stat().st_size > 1000
    assert "matplotlib" in sys.modules
