"""Two CPU processes compute what one does with the same total batch."""

import os
import subprocess
import sys

import pytest
import torch
import toy_corpus
from forked import Forked
from patience import HANGS_AFTER

CRITERIONS = {
    "direct": "soft_beam --alpha 1",
    "global": "soft_beam --objective global --score-normalizer 0 --ce-weight 0.5 --ce-history own",
    "minimum risk": "minimum_risk --risk span --include-reference",
    "scheduled sampling": "differentiable_scheduled_sampling --gold-schedule never",
}


# Plain steps: with Adam a rounding error in a gradient near zero is as large as any other step.
STEPS = ["--optimizer", "sgd", "--lr", "0.5"]
FIXED = "--cpu --max-tokens 200 --seed 1 --num-workers 0 --disable-validation"
FIXED += " --distributed-backend gloo --ddp-backend pytorch_ddp"


@pytest.mark.parametrize("name", CRITERIONS)
def test_two_processes_are_one(tmp_path, name):
    """fairseq itself refuses to go on when gradient norms differ between processes."""
    data, options = toy_corpus.write_corpus(tmp_path), options_of(name)
    one = [*command(data, tmp_path, "one"), *options, "--update-freq", "2"]
    assert Forked("fairseq_cli.train", one, tmp_path / "log").wait() == 0
    meeting = ["--distributed-init-method", f"file://{tmp_path / 'meeting'}", "--distributed-world-size", "2"]
    logs = [tmp_path / f"log{rank}" for rank in (0, 1)]
    processes = [
        Forked(
            "fairseq_cli.train",
            [
                *command(data, tmp_path),
                *options,
                *meeting,
                "--distributed-rank",
                str(rank),
                "--distributed-no-spawn",
            ],
            log,
        )
        for rank, log in enumerate(logs)
    ]
    for process, log in zip(processes, logs):
        assert process.wait() == 0, log.read_text()[-3000:]
    same_models(tmp_path)


def test_torchrun(tmp_path):
    data, options = prepared(tmp_path, "direct")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch += ["-m", "fairseq_cli.train", *command(data, tmp_path), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=HANGS_AFTER, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    same_models(tmp_path)


def prepared(folder, name):
    """Data and options; and one process has trained a model with them, in ``folder / "one"``."""
    data = toy_corpus.write_corpus(folder)
    options = options_of(name)
    toy_corpus.train(data, folder / "one", *options, "--update-freq", "2", "--disable-validation", *STEPS)
    return data, options


def options_of(name):
    return [*toy_corpus.TAGGER, "--criterion", *CRITERIONS[name].split(), "--max-epoch", "2"]


def command(data, folder, run="two"):
    fixed = [*FIXED.split(), *STEPS]
    return [str(data), "--user-dir", toy_corpus.USER_DIR, "--save-dir", str(folder / run), *fixed]


def same_models(folder):
    paths = [folder / run / "checkpoint_last.pt" for run in ("one", "two")]
    one, two = (torch.load(path, weights_only=True)["model"] for path in paths)
    for parameter in one:
        torch.testing.assert_close(two[parameter], one[parameter], atol=1e-5, rtol=0)
