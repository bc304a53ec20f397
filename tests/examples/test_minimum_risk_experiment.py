"""The experiment on minimum risk: from text files to its table, and again from what it has finished."""

import json
import random
import sys
from unittest import mock

import pytest

pytest.importorskip("fairseq")

from examples.papers import minimum_risk


def corpus(folder, sentences):
    """A language and its mirror image."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 7))) for _ in range(60)]
    for split in ("train", "dev"):
        text = "".join(f"{' '.join(rng.choices(words, k=rng.randint(2, 6)))}\n" for _ in range(sentences))
        (folder / f"{split}.de").write_text(text, encoding="utf-8")
        mirrored = "".join(f"{line[::-1]}\n" for line in text.splitlines())
        (folder / f"{split}.en").write_text(mirrored, encoding="utf-8")


def train_here(runs, console, at_once):
    """Instead of processes of their own, which would each import everything."""
    from fairseq import checkpoint_utils
    from fairseq.logging import metrics
    from fairseq_cli import train

    for run in (run for run in runs if not run.finished):
        metrics.reset()
        vars(checkpoint_utils.save_checkpoint).pop("best", None)
        with mock.patch.object(sys, "argv", run.command):
            train.cli_main()
        run.finish()


def test_from_text_to_table(tmp_path):
    corpus(tmp_path, 40)
    out = tmp_path / "out"
    command = ["--quick", "--data", str(tmp_path), "--out", str(out), "--seeds", "7"]
    with mock.patch.object(minimum_risk, "train_together", train_here):
        minimum_risk.main(command)
    first = (out / "results.json").read_text()
    with mock.patch.object(minimum_risk, "train_together", all_finished):
        minimum_risk.main(command)
    assert (out / "results.json").read_text() == first
    found = json.loads(first)
    assert list(found["rows"]) == [minimum_risk.START, *minimum_risk.CONTINUATIONS]
    for name, (measures,) in found["rows"].items():
        assert len(measures) == 6 and all(value >= 0 for value in measures.values())
        (run,) = found["commands"][name]
        assert ("minimum_risk" if name == "minimum risk" else "cross_entropy") in run or "sampling" in name
        assert run[run.index("--seed") + 1] == ("1" if name == minimum_risk.START else "7")
    table = (out / "table.md").read_text()
    assert all(f"| {name} " in table for name in found["rows"])


def all_finished(runs, console, at_once):
    assert all(run.finished for run in runs)
