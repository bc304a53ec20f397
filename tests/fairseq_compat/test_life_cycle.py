"""The core of fairseq's life cycle, in forks; ``make life-cycle`` runs all of it in real processes."""

import re
from pathlib import Path

import pytest

pytest.importorskip("fairseq")

from forked import Forked
from life_cycle import CORE, Lab

STAND_IN = Path(__file__).with_name("faulty_batches.py")


class ForkedLab(Lab):
    """Runs its commands in forks, which need not import everything first."""

    def execute(self, arguments, stdin):
        log = self.folder / "printed"
        log.unlink(missing_ok=True)
        module, *rest = arguments[arguments[0] == "-m" :]
        process = Forked(module, rest, log, self.folder, stdin)
        return process.wait(), log.read_text()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return ForkedLab(tmp_path_factory.mktemp("life_cycle"))


@pytest.mark.parametrize("step", CORE)
def test_step(step, lab):
    lab.after(step)


@pytest.mark.parametrize(("state", "expected"), [("faulty", 56), ("fixed", 60)])
def test_all_sentences_are_translated_also_by_the_faulty_main_branch(state, expected, lab):
    lab.after("train_lstm")
    arguments = "bin --cpu --path lstm/checkpoint_best.pt --beam 1 --batch-size 16"
    output = lab.run(f"{STAND_IN} {state} {arguments}")
    assert len(re.findall(r"^T-\d+\t", output, flags=re.MULTILINE)) == expected
