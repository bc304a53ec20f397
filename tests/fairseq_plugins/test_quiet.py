"""fairseq's commands print fairseq's own lines and none of the known warnings; others are shown as ever."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import toy_corpus

from fairseq_compat import quiet_warnings

SMALL_TRANSFORMER = ["--arch", "transformer", "--encoder-layers", "1", "--decoder-layers", "1"] + [
    argument
    for side in ("encoder", "decoder")
    for name, value in (("embed-dim", "16"), ("ffn-embed-dim", "16"), ("attention-heads", "2"))
    for argument in (f"--{side}-{name}", value)
]
SCRIPT = """\
import sys, warnings
sys.path[:0] = {folders!r}
import toy_corpus
data, folder = {data!r}, {folder!r}
toy_corpus.train(data, folder + "/tagger", *toy_corpus.TAGGER, "--criterion", "soft_beam", "--max-epoch", "1")
toy_corpus.train(data, folder + "/transformer", "--task", "direct_loss_translation", *{transformer!r},
    "--criterion", "differentiable_scheduled_sampling", "--rollout", "two_pass", "--max-epoch", "2")
common = "--user-dir", toy_corpus.USER_DIR, "--cpu"
task, path = ("--task", "sequence_tagging"), ("--path", folder + "/tagger/checkpoint_last.pt")
toy_corpus.run("validate", data, *common, *task, *path, "--max-tokens", "100")
toy_corpus.run("generate", data, *common, *task, *path, "--search", "soft-beam")
path = "--path", folder + "/transformer/checkpoint_last.pt"
toy_corpus.run("interactive", data, *common, "--task", "direct_loss_translation", *path, "--max-len-b", "5")
warnings.warn("something new")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_corpus.write_corpus(tmp_path_factory.mktemp("quiet"), sentences=10)


def printed(data, folder, off: str) -> str:
    """What the commands print to standard error."""
    folders = [str(path) for path in Path(__file__).parents[:2]]
    script = SCRIPT.format(folders=folders, data=str(data), folder=str(folder), transformer=SMALL_TRANSFORMER)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIFFDECODE_NO_FAIRSEQ_COMPAT": off}
    environment.pop("PYTHONWARNINGS", None)
    done = subprocess.run(
        [sys.executable, "-c", script], input="w1 w2\n", capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_commands_print_no_known_warning(data, tmp_path):
    lines = printed(data, tmp_path, off="").splitlines()
    (only,) = (line for line in lines if "Warning" in line)
    assert only.endswith("UserWarning: something new")
    assert [line for line in lines if " | " not in line] == [only]  # neither second lines of a warning


def test_they_do_without_the_fix(data, tmp_path):
    """If fairseq, hydra or torch no longer say one of these, the entry can go."""
    text = printed(data, tmp_path, off="quiet_warnings")
    said = [message for _, message, _ in quiet_warnings.KNOWN if re.search(message, text)]
    assert len(said) >= 6


def test_other_warnings_of_the_same_places_are_shown():
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        quiet_warnings.fix()
        for category, module in {(category, module) for category, _, module in quiet_warnings.KNOWN}:
            name = module.replace("\\", "") + "x"
            warnings.warn_explicit("something new", category, "file.py", 1, module=name, registry={})
        for _, message, module in quiet_warnings.KNOWN:
            text = message.replace("\\s*", "").replace("\\", "").replace("(autocast|GradScaler)", "autocast")
            if module:
                warnings.warn_explicit(text, UserWarning, "mine.py", 1, module="mine", registry={})
    places = {(category, module) for category, _, module in quiet_warnings.KNOWN}
    elsewhere = [module for _, _, module in quiet_warnings.KNOWN if module]
    assert len(seen) == len(places) + len(elsewhere)
