"""Material of experiments in tagging: sentences in columns, the LSTM tagger, accuracy or F1 of spans."""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from rich.console import Console

from diffdecode.files.atomic import atomic_folder, write_text
from examples._shared import grammar
from examples._shared.data import column_files
from examples.papers._fairseq import Material, Search
from fairseq_plugins.comparison import fairseq_command
from fairseq_plugins.convert_conll import Sentence, read_sentences
from fairseq_plugins.scoring.span_f1 import spans
from fairseq_plugins.words.spelling import NONE, SPELLINGS

DECODED = re.compile(r"^([TH])-(\d+)\t(?:\S+\t)?(.*)$", flags=re.MULTILINE)
# Binarised, unknown words would have no letters.
FORMAT = ["-s", "words", "-t", "labels", "--dataset-impl", "raw"]
SEARCHES = (
    Search("greedy", 1),
    Search("beam 3", 3),
    Search("beam 3, own lambda", 3, tuned=True),
    Search("soft beam 3", 3, "--search soft-beam --search-alpha 10"),
)
"""Columns of the soft beam's Tables 1 and 2, and a beam with the normaliser that is best for the system."""


class Tagging(Material):
    """Columns of words and labels, of which some are kept aside.

    Args:
        metric: ``accuracy`` of labels, or ``f1`` of spans.
        sentences: to train on.
        label_embedding: size of the labels' embeddings.
        direction: what a label sees (``--encoder-direction``).
        letters: what is read of a word's letters (``--char-features``).
    """

    def __init__(
        self,
        metric: str,
        sentences: int,
        label_embedding: int = 32,
        direction: str = "both",
        letters: str = NONE,
    ):
        self.metric, self.sentences, self.label_embedding = metric, sentences, label_embedding
        self.direction, self.letters = direction, letters

    def add_options(self, add: Callable[..., object]) -> None:
        add("--sentences", type=int, default=self.sentences, help="to train on, drawn from train; 0: all")
        add("--aside", type=int, default=1000, help="sentences of train by which all is chosen")
        add(
            "--direction",
            choices=("both", "word", "forward"),
            default=self.direction,
            help="what a label sees: all words, its own, or those so far",
        )
        add("--letters", choices=(*SPELLINGS, NONE), default=self.letters, help="what is read of them")
        add("--hidden", type=int, default=64, help="size of encoder, decoder and word embeddings")

    def quick(self, args: argparse.Namespace) -> None:
        args.data, args.sentences = None, min(args.sentences, 100)
        args.aside, args.hidden = min(args.aside, 40), min(args.hidden, 16)

    def prepare(self, args: argparse.Namespace, console: Console) -> None:
        if (args.out / "data").exists():
            return
        if args.data is None:
            sentences = {
                "train": grammar.corpus(args.sentences + args.aside, 1, spans=self.metric == "f1"),
                "test": grammar.corpus(args.aside, 2, spans=self.metric == "f1"),
            }
        else:
            files = column_files(args.data)
            sentences = {
                "train": list(read_sentences(files["train"])),
                "test": list(read_sentences(files["valid"])),
            }
        random.Random(0).shuffle(sentences["train"])
        if len(sentences["train"]) <= args.aside:
            raise ValueError(
                f"--aside {args.aside} leaves nothing of {len(sentences['train'])} sentences to train on"
            )
        sentences["valid"] = sentences["train"][: args.aside]
        sentences["train"] = sentences["train"][args.aside :][: args.sentences or None]
        # Words seen once become the unknown word, so that the model learns what to do with new words.
        _binarise(args.out, "data", sentences, ["--thresholdsrc", "2"], console)

    def prepare_test(self, args: argparse.Namespace, console: Console) -> None:
        if (args.out / "given").exists():
            return
        known = [
            part
            for side, name in (("words", "--srcdict"), ("labels", "--tgtdict"))
            for part in (name, str(args.out / "data" / f"dict.{side}.txt"))
        ]
        _binarise(args.out, "given", {"test": list(read_sentences(args.test))}, known, console)

    def train(self, args: argparse.Namespace) -> list[str]:
        return [
            *[str(args.out / "data"), "--task", "sequence_tagging", "--arch", "fixed_attention_lstm"],
            *["--encoder-direction", args.direction, "--encoder-embed-dim", str(args.hidden)],
            *["--encoder-hidden-size", str(args.hidden), "--decoder-hidden-size", str(args.hidden)],
            *["--decoder-embed-dim", str(self.label_embedding), "--char-embed-dim", str(args.hidden)],
            # Words seen once are unknown already.
            *["--char-features", args.letters, "--word-dropout", "0", "--max-tokens", "1000"],
        ]

    def generate(self, args: argparse.Namespace, split: str) -> list[str]:
        folder, split = ("given", "test") if split == "given" else ("data", split)
        return [
            *[str(args.out / folder), "--task", "sequence_tagging", "--gen-subset", split],
            *["--scoring", "conll_f1", "--max-tokens", "4000"],
        ]

    def parts(self, args: argparse.Namespace, split: str, written: Path) -> np.ndarray:
        """Right labels and words; or spans that are gold, predicted and both."""
        count = _labels if self.metric == "accuracy" else _spans
        found: dict[int, dict[str, list[str]]] = {}
        for side, number, labels in DECODED.findall(written.read_text(encoding="utf-8")):
            found.setdefault(int(number), {})[side] = labels.split()
        return np.array([count(found[i]["T"], found[i]["H"]) for i in sorted(found)], float)

    def score(self, parts: np.ndarray) -> np.ndarray:
        if self.metric == "accuracy":
            return 100 * parts[..., 0] / parts[..., 1]
        gold, predicted, both = np.moveaxis(parts, -1, 0)
        return 200 * both / np.maximum(gold + predicted, 1)


def _labels(gold: list[str], predicted: list[str]) -> tuple[int, ...]:
    return sum(a == b for a, b in zip(gold, predicted, strict=True)), len(gold)


def _spans(gold: list[str], predicted: list[str]) -> tuple[int, ...]:
    right, found = spans(gold), spans(predicted)
    return len(right), len(found), len(right & found)


def _binarise(
    out: Path, name: str, splits: dict[str, Iterable[Sentence]], options: list[str], console: Console
) -> None:
    """fairseq-preprocess, to the folder ``name``."""
    text = out / f"{name}-text"
    text.mkdir(parents=True, exist_ok=True)
    for split, sentences in splits.items():
        chosen = list(sentences)
        console.print(f"{split}: {len(chosen):,} sentences, {sum(len(words) for words, _ in chosen):,} words")
        for side, suffix in enumerate(("words", "labels")):
            write_text(text / f"{split}.{suffix}", "".join(" ".join(one[side]) + "\n" for one in chosen))
    prefixes = [part for split in splits for part in (f"--{split}pref", str(text / split))]
    with console.status("fairseq-preprocess"), atomic_folder(out / name) as unfinished:
        command = [*FORMAT, *options, *prefixes, "--destdir", str(unfinished)]
        fairseq_command("preprocess", command, out / "preprocess.log")
