"""Tagging without right context: four ways to go on training, each decoded with its own best normaliser.

A tagger whose labels may depend on no later word (``--encoder-direction word`` or ``forward``) is trained by
cross entropy to a plateau, and continued four ways: by more cross entropy, by scheduled sampling, by direct
loss and by the global objective (Andor et al. 2016), the last two beside cross entropy on the model's own
history. Of each, lambda in the local score ``logit - lambda log Z`` is chosen on sentences that are kept
aside; the table is on others.
"""

import argparse
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

USER_DIR = Path(fairseq_plugins.__file__).parent
START = "cross entropy"
VALIDATIONS = 4  # of each run, about: the learning rate ends at 0, so that epochs differ little
SOFT_BEAM = "--criterion soft_beam --score-normalizer 0 --ce-weight 0.5 --ce-history own"


@dataclass(frozen=True)
class Arm:
    """One way to go on.

    Attributes:
        name: what the table calls it.
        folder: of its runs.
        epochs: so many that all arms take about the same time; cross entropy, which is at its plateau, less.
        lr: first learning rate, which decays to 0.
        dropout: of the model.
        options: the criterion and lambda of validation, by which the epoch is chosen.
    """

    name: str
    folder: str
    epochs: int
    lr: float
    dropout: float
    options: str


CONTINUED = Arm(
    "cross entropy, continued", "ce", 16, 0.006, 0.35, "--criterion cross_entropy --score-normalizer 0.25"
)
SAMPLING = Arm(
    "scheduled sampling",
    "sampling",
    12,
    0.004,
    0.3,
    "--criterion differentiable_scheduled_sampling --gold-schedule never --alpha 1 --alpha-growth 1 "
    "--score-normalizer 0.25",
)
DIRECT = Arm(
    "direct loss + own history",
    "direct",
    4,
    0.004,
    0.3,
    f"{SOFT_BEAM} --operator softsort --alpha 1 --alpha-growth 1.3 --soft-beam-candidates 24 "
    "--soft-beam-tolerance 1",
)
GLOBAL = Arm(
    "global + own history", "global", 4, 0.006, 0.3, f"{SOFT_BEAM} --objective global --soft-beam-size 6"
)
ARMS = (CONTINUED, SAMPLING, DIRECT, GLOBAL)


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.incremental_tagging",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        help="folder with train.tsv and dev.tsv (or .gz, .conll); default: a generated language",
    )
    add_out(parser, "runs/incremental-tagging")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], help="the whole comparison once for each")
    add("--sentences", type=int, default=4000, help="to train on, drawn from train")
    add("--aside", type=int, default=1000, help="sentences of train by which epoch and lambda are chosen")
    add(
        "--direction",
        choices=("word", "forward"),
        default="word",
        help="what a label sees: its word, or all so far",
    )
    add("--epochs", type=int, default=30, help="epochs of the cross-entropy model that all continue")
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
    add("--quick", action="store_true", help="a few sentences, one epoch each, to see that it works")
    return parser


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    args = argument_parser().parse_args(argv)
    if args.quick:
        args.sentences, args.aside, args.epochs, args.scale, args.beam = 100, 40, 2, 0.01, 3
        args.seeds, args.lambdas = args.seeds[:1], [0.0, 1.0]
    args.device = device(args.device)
    return args


@one_line_errors("incremental_tagging", RuntimeError)
def main(argv: list[str] | None = None) -> None:
    """The command; what an earlier call has finished is not done again."""
    args, console = arguments(argv), Console()
    claim(
        args.out,
        {name: value for name, value in vars(args).items() if name not in ("out", "seeds", "lambdas")},
    )
    prepare(args, console)
    updates = updates_per_epoch(args)
    rows = [Row(name) for name in (START, *(arm.name for arm in ARMS))]
    chosen: dict[str, list[float]] = {row.name: [] for row in rows}
    for seed in args.seeds:
        console.rule(f"seed {seed}", align="left")
        runs = runs_of(args, seed, updates)
        train_together(runs[:1], console, at_once=1)
        train_together(runs[1:], console, at_once=1)
        for row, run in zip(rows, runs):
            chosen[row.name].append(add_to(row, run, runs[0], args, console))
        about = {"measure": "accuracy", "split": "dev", "seeds": args.seeds, "lambda": chosen}
        report(rows, f"accuracy on dev, percent; seeds {seed_list(args, seed)}", about, args.out, console)
    text = verdict(rows, tuned_heading(args))
    write_text(args.out / "verdict.txt", text + "\n")
    console.print(text)


def seed_list(args: argparse.Namespace, last: int) -> str:
    """The seeds up to the last one that is done."""
    return ", ".join(map(str, args.seeds[: args.seeds.index(last) + 1]))


def prepare(args: argparse.Namespace, console: Console) -> None:
    """Text and binarised data in ``out``: train and valid drawn from the train file, test from dev."""
    text, binary = args.out / "text", args.out / "bin"
    if binary.exists():
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
    sentences["train"] = sentences["train"][args.aside :][: args.sentences]
    text.mkdir(parents=True, exist_ok=True)
    for split, chosen in sentences.items():
        console.print(f"{split}: {len(chosen):,} sentences, {sum(len(words) for words, _ in chosen):,} words")
        for side, suffix in enumerate(("words", "labels")):
            write_text(text / f"{split}.{suffix}", "".join(" ".join(one[side]) + "\n" for one in chosen))
    prefixes = [part for split in sentences for part in (f"--{split}pref", str(text / split))]
    # Words seen once become the unknown word, so that the model learns what to do with new words.
    options = ["-s", "words", "-t", "labels", "--thresholdsrc", "2"]
    with console.status("fairseq-preprocess"), atomic_folder(binary) as unfinished:
        fairseq_command(
            "preprocess", [*options, *prefixes, "--destdir", str(unfinished)], args.out / "preprocess.log"
        )


def common(args: argparse.Namespace) -> list[str]:
    """Options of fairseq-train that all runs share."""
    return [
        *[str(args.out / "bin"), "--user-dir", str(USER_DIR), "--task", "sequence_tagging"],
        *["--arch", "fixed_attention_lstm", "--encoder-direction", args.direction],
        *["--encoder-embed-dim", str(args.hidden), "--encoder-hidden-size", str(args.hidden)],
        # Words as wholes: unknown ones have no letters in binarised data.
        *["--char-features", "none", "--word-dropout", "0"],
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


def runs_of(args: argparse.Namespace, seed: int, updates: int) -> list[TrainingRun]:
    """The cross-entropy run of a seed, and its continuations."""
    folder = args.out / f"seed{seed}"

    def run(
        name: str, subfolder: str, options: list[str], epochs: int, lr: float, dropout: float
    ) -> TrainingRun:
        total = str(epochs * updates)
        decay = ["--lr-scheduler", "polynomial_decay", "--total-num-update", total, "--max-update", total]
        interval = str(max(1, epochs // VALIDATIONS))
        decay += ["--validate-interval", interval, "--save-interval", interval]
        learning = ["--lr", str(lr), *decay, "--dropout", str(dropout), "--seed", str(seed)]
        return TrainingRun(name, folder / subfolder, [*common(args), *options, *learning], epochs, "accuracy")

    found = [run(START, "start", ["--criterion", "cross_entropy"], args.epochs, 0.008, 0.3)]
    for arm in ARMS:
        more = ["--finetune-from-model", str(found[0].best), "--eval-beam", "5", *arm.options.split()]
        epochs = max(1, round(arm.epochs * args.scale))
        found.append(run(arm.name, arm.folder, more, epochs, arm.lr, arm.dropout))
    return found


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
        str(args.out / "bin"),
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
    for arm in (DIRECT, GLOBAL):
        for other in (CONTINUED, SAMPLING):
            pairs = zip(scores[arm.name], scores[other.name], strict=True)
            gains = [mine - theirs for mine, theirs in pairs]
            spread = f" ±{stdev(gains):.2f}" if len(gains) > 1 else ""
            each = ", ".join(f"{gain:+.2f}" for gain in gains)
            lines.append(f"{arm.name} - {other.name}: {mean(gains):+.2f}{spread} ({each})")
    return f"{heading}, differences:\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
