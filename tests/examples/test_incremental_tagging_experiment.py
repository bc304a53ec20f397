"""Tagging without right context: one small run of it all, and what its report says."""

import json
import re
from pathlib import Path

import pytest

from examples import incremental_tagging
from examples.incremental_tagging import __main__ as recipe
from fairseq_plugins.comparison import Row


def test_quick_on_the_generated_language(tmp_path, capsys):
    command = ["--quick", "--out", str(tmp_path / "out")]
    recipe.main(command)
    results = json.loads((tmp_path / "out/results.json").read_text())
    names = [recipe.START, *(arm.name for arm in recipe.ARMS)]
    assert [row["name"] for row in results["rows"]] == names
    assert all(0 < score[0] < 100 for row in results["rows"] for score in row["scores"].values())
    assert all(row["cpu_seconds"][0] > 0 for row in results["rows"])
    assert {one for chosen in results["lambda"].values() for one in chosen} <= {0.0, 1.0}
    for name in ("table.txt", "curves.png", "verdict.txt"):
        assert (tmp_path / "out" / name).stat().st_size
    printed = capsys.readouterr().out
    assert "global + own history - scheduled sampling" in printed


def test_the_learning_rate_of_every_run_decays_to_0_over_its_own_updates(tmp_path):
    args = recipe.arguments(["--out", str(tmp_path)])
    for run in recipe.runs_of(args, seed=1, updates=70):
        given = run.arguments
        total = given[given.index("--total-num-update") + 1]
        assert int(total) == 70 * run.epochs == int(given[given.index("--max-update") + 1])
        assert given[given.index("--encoder-direction") + 1] == "word"


def test_the_verdict_compares_seed_by_seed():
    scores = {recipe.CONTINUED: [70.0, 72.0], recipe.SAMPLING: [73.0, 72.0]}
    scores |= {recipe.DIRECT: [72.0, 73.0], recipe.GLOBAL: [71.0, 77.0]}
    rows = [Row(arm.name, {"beam": values}) for arm, values in scores.items()]
    text = recipe.verdict(rows, "beam")
    assert "global + own history - cross entropy, continued: +3.00 ±2.83 (+1.00, +5.00)" in text
    assert "direct loss + own history - scheduled sampling: +0.00 ±1.41 (-1.00, +1.00)" in text


def test_data_of_too_few_sentences_is_one_line(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("a\tX\n\nb\tX\n")
    with pytest.raises(SystemExit, match="--aside 1000 leaves nothing of 2 sentences"):
        recipe.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])


def test_the_readme_lists_every_option_with_its_default():
    readme = (Path(incremental_tagging.__path__[0]) / "README.md").read_text(encoding="utf-8")
    table = [line for line in readme.splitlines() if line.startswith("| `--")]
    rows = {name: line for line in table for name in re.findall(r"`(--[\w-]+)`", line.split("|")[1])}
    for action in recipe.argument_parser()._actions:
        (name,) = [name for name in action.option_strings if name.startswith("--")]
        if name != "--help":
            assert name in rows, name
            if isinstance(action.default, int | float) and not action.const:
                assert re.search(rf"(?<![\d.]){action.default:g}(?![\d.])", rows[name]), rows[name]
