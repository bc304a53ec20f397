"""Material of experiments in translation: pairs of lines as sentencepiece units, fairseq's LSTM, BLEU."""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import sacrebleu
import sentencepiece
from rich.console import Console

from diffdecode.files.atomic import atomic_folder, write_text
from examples._shared.data import read_lines
from examples.papers._fairseq import Material
from fairseq_plugins.comparison import fairseq_command

ORDERS = 4  # of n-grams
SEARCH = {"max_len_a": 1.5, "max_len_b": 5}
WORD = re.compile(r"\w+(?:'\w+)*|[,.?!]")
Sides = tuple[list[str], list[str]]
"""Lines of the source and of the target."""


class Translation(Material):
    """Lines of two languages, of which some are kept aside.

    Args:
        pairs: to train on.
        units: size of embeddings and hidden layers.
        vocabulary: sentencepiece units, shared by both sides.
    """

    metric, other_measures = "bleu", ("chrF", "length")
    source, target = "de", "en"

    def __init__(self, pairs: int, units: int, vocabulary: int):
        self.pairs, self.units, self.vocabulary = pairs, units, vocabulary

    def add_options(self, add: Callable[..., object]) -> None:
        add("--pairs", type=int, default=self.pairs, help="to train on, drawn from train; 0: all")
        add("--aside", type=int, default=500, help="pairs of train by which all is chosen")
        add("--dev-pairs", type=int, default=0, help="dev pairs, the first; 0: all")
        add("--vocabulary", type=int, default=self.vocabulary, help="sentencepiece units of both sides")
        add("--units", type=int, default=self.units, help="size of embeddings and hidden layers")
        add("--max-tokens", type=int, default=2000, help="target units in a batch")

    def quick(self, args: argparse.Namespace) -> None:
        args.data, args.pairs, args.aside = None, min(args.pairs, 200), min(args.aside, 20)
        args.vocabulary, args.units = min(args.vocabulary, 100), min(args.units, 16)

    def read(self, data: Path, split: str) -> Sides:
        """Both sides of ``train`` or ``dev``. Raises ValueError if they have not as many lines."""
        sides = [read_lines(data, f"{split}.{language}") for language in (self.source, self.target)]
        if len(sides[0]) != len(sides[1]):
            raise ValueError(
                f"{data}: {split}.{self.source} has {len(sides[0]):,} lines, {split}.{self.target} "
                f"{len(sides[1]):,}: line n of one must translate line n of the other"
            )
        return sides[0], sides[1]

    def generated(self, pairs: int, seed: int) -> Sides:
        """A language and its mirror image."""
        rng = random.Random(seed)
        words = ["".join(random.Random(i).choices("abcdefghijklmnop", k=2 + i % 6)) for i in range(60)]
        lines = [" ".join(rng.choices(words, k=rng.randint(2, 6))) for _ in range(pairs)]
        return lines, [line[::-1] for line in lines]

    def prepare(self, args: argparse.Namespace, console: Console) -> None:
        if (args.out / "data").exists():
            return
        if args.data is None:
            train, dev = self.generated(args.pairs + args.aside, 0), self.generated(args.aside, 1)
        else:
            train, dev = self.read(args.data, "train"), self.read(args.data, "dev")
        pairs = list(zip(*train))
        random.Random(0).shuffle(pairs)
        if len(pairs) <= args.aside:
            raise ValueError(f"--aside {args.aside} leaves nothing of {len(pairs)} pairs to train on")
        splits = {
            "train": _sides(pairs[args.aside :][: args.pairs or None]),
            "valid": _sides(pairs[: args.aside]),
            "test": _sides(list(zip(*dev))[: args.dev_pairs or None]),
        }
        for split, (lines, _) in splits.items():
            console.print(f"{split}: {len(lines):,} pairs")
        with atomic_folder(args.out / "data") as folder:
            with console.status("sentencepiece"):
                self._write(folder / "text", splits)
                sentencepiece.SentencePieceTrainer.train(
                    input=[str(folder / "text" / f"train.{side}") for side in (self.source, self.target)],
                    model_prefix=str(folder / "sentencepiece"),
                    vocab_size=args.vocabulary,
                    hard_vocab_limit=False,  # little text has fewer
                    character_coverage=1.0,
                    minloglevel=2,
                )
            self._binarise(args.out, folder, folder, ["--joined-dictionary"], splits, console)

    def prepare_test(self, args: argparse.Namespace, console: Console) -> None:
        """The file ``--test`` is the source; the target lies beside it."""
        if (args.out / "given").exists():
            return
        splits = {"test": self.read(args.test.parent, args.test.name.partition(".")[0])}
        known = str(args.out / "data" / "bin" / f"dict.{self.source}.txt")
        with atomic_folder(args.out / "given") as folder:
            self._write(folder / "text", splits)
            options = ["--srcdict", known, "--tgtdict", known]
            self._binarise(args.out, folder, args.out / "data", options, splits, console)

    def _write(self, folder: Path, splits: dict[str, Sides]) -> None:
        folder.mkdir()
        for split, sides in splits.items():
            for language, lines in zip((self.source, self.target), sides):
                write_text(folder / f"{split}.{language}", "".join(f"{line}\n" for line in lines))

    def _binarise(
        self,
        out: Path,
        folder: Path,
        units: Path,
        options: list[str],
        splits: dict[str, Sides],
        console: Console,
    ) -> None:
        """Fill ``units`` and ``bin`` of a folder, by the sentencepiece model in another one."""
        model = sentencepiece.SentencePieceProcessor(model_file=str(units / "sentencepiece.model"))
        pieces = {
            split: tuple([" ".join(one) for one in model.encode(lines, out_type=str)] for lines in sides)
            for split, sides in splits.items()
        }
        self._write(folder / "units", pieces)
        command = ["-s", self.source, "-t", self.target, *options, "--destdir", str(folder / "bin")]
        for split in splits:
            command += [f"--{split}pref", str(folder / "units" / split)]
        with console.status("fairseq-preprocess"):
            fairseq_command("preprocess", command, out / "preprocess.log")

    def train(self, args: argparse.Namespace) -> list[str]:
        sizes = ("encoder-embed-dim", "encoder-hidden-size", "decoder-embed-dim", "decoder-hidden-size")
        options = """--task direct_loss_translation --arch lstm --encoder-bidirectional --encoder-layers 1
            --decoder-layers 1 --eval-bleu --eval-bleu-remove-bpe sentencepiece"""
        searched = ", ".join(f'"{name}": {value}' for name, value in {"beam": 1, **SEARCH}.items())
        return [
            *[str(args.out / "data" / "bin"), *options.split(), "--eval-bleu-args", f"{{{searched}}}"],
            *[part for size in (*sizes, "decoder-out-embed-dim") for part in (f"--{size}", str(args.units))],
            *["--max-tokens", str(args.max_tokens)],
        ]

    def generate(self, args: argparse.Namespace, split: str) -> list[str]:
        folder, split = ("given", "test") if split == "given" else ("data", split)
        return [
            *[str(args.out / folder / "bin"), "--task", "direct_loss_translation", "--gen-subset", split],
            *["--bpe", "sentencepiece", "--scoring", "sacrebleu", "--max-tokens", "8000"],
            *["--sentencepiece-model", str(args.out / "data" / "sentencepiece.model")],
            *["--max-len-a", str(SEARCH["max_len_a"]), "--max-len-b", str(SEARCH["max_len_b"])],
        ]

    def parts(self, args: argparse.Namespace, split: str, written: Path) -> np.ndarray:
        """Right n-grams, n-grams, and the lengths of what is written and of the reference."""
        bleu = sacrebleu.metrics.BLEU()
        scores = (
            bleu.corpus_score([line], [[reference]])
            for line, reference in zip(*self._lines(args, split, written))
        )
        return np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in scores], float)

    def others(self, args: argparse.Namespace, split: str, written: Path) -> dict[str, float]:
        """chrF in percent, and the length of what is written in percent of the references'."""
        lines, references = self._lines(args, split, written)
        bleu = sacrebleu.corpus_bleu(lines, [references])
        found = sacrebleu.corpus_chrf(lines, [references]).score, 100 * bleu.sys_len / bleu.ref_len
        return dict(zip(self.other_measures, found))

    def _lines(self, args: argparse.Namespace, split: str, written: Path) -> Sides:
        """What is written, and the references."""
        folder, name = ("given", "test") if split == "given" else ("data", split)
        references = read_lines(args.out / folder / "text", f"{name}.{self.target}")
        return translations(written, len(references)), references

    def score(self, parts: np.ndarray) -> np.ndarray:
        def bleu(row: np.ndarray) -> float:
            return sacrebleu.metrics.BLEU.compute_bleu(
                correct=row[:ORDERS].tolist(),
                total=row[ORDERS : 2 * ORDERS].tolist(),
                sys_len=int(row[-2]),
                ref_len=int(row[-1]),
                smooth_method="exp",
            ).score

        return np.apply_along_axis(bleu, -1, parts)


class WordOrder(Translation):
    """English from its own words, which are given in a random order.

    Args:
        pairs, units, vocabulary: as of ``Translation``.
    """

    source = "bag"
    lengths = range(4, 16)

    def read(self, data: Path, split: str) -> Sides:
        lines = dict.fromkeys(
            " ".join(WORD.findall(line.lower())) for line in read_lines(data, f"{split}.{self.target}")
        )
        return self._shuffled([line for line in lines if len(line.split()) in self.lengths], split)

    def generated(self, pairs: int, seed: int) -> Sides:
        return self._shuffled(super().generated(pairs, seed)[0], str(seed))

    def _shuffled(self, lines: list[str], seed: str) -> Sides:
        rng = random.Random(seed)
        return [" ".join(rng.sample(line.split(), len(line.split()))) for line in lines], lines


def _sides(pairs: Iterable[tuple[str, ...]]) -> Sides:
    source, target = zip(*pairs)
    return list(source), list(target)


def translations(path: Path, sentences: int) -> list[str]:
    """The ``sentences`` best hypotheses in fairseq-generate's output file, in the order of the data."""
    lines = re.findall(r"^D-(\d+)\t\S+\t(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    hypotheses = {int(number): text for number, text in lines}
    return [hypotheses[i] for i in range(sentences)]
