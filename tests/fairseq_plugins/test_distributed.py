"""Two CPU processes compute what one does with the same total batch."""

import os
import subprocess
import sys

import pytest
import torch
import toy_corpus
from patience import HANGS_AFTER

CRITERIONS = {
    "direct": "soft_beam --alpha 1",
    "global": "soft_beam --objective global --score-normalizer 0 --ce-weight 0.5 --ce-history own",
    "minimum risk": "minimum_risk --risk span --include-reference",
    "scheduled sampling": "differentiable_scheduled_sampling --gold-schedule never",
}


@pytest.mark.parametrize("name", CRITERIONS)
def test_two_processes_are_one(tmp_path, name):
    """fairseq itself refuses to go on when gradient norms differ between processes."""
    data = toy_corpus.write_corpus(tmp_path)
    options = [*toy_corpus.TAGGER, "--criterion", *CRITERIONS[name].split(), "--max-epoch", "2"]
    toy_corpus.train(data, tmp_path / "one", *options, "--update-freq", "2", "--disable-validation")
    fixed = "--cpu --optimizer adam --lr 5e-3 --max-tokens 200 --seed 1 --num-workers 0 --disable-validation"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "fairseq_cli.train", str(data)]
    command += ["--user-dir", toy_corpus.USER_DIR, "--save-dir", str(tmp_path / "two"), *fixed.split()]
    command += ["--distributed-backend", "gloo", "--ddp-backend", "pytorch_ddp", *options]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    paths = [tmp_path / run / "checkpoint_last.pt" for run in ("one", "two")]
    one, two = (torch.load(path, weights_only=True)["model"] for path in paths)
    for parameter in one:
        torch.testing.assert_close(two[parameter], one[parameter], atol=2e-4, rtol=0)
