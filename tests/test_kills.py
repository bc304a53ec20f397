"""In small what ``kills.py`` does with every resumable command: killed anywhere, it ends as undisturbed."""

import json
import sys

import kills
import pytest
import torch

TRAINING = """
import sys, pathlib
from rich.console import Console
from fairseq_plugins.comparison import TrainingRun, claim, train_together
from diffdecode.files.atomic import write_json

data, out = map(pathlib.Path, sys.argv[1:])
claim(out, {"of": "training"})
options = (
    "--task sequence_tagging --arch fixed_attention_lstm_ner --cpu --dropout 0.1 --max-tokens 100 --lr 0.01"
    " --optimizer adam --num-workers 0 --seed 1 --criterion cross_entropy --max-epoch 6 --patience 2"
    " --best-checkpoint-metric accuracy --maximize-best-checkpoint-metric --log-format json"
    " --no-epoch-checkpoints --user-dir fairseq_plugins"
)
run = TrainingRun("x", out / "run", [str(data / "bin"), *options.split()], 6, "accuracy")
train_together([run], Console())
write_json(out / "curve.json", run.curve())
"""


def trained(folder):
    """The curve, and the weights of the best epoch."""
    best = torch.load(folder / "run" / "checkpoint_best.pt", weights_only=True)
    return json.loads((folder / "curve.json").read_text()), {
        name: value.tolist() for name, value in best["model"].items() if isinstance(value, torch.Tensor)
    }


SMALL = {
    "a training of fairseq": kills.Resumable(
        lambda data, out: [sys.executable, "-c", TRAINING, str(data), str(out)], trained, kills.tagging_binary
    ),
    "an experiment": kills.Resumable(
        kills.estimators(
            "polynomial", *"--epochs 6 --variables 4 --exponents 2 --methods st reinmax".split()
        ),
        kills.grid,
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("name", SMALL)
def test_killed_anywhere_it_ends_as_undisturbed(name, tmp_path, monkeypatch):
    monkeypatch.setitem(kills.COMMANDS, name, SMALL[name])
    assert "the same result" in kills.survives(name, tmp_path, kills=2, seed=0)
