"""The direct-loss beam trainer: the procedure of the soft beam search paper in one command.

    python -m fairseq_plugins.train_beam DATA --out FOLDER [options] [options of fairseq-train]

A cross-entropy model (or a checkpoint of yours, ``--warm-start``) is continued twice, for at most the same
number of epochs: by more cross entropy, as control, and through the soft beam, by direct loss or hinge, alpha
growing with the epochs. Each run is judged by decoding dev after every epoch, and its best epoch is decoded
greedily, with the hard beam and with the soft beam. At the end there are one table (text and JSON) and one
picture. All training and decoding is done by fairseq's own commands, which are written down; killed at any
moment, the same command goes on where it stopped.

Goyal, Neubig, Dyer and Berg-Kirkpatrick (2018), sections 2 and 3.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from fairseq_plugins.installation import needs_fairseq

with needs_fairseq("diffdecode-train-beam"):
    from rich.console import Console

    from fairseq_plugins.comparison import (
        Decoding,
        Row,
        TrainingRun,
        claim,
        decoded_row,
        report,
        train_together,
    )
    from fairseq_plugins.criterions.soft_beam import SoftBeamConfig

USER_DIR = str(Path(__file__).parent)
CROSS_ENTROPY, CONTINUED = "cross entropy", "cross entropy, continued"
MEASURES = {"accuracy": "accuracy", "f1": "F1 of spans", "bleu": "BLEU"}
# What the criterion calls differently, or fairseq-train has already.
NOT_HERE = ("sentence_avg", "soft_beam_size", "objective")


def parser() -> argparse.ArgumentParser:
    """The trainer's own options; those of the criterion are read off its configuration."""
    found = argparse.ArgumentParser(
        prog="python -m fairseq_plugins.train_beam",
        description="Cross entropy, then direct loss through beam search, compared. Options not listed here "
        "go to fairseq-train (--arch, --max-tokens, ...).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = found.add_argument
    add("data", metavar="DATA", help="folder made by fairseq-preprocess")
    add("--out", type=Path, required=True, help="folder for checkpoints, logs, table and picture")
    add("--task", default="sequence_tagging", choices=("sequence_tagging", "direct_loss_translation"))
    add(
        "--objective",
        default="direct",
        choices=("direct", "hinge"),
        help="what is minimised through the beam",
    )
    add("--warm-start", type=Path, help="a cross-entropy checkpoint to start from, instead of training one")
    add("--epochs", type=int, default=20, help="at most, of the cross-entropy model")
    add("--more-epochs", type=int, default=10, help="at most, of each continuation")
    add("--lr", default="0.001", help="learning rate of the cross-entropy model")
    add("--more-lr", help="learning rate of the continuations (default: a tenth of --lr)")
    add("--patience", type=int, default=5, help="epochs without a better dev score that end a run")
    add("--metric", choices=tuple(MEASURES), help="score that decides (default: accuracy, or bleu)")
    add("--beam", type=int, default=3, help="beam size in training and decoding")
    add("--search-alpha", type=float, default=10.0, help="peakedness of the soft beam in decoding")
    add("--gen-subset", default="valid", help="split that the table is about")
    add("--no-control", action="store_true", help="do not continue by cross entropy")
    add(
        "--direct-args",
        default="",
        help="further options of fairseq-train for the soft-beam run only, quoted",
    )
    add("--gen-args", default="", help="further options of fairseq-generate, quoted")
    criterion = found.add_argument_group("of the criterion soft_beam")
    for option in dataclasses.fields(SoftBeamConfig):
        if option.name not in NOT_HERE and not option.name.startswith("_"):
            _add_criterion_option(criterion, option)
    return found


def _add_criterion_option(group: argparse._ArgumentGroup, option: dataclasses.Field) -> None:
    flag, text = "--" + option.name.replace("_", "-"), option.metadata.get("help", "")
    if option.default is False:
        group.add_argument(flag, action="store_true", help=text)
    else:
        group.add_argument(flag, default=option.default, help=text)


def runs_for(args: argparse.Namespace, passed: list[str]) -> list[TrainingRun]:
    """The cross-entropy run (unless there is a warm start) and its continuations."""
    common = [
        *[args.data, "--user-dir", USER_DIR, "--task", args.task, *passed],
        *["--best-checkpoint-metric", args.metric, "--maximize-best-checkpoint-metric"],
        *["--patience", str(args.patience), "--no-epoch-checkpoints", "--log-format", "json"],
        *_validation_options(args),
    ]
    if "--optimizer" not in passed:
        common += ["--optimizer", "adam"]
    if "--clip-norm" not in passed:
        common += ["--clip-norm", "1"]
    start = args.warm_start or args.out / "ce" / "checkpoint_best.pt"
    more = ["--finetune-from-model", str(start), "--lr", args.more_lr, "--max-epoch", str(args.more_epochs)]
    first = ["--criterion", "cross_entropy", "--lr", args.lr, "--max-epoch", str(args.epochs)]
    direct = ["--criterion", "soft_beam", "--objective", args.objective, *_criterion_options(args), *more]

    def run(name: str, folder: str, options: list[str], epochs: int) -> TrainingRun:
        return TrainingRun(name, args.out / folder, [*common, *options], epochs, args.metric)

    found = [] if args.warm_start else [run(CROSS_ENTROPY, "ce", first, args.epochs)]
    if not args.no_control:
        found.append(
            run(CONTINUED, "ce_continued", ["--criterion", "cross_entropy", *more], args.more_epochs)
        )
    name = {"direct": "direct loss", "hinge": "hinge"}[args.objective]
    found.append(run(name, args.objective, [*direct, *args.direct_args.split()], args.more_epochs))
    return found


def _validation_options(args: argparse.Namespace) -> list[str]:
    """Validation decodes dev as the table will decode it."""
    if args.task == "sequence_tagging":
        return ["--eval-beam", str(args.beam)]
    return ["--eval-bleu", "--eval-bleu-args", f'{{"beam": {args.beam}, "max_len_a": 1.5, "max_len_b": 10}}']


def _criterion_options(args: argparse.Namespace) -> list[str]:
    found = ["--soft-beam-size", str(args.beam)]
    for option in dataclasses.fields(SoftBeamConfig):
        if option.name in NOT_HERE or not hasattr(args, option.name):
            continue
        flag, value = "--" + option.name.replace("_", "-"), getattr(args, option.name)
        if value is True:
            found.append(flag)
        elif value not in (False, None):
            found += [flag, str(value)]
    return found


def decodings(args: argparse.Namespace) -> list[Decoding]:
    """Greedy, hard beam and soft beam (section 3.4)."""
    k, alpha = str(args.beam), str(args.search_alpha)
    return [
        Decoding("greedy", "greedy", ("--beam", "1")),
        Decoding("hard_beam", f"hard beam {k}", ("--beam", k)),
        Decoding(
            "soft_beam", f"soft beam {k}", ("--beam", k, "--search", "soft-beam", "--search-alpha", alpha)
        ),
    ]


def row_of(
    args: argparse.Namespace, run: TrainingRun, first: list[TrainingRun], passed: list[str], console: Console
) -> Row:
    """Decode one run in every way; ``first`` is the run that it continues, if any."""
    scoring = "conll_f1" if args.task == "sequence_tagging" else "sacrebleu"
    generate = [args.data, "--user-dir", USER_DIR, "--task", args.task, "--gen-subset", args.gen_subset]
    generate += ["--scoring", scoring, "--no-progress-bar", "--max-tokens", "4000", *args.gen_args.split()]
    generate += ["--cpu"] if "--cpu" in passed else []
    start = first[0] if first else run
    return decoded_row(run.name, [(run, start)], decodings(args), generate, console)


def _check_data(data: str) -> None:
    """Raises ValueError if fairseq-preprocess has not been here; fairseq says so in a traceback."""
    for folder in map(Path, data.split(os.pathsep)):
        if not folder.is_dir():
            raise ValueError(f"no folder {folder}: DATA is what fairseq-preprocess writes (--destdir)")
        if not list(folder.glob("dict.*.txt")):
            raise ValueError(f"{folder} holds no dict.*.txt: DATA is what fairseq-preprocess writes")


def main(argv: list[str] | None = None) -> None:
    """Train, decode and report; resumes what an earlier call left."""
    args, passed = parser().parse_known_args(argv)
    args.metric = args.metric or ("accuracy" if args.task == "sequence_tagging" else "bleu")
    args.more_lr = args.more_lr or str(float(args.lr) / 10)
    console = Console()
    try:
        if args.warm_start and not args.warm_start.is_file():
            raise ValueError(f"--warm-start {args.warm_start} is no file")
        _check_data(args.data)
        claim(args.out, {**vars(args), "passed": passed})
        runs = runs_for(args, passed)
        first = [run for run in runs if run.name == CROSS_ENTROPY]
        train_together(first, console)
        train_together(runs[len(first) :], console)
        rows = [row_of(args, run, first, passed, console) for run in runs]
        measure = MEASURES[args.metric]
        about = {"measure": measure, "split": args.gen_subset}
        report(rows, f"{measure} on {args.gen_subset}", about, args.out, console)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"train_beam: {error}")
    except KeyboardInterrupt:
        sys.exit("train_beam: interrupted; the same command goes on from here")


if __name__ == "__main__":
    main()
