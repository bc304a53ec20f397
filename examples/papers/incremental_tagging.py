"""Tagging without right context: ways to go on from cross entropy, each with its own best normaliser.

    python -m examples.papers.incremental_tagging --data DIR     # train.tsv and dev.tsv in DIR
    python -m examples.papers.incremental_tagging --quick        # a generated language, hardly any training

Where labels are written while words still arrive, a tagger cannot look to the right. A beam could make up for
it, since later words revise earlier labels; but log-probabilities hardly let them (label bias), and scores
that are not normalised do (Andor et al. 2016, section 3; Goyal, Dyer and Berg-Kirkpatrick 2019).

1. Of ``train``, 1,000 sentences are kept aside: all that is chosen is chosen by them. ``dev`` gives the
   table.
2. Cross entropy trains a tagger that sees one word at a time, and its letters, to a plateau.
3. It goes on by cross entropy, by scheduled sampling on its own words, by direct loss and by the global
   objective (the last two beside cross entropy on the model's own history); learning rates decay to 0.
   Numbers of epochs are such that the last three take about the same time; cross entropy gains nothing by
   more. Each way is given the same learning rates and dropouts with the first seed, and keeps the pair that
   is best on the sentences kept aside.
4. Each model decodes greedily, and with a beam at lambda 1 and at the lambda that is best on the sentences
   kept aside, for local scores ``logit - lambda log Z``.

It prints a table after each seed, and writes ``results.json`` (all numbers, what was chosen, the exact
commands of fairseq), ``table.txt``, ``curves.png`` and ``verdict.txt`` (differences, seed by seed).
Interrupted, it goes on where it was; seeds can be added.
"""

import argparse
import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.options import get_training_parser, parse_args_and_arch
from fairseq.tasks import setup_task
from rich.console import Console

import fairseq_plugins
from diffdecode.files.atomic import atomic_folder, write_text
from examples._shared import grammar
from examples._shared.commands import add_device, add_out, device, fairseq_device, one_line_errors
from examples._shared.data import column_files
from examples._shared.records import Record, by_seed, typed
from fairseq_plugins.comparison import (
    Decoding,
    Row,
    TrainingRun,
    claim,
    decode,
    fairseq_command,
    report,
    train_together,
)
from fairseq_plugins.comparison.runs import continued
from fairseq_plugins.convert_conll import read_sentences
from fairseq_plugins.words.spelling import NONE, SPELLINGS

NAME = "examples.papers.incremental_tagging"
USER_DIR = Path(fairseq_plugins.__file__).parent
START = "cross entropy"
START_POINT = (0.008, 0.3)
VALIDATIONS = 2  # of each run: the learning rate ends at 0, so that epochs differ little
MAY_CHANGE = ("out", "seeds", "arms", "lambdas", "lr", "dropout")  # when a run is taken up again
SOFT_BEAM = "--criterion soft_beam --score-normalizer 0 --ce-weight 0.5 --ce-history own"


@dataclass(frozen=True)
class Arm:
    """One way to go on.

    Attributes:
        name: what the table calls it.
        folder: of its runs.
        epochs: so many that all arms take about the same time; cross entropy, which is at its plateau, less.
        options: the criterion, and the lambda of validation, by which epochs and grid points are chosen.
    """

    name: str
    folder: str
    epochs: int
    options: str


CONTINUED = Arm("cross entropy, continued", "ce", 16, "--criterion cross_entropy --score-normalizer 0.25")
SAMPLING = Arm(
    "scheduled sampling",
    "sampling",
    12,
    "--criterion differentiable_scheduled_sampling --gold-schedule never --alpha 1 --alpha-growth 1 "
    "--score-normalizer 0.25",
)
DIRECT = Arm(
    "direct loss + own history",
    "direct",
    4,
    f"{SOFT_BEAM} --operator softsort --alpha 1 --alpha-growth 1.3 --soft-beam-candidates 24 "
    "--soft-beam-tolerance 1",
)
GLOBAL = Arm("global + own history", "global", 4, f"{SOFT_BEAM} --objective global --soft-beam-size 6")
ARMS = {arm.folder: arm for arm in (CONTINUED, SAMPLING, DIRECT, GLOBAL)}
Point = tuple[float, float]
"""Of the grid: learning rate and dropout."""


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.papers.incremental_tagging",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        help="folder with train.tsv and dev.tsv (or .gz, .conll); default: a generated language",
    )
    add_out(parser, "runs/incremental_tagging")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="the whole comparison once for each")
    add("--arms", choices=tuple(ARMS), nargs="+", default=list(ARMS), help="ways to go on")
    add("--sentences", type=int, default=4000, help="to train on, drawn from train; 0: all")
    add("--aside", type=int, default=1000, help="sentences of train by which epoch and lambda are chosen")
    add(
        "--direction",
        choices=("word", "forward"),
        default="word",
        help="what a label sees: its word, or all so far",
    )
    add(
        "--letters",
        choices=(*SPELLINGS, NONE),
        default="suffix",
        help="what is read of a word's letters (--char-features of fairseq-train)",
    )
    add("--epochs", type=int, default=20, help="epochs of the cross-entropy model that all continue")
    add("--lr", type=float, nargs="+", default=[0.004, 0.008], help="of the continuations: the grid")
    add("--dropout", type=float, nargs="+", default=[0.3], help="of the continuations: the grid")
    add("--scale", type=float, default=1.0, help="factor on the epochs of all continuations")
    add(
        "--hidden",
        type=int,
        default=64,
        help="size of the decoder, the word embeddings and the encoder, if any",
    )
    add("--beam", type=int, default=10, help="beam size of the table")
    add("--lambdas", type=float, nargs="+", default=[0.0, 0.25, 0.5, 1.0], help="what is chosen from")
    add_device(parser, "cpu")
    add("--quick", action="store_true", help="a few sentences, hardly any epochs, to see that it works")
    return parser


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    args = argument_parser().parse_args(argv)
    if args.quick:
        args.sentences, args.aside = min(args.sentences, 100), min(args.aside, 40)
        args.epochs, args.scale, args.beam = 2, 0.01, min(args.beam, 3)
        args.seeds, args.lambdas, args.lr = args.seeds[:1], [0.0, 1.0], args.lr[:1]
    args.device = device(args.device)
    args.arms = [arm for name, arm in ARMS.items() if name in args.arms]
    return args


@one_line_errors("incremental_tagging", RuntimeError)
def main(argv: list[str] | None = None) -> None:
    """The command; what an earlier call has finished is not done again."""
    args, console = arguments(argv), Console()
    claim(args.out, {name: value for name, value in vars(args).items() if name not in MAY_CHANGE})
    prepare(args, console)
    updates = updates_per_epoch(args)
    rows = [Row(name) for name in (START, *(arm.name for arm in args.arms))]
    lambdas: dict[str, list[float]] = {row.name: [] for row in rows}
    points: dict[str, Point] = {}
    for seed in args.seeds:
        console.rule(f"seed {seed}", align="left")
        start = start_run(args, seed, updates)
        train_together([start], console, at_once=1)
        for arm in args.arms:
            if arm.name not in points:
                points[arm.name] = best_point(args, arm, start, seed, updates, console)
        runs = [
            start,
            *(continuation(args, arm, points[arm.name], start, seed, updates) for arm in args.arms),
        ]
        train_together(runs[1:], console, at_once=1)
        for row, run in zip(rows, runs):
            lambdas[row.name].append(add_to(row, run, start, args, console))
        about = {"measure": "accuracy", "split": "dev", "seeds": args.seeds}
        about |= {"lambda": lambdas, "learning rate and dropout": points}
        report(rows, f"accuracy on dev, percent; seeds {seed_list(args, seed)}", about, args.out, console)
        text = verdict(rows, tuned_heading(args))
        write_text(args.out / "verdict.txt", text + "\n")
        console.print(text)
        record(args, argv, rows).leave(args.out)


def record(args: argparse.Namespace, argv: list[str] | None, rows: list[Row]) -> Record:
    """Every score of every seed that is done."""
    return Record(
        NAME,
        typed(NAME, argv),
        dict.fromkeys(rows[0].scores, 1),
        {row.name: {h: by_seed(values, args.seeds) for h, values in row.scores.items()} for row in rows},
        {row.name: mean(known) for row in rows if (known := [s for s in row.cpu_seconds if s is not None])},
    )


def seed_list(args: argparse.Namespace, last: int) -> str:
    """The seeds up to the last one that is done."""
    return ", ".join(map(str, args.seeds[: args.seeds.index(last) + 1]))


def best_point(
    args: argparse.Namespace, arm: Arm, start: TrainingRun, seed: int, updates: int, console: Console
) -> Point:
    """The learning rate and dropout whose run is best on the sentences kept aside; of equals the first."""
    runs = {
        point: continuation(args, arm, point, start, seed, updates)
        for point in itertools.product(args.lr, args.dropout)
    }
    train_together(list(runs.values()), console, at_once=1)
    return max(runs, key=lambda point: max(one["metric"] for one in runs[point].curve()))


def prepare(args: argparse.Namespace, console: Console) -> None:
    """Text and binarised data in ``out``: train and valid drawn from the train file, test from dev."""
    text, data = args.out / "text", args.out / "data"
    if data.exists():
        return
    if args.data is None:
        sentences = {
            "train": grammar.corpus(args.sentences + args.aside, 1),
            "test": grammar.corpus(args.aside, 2),
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
    text.mkdir(parents=True, exist_ok=True)
    for split, chosen in sentences.items():
        console.print(f"{split}: {len(chosen):,} sentences, {sum(len(words) for words, _ in chosen):,} words")
        for side, suffix in enumerate(("words", "labels")):
            write_text(text / f"{split}.{suffix}", "".join(" ".join(one[side]) + "\n" for one in chosen))
    prefixes = [part for split in sentences for part in (f"--{split}pref", str(text / split))]
    # Words seen once become the unknown word, so that the model learns what to do with new words.
    # Binarised, unknown words would have no letters.
    options = ["-s", "words", "-t", "labels", "--thresholdsrc", "2", "--dataset-impl", "raw"]
    with console.status("fairseq-preprocess"), atomic_folder(data) as unfinished:
        fairseq_command(
            "preprocess", [*options, *prefixes, "--destdir", str(unfinished)], args.out / "preprocess.log"
        )


def common(args: argparse.Namespace) -> list[str]:
    """Options of fairseq-train that all runs share."""
    return [
        *[str(args.out / "data"), "--user-dir", str(USER_DIR), "--task", "sequence_tagging"],
        *["--arch", "fixed_attention_lstm", "--encoder-direction", args.direction],
        *["--encoder-embed-dim", str(args.hidden), "--encoder-hidden-size", str(args.hidden)],
        # Words seen once are unknown already.
        *["--char-features", args.letters, "--char-embed-dim", str(args.hidden), "--word-dropout", "0"],
        *["--decoder-hidden-size", str(args.hidden), "--decoder-embed-dim", "32"],
        *["--optimizer", "adam", "--clip-norm", "1", "--max-tokens", "1000", "--num-workers", "0"],
        *["--best-checkpoint-metric", "accuracy", "--maximize-best-checkpoint-metric"],
        *["--no-epoch-checkpoints", "--log-format", "json", "--log-interval", "10"],
        *fairseq_device(args.device),
    ]


def updates_per_epoch(args: argparse.Namespace) -> int:
    """Batches of the training set, on which the decay of the learning rate depends."""
    command = [*common(args), "--criterion", "cross_entropy"]
    cfg = convert_namespace_to_omegaconf(parse_args_and_arch(get_training_parser(), command))
    task = setup_task(cfg.task)
    task.load_dataset("train")
    itr = task.get_batch_iterator(
        task.dataset("train"),
        max_tokens=cfg.dataset.max_tokens,
        required_batch_size_multiple=cfg.dataset.required_batch_size_multiple,
    )
    return len(itr)


def start_run(args: argparse.Namespace, seed: int, updates: int) -> TrainingRun:
    """The cross-entropy run of a seed, which all others continue."""
    options = ["--criterion", "cross_entropy"]
    return training_run(args, START, f"seed{seed}/start", options, args.epochs, START_POINT, seed, updates)


def continuation(
    args: argparse.Namespace, arm: Arm, point: Point, start: TrainingRun, seed: int, updates: int
) -> TrainingRun:
    """One way to go on from a start."""
    options = ["--finetune-from-model", str(start.best), "--eval-beam", "5", *arm.options.split()]
    folder = f"seed{seed}/{arm.folder}-lr{point[0]:g}-dropout{point[1]:g}"
    epochs = max(1, round(arm.epochs * args.scale))
    return training_run(args, arm.name, folder, options, epochs, point, seed, updates)


def training_run(
    args: argparse.Namespace,
    name: str,
    folder: str,
    options: list[str],
    epochs: int,
    point: Point,
    seed: int,
    updates: int,
) -> TrainingRun:
    """A run whose learning rate decays to 0 over its ``epochs``, of ``updates`` updates each."""
    total, interval = str(epochs * updates), str(max(1, epochs // VALIDATIONS))
    schedule = ["--lr-scheduler", "polynomial_decay", "--total-num-update", total, "--max-update", total]
    schedule += ["--validate-interval", interval, "--save-interval", interval, "--seed", str(seed)]
    schedule += ["--lr", str(point[0]), "--dropout", str(point[1])]
    command = [*common(args), *options, *schedule]
    return TrainingRun(name, args.out / folder, command, epochs, "accuracy")


def tuned_heading(args: argparse.Namespace) -> str:
    """Heading of the column that is compared."""
    return f"beam {args.beam}, tuned lambda"


def add_to(
    row: Row, run: TrainingRun, start: TrainingRun, args: argparse.Namespace, console: Console
) -> float:
    """Decode one run for its row of the table; the lambda that the sentences kept aside choose."""

    def accuracy(split: str, beam: int, normalizer: float) -> float:
        options = ("--gen-subset", split, "--beam", str(beam), "--score-normalizer", f"{normalizer:g}")
        key = f"{split}-beam{beam}-lambda{normalizer:g}"
        with console.status(f"decoding: {run.name}, {key}"):
            return decode(run, Decoding(key, key, options), generate)

    generate = [
        str(args.out / "data"),
        "--user-dir",
        str(USER_DIR),
        "--task",
        "sequence_tagging",
        *fairseq_device(args.device),
    ]
    generate += ["--scoring", "conll_f1", "--max-tokens", "4000", "--num-workers", "0", "--no-progress-bar"]
    best = max(args.lambdas, key=lambda one: accuracy("valid", args.beam, one))
    scores = {
        "greedy": accuracy("test", 1, 1.0),
        f"beam {args.beam}, lambda 1": accuracy("test", args.beam, 1.0),
        tuned_heading(args): accuracy("test", args.beam, best),
    }
    for heading, score in scores.items():
        row.scores.setdefault(heading, []).append(score)
    curve = run.curve()
    row.updates.append(curve[-1]["updates"])
    row.cpu_seconds.append(run.cpu_seconds())
    row.curves.append(curve if run is start else continued(start.curve(), curve))
    row.commands.append(run.command)
    return best


def verdict(rows: list[Row], heading: str) -> str:
    """Differences of the last column, seed by seed, in one line each."""
    scores: dict[str, Any] = {row.name: row.scores[heading] for row in rows}
    lines = []
    for arm, other in itertools.product((DIRECT, GLOBAL), (CONTINUED, SAMPLING)):
        if arm.name in scores and other.name in scores:
            pairs = zip(scores[arm.name], scores[other.name], strict=True)
            gains = [mine - theirs for mine, theirs in pairs]
            spread = f" ±{stdev(gains):.2f}" if len(gains) > 1 else ""
            each = ", ".join(f"{gain:+.2f}" for gain in gains)
            lines.append(f"{arm.name} - {other.name}: {mean(gains):+.2f}{spread} ({each})")
    return f"{heading}, differences:\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
