"""German-English pairs as fairseq reads them: sentencepiece units, binarised; and what it has translated."""

import argparse
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from rich.console import Console

import fairseq_plugins
from diffdecode.files.atomic import atomic_folder, write_text
from examples._shared.commands import fairseq_device
from examples._shared.data import read_lines
from fairseq_plugins.comparison import fairseq_command

LANGUAGES = ("de", "en")
USER_DIR = str(Path(fairseq_plugins.__file__).parent)


def prepare(args: argparse.Namespace, console: Console) -> list[str]:
    """Train sentencepiece, split, binarise, unless it has been done; returns the English dev sentences.

    Args:
        args: ``data``, ``out``, ``pairs`` and ``dev_pairs`` (0: all), ``vocabulary`` and ``seed``.
        console: says how many pairs there are.

    Raises:
        ValueError: the two sides of a split have different numbers of lines.
    """
    dev = {
        language: read_lines(args.data, f"dev.{language}")[: args.dev_pairs or None] for language in LANGUAGES
    }
    if (args.out / "data").exists():
        return dev["en"]
    sides = [read_lines(args.data, f"train.{language}") for language in LANGUAGES]
    for split, (german, english) in {"train": sides, "dev": [dev["de"], dev["en"]]}.items():
        if len(german) != len(english):
            raise ValueError(
                f"{args.data}: {split}.de has {len(german):,} lines, {split}.en {len(english):,}: "
                "line n of one must translate line n of the other"
            )
    train = list(zip(*sides))
    if args.pairs:
        train = random.Random(args.seed).sample(train, min(args.pairs, len(train)))
    console.print(f"{len(train):,} training pairs, {len(dev['en']):,} dev pairs from {args.data}")
    with atomic_folder(args.out / "data") as folder:
        _binarise(args, {"train": dict(zip(LANGUAGES, zip(*train))), "valid": dev}, folder, console)
    return dev["en"]


def _binarise(args: argparse.Namespace, splits: dict[str, Any], folder: Path, console: Console) -> None:
    """Fill ``folder`` with ``text``, ``units``, ``bin`` and ``sentencepiece.model``."""
    text, units = folder / "text", folder / "units"
    for made in (text, units):
        made.mkdir()
    for split, sides in splits.items():
        for language, lines in sides.items():
            write_lines(text / f"{split}.{language}", lines)
    with console.status("sentencepiece"):
        sentencepiece.SentencePieceTrainer.train(
            input=[str(text / f"train.{language}") for language in LANGUAGES],
            model_prefix=str(folder / "sentencepiece"),
            vocab_size=args.vocabulary,
            character_coverage=1.0,
            minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
        for split, sides in splits.items():
            for language, lines in sides.items():
                encoded = model.encode(list(lines), out_type=str)
                write_lines(units / f"{split}.{language}", (" ".join(pieces) for pieces in encoded))
    command = ["-s", "de", "-t", "en", "--joined-dictionary", "--destdir", str(folder / "bin")]
    command += ["--trainpref", str(units / "train"), "--validpref", str(units / "valid")]
    with console.status("fairseq-preprocess"):
        fairseq_command("preprocess", command, args.out / "preprocess.log")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, a line each."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def generate_options(out: Path, device: str) -> list[str]:
    """What fairseq-generate is told to translate the dev sentences with, but for the model and the search.

    Args:
        out: the folder that ``prepare`` has filled.
        device: ``cpu`` or ``cuda``.
    """
    data = out / "data"
    return [
        *[str(data / "bin"), "--user-dir", USER_DIR, "--task", "direct_loss_translation"],
        *["--gen-subset", "valid", "--bpe", "sentencepiece"],
        *["--sentencepiece-model", str(data / "sentencepiece.model")],
        *["--max-tokens", "8000", "--no-progress-bar", "--scoring", "sacrebleu"],
        *["--max-len-a", "1.5", "--max-len-b", "5", *fairseq_device(device)],
    ]


def translations(path: Path, sentences: int) -> list[str]:
    """The ``sentences`` best hypotheses in fairseq-generate's output file, in the order of the data."""
    lines = re.findall(r"^D-(\d+)\t\S+\t(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    hypotheses = {int(number): text for number, text in lines}
    return [hypotheses[i] for i in range(sentences)]
