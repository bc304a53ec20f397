"""A toy tagging corpus, and fairseq's commands run inside the test process (seconds, not minutes)."""

import json
import random
import re
import sys
from pathlib import Path
from unittest import mock

from composed import compose_again

USER_DIR = str(Path(__file__).resolve().parents[2] / "fairseq_plugins")
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TAGGER = ["--task", "sequence_tagging", "--arch", "fixed_attention_lstm_ner", "--dropout", "0"]
SMALL_LSTM = ["--task", "translation", "--arch", "lstm"] + [
    argument
    for name in ("encoder-embed-dim", "decoder-embed-dim", "encoder-hidden-size", "decoder-hidden-size",
                 "decoder-out-embed-dim")
    for argument in (f"--{name}", "16")
]  # fmt: skip


def sentence(rng):
    """Words and labels; a word tells its label only in part, and I-X follows B-X or I-X."""
    labels = []
    for _ in range(rng.randint(1, 8)):
        last = labels[-1] if labels else 0
        labels.append(rng.choice([0, 0, 1, 3] if last == 0 else [0, last + last % 2]))
    words = [f"w{(6 * label + rng.randint(0, 8)) % 30}" for label in labels]
    return " ".join(words), " ".join(LABELS[label] for label in labels)


def write_corpus(folder: Path, sentences: int = 60, *options) -> Path:
    """Train, valid and test splits, made by ``fairseq-preprocess`` with *options*; returns their folder."""
    rng = random.Random(0)
    for split in ("train", "valid", "test"):
        pairs = [sentence(rng) for _ in range(sentences)]
        for side, suffix in enumerate(("words", "labels")):
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (folder / f"{split}.{suffix}").write_text(text, encoding="utf-8")
    prefixes = [f"--{split}pref={folder / split}" for split in ("train", "valid", "test")]
    run("preprocess", "-s", "words", "-t", "labels", *prefixes, "--destdir", folder / "bin", *options)
    return folder / "bin"


def run(command: str, *arguments) -> None:
    """``fairseq-<command> arguments`` in this process."""
    from importlib import import_module

    from fairseq import checkpoint_utils
    from fairseq.dataclass import utils
    from fairseq.logging import metrics

    # What fairseq keeps per process: meters, and the best score of the last run.
    metrics.reset()
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    if command == "generate":  # in this process alone: others take long to start and to end
        arguments = ("--num-workers", 0, *arguments)
    line = [f"fairseq-{command}", *map(str, arguments)]
    with mock.patch.object(sys, "argv", line), mock.patch.object(utils, "compose", compose_again):
        import_module(f"fairseq_cli.{command}").cli_main()


def train(data, save_dir, *options) -> None:
    """``fairseq-train`` on the CPU with small batches."""
    fixed = "--cpu --optimizer adam --lr 5e-3 --max-tokens 200 --seed 1 --num-workers 0 --log-format json"
    run("train", data, "--user-dir", USER_DIR, "--save-dir", save_dir, *fixed.split(), *options)


def logged(caplog, logger: str) -> list[dict]:
    """What fairseq logged in JSON under ``logger`` (``train``, ``valid``), oldest first."""
    messages = (record.getMessage() for record in caplog.records if record.name == logger)
    return [json.loads(message) for message in messages if re.match(r"^\{", message)]
