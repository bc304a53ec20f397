"""The core of fairseq's life cycle (``life_cycle.py``; ``make life-cycle`` runs all of it)."""

import re
from pathlib import Path

import pytest

pytest.importorskip("fairseq")

from life_cycle import CORE, Lab

STAND_IN = Path(__file__).with_name("faulty_batches.py")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("life_cycle"))


@pytest.mark.parametrize("step", CORE)
def test_step(step, lab):
    lab.after(step)


@pytest.mark.parametrize(("state", "expected"), [("faulty", 56), ("fixed", 60)])
def test_all_sentences_are_translated_also_by_the_faulty_main_branch(state, expected, lab):
    lab.after("train_lstm")
    arguments = "bin --cpu --path lstm/checkpoint_best.pt --beam 1 --batch-size 16"
    output = lab.run(f"{STAND_IN} {state} {arguments}")
    assert len(re.findall(r"^T-\d+\t", output, flags=re.MULTILINE)) == expected
