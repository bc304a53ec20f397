"""Train a tagger by cross entropy, continue it by direct loss, and compare greedy decoding with beam search.

    python -m examples.tagging.demo                    # on a generated language
    python -m examples.tagging.demo --data FOLDER      # on FOLDER/train.tsv and FOLDER/dev.tsv (test.tsv if
    there is)

Goyal, Neubig, Dyer and Berg-Kirkpatrick (2018), "A Continuous Relaxation of Beam Search for End-to-end
Training of Neural Sequence Models". A cross-entropy model is continued twice, for the same number of updates:
by more cross entropy, and by the direct loss, the expected number of wrong tags of a relaxed beam search.
"""

import argparse
import time
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

import fairseq_plugins
from diffdecode.files.atomic import atomic_folder
from examples._shared import grammar
from examples._shared.commands import add_device, device, fairseq_device, one_line_errors
from examples._shared.data import column_files
from fairseq_plugins.comparison import (
    Decoding,
    Row,
    TrainingRun,
    claim,
    decoded_row,
    fairseq_command,
    report,
    train_together,
)
from fairseq_plugins.convert_conll import convert
from fairseq_plugins.options import DefaultsOnce
from fairseq_plugins.scoring.span_f1 import is_bio
from fairseq_plugins.words import NONE, SPELLINGS

USER_DIR = Path(fairseq_plugins.__file__).parent
CROSS_ENTROPY, CONTINUED, DIRECT = "cross entropy", "cross entropy, continued", "direct loss"
# Seeds of the generated train, dev and test sentences.
GENERATED = {"train": 1, "dev": 2, "test": 3}


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.tagging.demo",
        description=__doc__.partition("\n")[0],
        formatter_class=DefaultsOnce,
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder with train.tsv, dev.tsv and possibly test.tsv (or .gz, .conll)")
    add(
        "--out",
        type=Path,
        help="where everything is written; default: a folder of runs/, named after the data",
    )
    add("--seeds", type=int, nargs="+", default=[1], help="the whole comparison once for each")
    add("--sentences", type=int, help="train on the first N sentences only (generated language: 6000)")
    add("--hidden", type=int, default=64, help="size of the LSTM layers and of the word embeddings")
    add("--label-embedding", type=int, default=16, help="size of the label embeddings")
    add(
        "--char-features",
        choices=[*SPELLINGS, NONE],
        default=NONE,
        help="what the tagger reads of a word's letters: for real languages",
    )
    add("--epochs", type=int, default=12, help="epochs of the cross-entropy model")
    add("--more-epochs", type=int, default=6, help="epochs of each continuation")
    add("--max-tokens", type=int, default=1000, help="words in a batch")
    add("--lr", type=float, default=0.005, help="learning rate of the cross-entropy model (Adam)")
    add("--more-lr", type=float, default=0.0005, help="learning rate of both continuations")
    add(
        "--dropout",
        type=float,
        default=0.1,
        help="dropout of the cross-entropy models; direct loss uses none",
    )
    add("--beam", type=int, default=3, help="beam size, in direct loss and in decoding")
    add("--alpha", type=float, default=0.3, help="peakedness of the soft beam in the first epoch")
    add("--alpha-growth", type=float, default=1.5, help="factor on alpha after each epoch")
    add("--ce-weight", type=float, default=0.0, help="share of cross entropy in the direct loss")
    add("--wrong-label-costs", help="LABEL=COST,...: direct loss pays COST for predicting LABEL wrongly")
    add_device(parser, "auto")
    add("--quick", action="store_true", help="a few sentences and two epochs, to see that it works")
    return parser


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the name of the output folder depends on the data."""
    args = argument_parser().parse_args(argv)
    if args.quick:
        args.sentences, args.epochs, args.more_epochs = 200, 2, 1
    if args.out is None:
        data = "generated" if args.data is None else args.data.resolve().name
        args.out = Path("runs") / f"tagging-{data}{'-quick' if args.quick else ''}"
    args.device = device(args.device)
    return args


@one_line_errors("demo", RuntimeError)
def main(argv: list[str] | None = None) -> None:
    """The command; what an earlier call has finished is not done again."""
    args, console = arguments(argv), Console()
    started = time.monotonic()
    claim(args.out, settings(args))
    splits = prepare(args, console)
    measure = "f1" if has_spans(args.out / "text" / "train.labels") else "accuracy"
    runs = {seed: train(args, seed, measure, console) for seed in args.seeds}
    rows = [row_of(args, name, runs, splits[-1], console) for name in (CROSS_ENTROPY, CONTINUED, DIRECT)]
    measure = {"f1": "F1 of spans", "accuracy": "accuracy"}[measure]
    split = {"valid": "dev"}.get(splits[-1], splits[-1])
    about = {"measure": measure, "split": split, "beam": args.beam, "seeds": args.seeds}
    over = f"mean and deviation of seeds {args.seeds}" if len(args.seeds) > 1 else f"seed {args.seeds[0]}"
    report(rows, f"{measure} on {split}, percent\n{over}", about, args.out, console)
    console.print(verdict(rows, args.beam, split))
    console.print(f"{time.monotonic() - started:.0f} s in all")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the output folder belongs to: options, and the state of the user's files."""
    found = {name: value for name, value in vars(args).items() if name != "out"}
    if args.data is not None:
        files = [(path.name, path.stat()) for path in column_files(args.data).values()]
        found["files"] = "; ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files)
    return found


def prepare(args: argparse.Namespace, console: Console) -> list[str]:
    """Binarise the data in ``out/bin``; return fairseq's names of the splits: train, valid, maybe test."""
    files = generate(args) if args.data is None else column_files(args.data)
    for split, path in files.items():
        limit = args.sentences if split == "train" else None
        sentences, words = convert(path, args.out / "text" / split, limit=limit)
        console.print(f"{split}: {sentences:,} sentences, {words:,} words from {path}")
    text, binary = args.out / "text", args.out / "bin"
    if not binary.exists():
        prefixes = [part for split in files for part in (f"--{split}pref", str(text / split))]
        # Words seen once become the unknown word, so that the model learns what to do with new words.
        options = ["-s", "words", "-t", "labels", "--thresholdsrc", "2", "--dataset-impl", "raw"]
        with console.status("fairseq-preprocess"), atomic_folder(binary) as unfinished:
            command = [*options, *prefixes, "--destdir", str(unfinished)]
            fairseq_command("preprocess", command, args.out / "preprocess.log")
    return list(files)


def generate(args: argparse.Namespace) -> dict[str, Path]:
    """Write the generated language; ``{split: file}``."""
    sizes = {"train": args.sentences or 6000, "dev": 1000, "test": 2000}
    if args.quick:
        sizes |= {"dev": 50, "test": 50}
    folder = args.out / "data"
    folder.mkdir(exist_ok=True)
    for split, seed in GENERATED.items():
        grammar.write_columns(grammar.corpus(sizes[split], seed), folder / f"{split}.tsv")
    return column_files(folder)


def has_spans(labels: Path) -> bool:
    """Whether a label file holds BIO tags."""
    return is_bio(labels.read_text(encoding="utf-8").split())


def train(args: argparse.Namespace, seed: int, measure: str, console: Console) -> dict[str, TrainingRun]:
    """The cross-entropy run and, side by side, its two continuations: ``{name: run}``."""
    folder = args.out / f"seed{seed}"
    common = [
        *[str(args.out / "bin"), "--user-dir", str(USER_DIR), "--task", "sequence_tagging"],
        *fairseq_device(args.device),
        *["--arch", "fixed_attention_lstm", "--encoder-embed-dim", str(args.hidden)],
        *["--char-features", args.char_features, "--word-dropout", "0"],
        *["--encoder-hidden-size", str(args.hidden), "--decoder-hidden-size", str(args.hidden)],
        *["--decoder-embed-dim", str(args.label_embedding), "--optimizer", "adam", "--clip-norm", "1"],
        *["--max-tokens", str(args.max_tokens), "--seed", str(seed), "--num-workers", "0"],
        *["--eval-beam", str(args.beam), "--best-checkpoint-metric", measure],
        *["--maximize-best-checkpoint-metric", "--no-epoch-checkpoints", "--log-format", "json"],
        *["--log-interval", "10"],
    ]
    cross_entropy = ["--criterion", "cross_entropy", "--dropout", str(args.dropout)]
    direct = [
        *["--criterion", "soft_beam", "--operator", "peaked", "--soft-beam-size", str(args.beam)],
        *["--alpha", str(args.alpha)],
        *["--alpha-growth", str(args.alpha_growth), "--ce-weight", str(args.ce_weight), "--dropout", "0"],
        *(["--wrong-label-costs", args.wrong_label_costs] if args.wrong_label_costs else []),
    ]
    first = ["--lr", str(args.lr), "--max-epoch", str(args.epochs)]
    start = ["--finetune-from-model", str(folder / "ce" / "checkpoint_best.pt")]
    more = ["--lr", str(args.more_lr), "--max-epoch", str(args.more_epochs), *start]

    def run(name: str, subfolder: str, options: list[str], epochs: int) -> TrainingRun:
        return TrainingRun(name, folder / subfolder, [*common, *options], epochs, measure)

    runs = [
        run(CROSS_ENTROPY, "ce", [*cross_entropy, *first], args.epochs),
        run(CONTINUED, "ce_continued", [*cross_entropy, *more], args.more_epochs),
        run(DIRECT, "direct", [*direct, *more], args.more_epochs),
    ]
    console.rule(f"seed {seed}", align="left")
    train_together(runs[:1], console)
    train_together(runs[1:], console)
    return {run.name: run for run in runs}


def row_of(
    args: argparse.Namespace,
    name: str,
    runs: dict[int, dict[str, TrainingRun]],
    split: str,
    console: Console,
) -> Row:
    """Decode *split* with the model of that *name* of every seed."""
    generate = [
        *[str(args.out / "bin"), "--user-dir", str(USER_DIR), "--task", "sequence_tagging"],
        *fairseq_device(args.device),
        *["--gen-subset", split, "--scoring", "conll_f1", "--max-tokens", "4000"],
        "--no-progress-bar",
    ]
    found = [(by_name[name], by_name[CROSS_ENTROPY]) for by_name in runs.values()]
    return decoded_row(name, found, decodings(args.beam), generate, console)


def decodings(beam: int) -> tuple[Decoding, ...]:
    """Greedy, and with the beam."""
    return (
        Decoding("greedy", "greedy", ("--beam", "1")),
        Decoding("beam", f"beam of {beam}", ("--beam", str(beam))),
    )


def verdict(rows: list[Row], beam: int, split: str) -> str:
    """One plain sentence on the comparison."""
    by_name = {row.name: mean(row.scores[decodings(beam)[1].heading]) for row in rows}
    chosen = "" if split == "test" else " (the epoch was chosen on the same dev: a little optimistic)"
    gain = by_name[DIRECT] - by_name[CONTINUED]
    return (
        f"With a beam of {beam}, direct loss is {gain:+.2f} points from cross entropy continued for the same "
        f"number of updates{chosen}."
    )


if __name__ == "__main__":
    main()
