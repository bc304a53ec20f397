"""The beam trainer: ways to go on from cross entropy, tuned alike and compared, in one command.

    python -m fairseq_plugins.train_beam DATA --out FOLDER [options] [options of fairseq-train]

A cross-entropy model (or a checkpoint of yours, ``--warm-start``) is continued, for at most the same number
of epochs: by more cross entropy, as control, and by each ``--objective``. Learning rates decay to 0; each way
is given every ``--more-lr`` and ``--more-dropout`` and keeps the run with the best decoded dev score. Each is
decoded greedily, with the hard beam, with the hard beam and the normaliser lambda that dev chooses for it,
and with the soft beam. With several ``--seeds`` all of it is done for each. At the end there are one table
(text and JSON) and one picture. All training and decoding is done by fairseq's own commands, which are
written down; killed at any moment, the same command goes on where it stopped.

Goyal, Neubig, Dyer and Berg-Kirkpatrick (2018), sections 2 and 3; Andor et al. (2016).
"""

import argparse
import dataclasses
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_plugins.installation import needs_fairseq

with needs_fairseq("diffdecode-train-beam"):
    from rich.console import Console

    from diffdecode.files.atomic import read_json, write_json
    from fairseq_plugins.comparison import (
        Decoding,
        Row,
        TrainingRun,
        claim,
        decode,
        decoded_row,
        report,
        train_together,
    )
    from fairseq_plugins.criterions.minimum_risk import MinimumRiskConfig
    from fairseq_plugins.criterions.soft_beam import UNUSED_BY, SoftBeamConfig
    from fairseq_plugins.options import DefaultsOnce

USER_DIR = str(Path(__file__).parent)
CROSS_ENTROPY, CONTINUED = "cross entropy", "cross entropy, continued"
EQUAL_TIME = "cross entropy, for equal time"
# Ways to go on: what the table calls them, and their criterion. Scheduled sampling never sees gold words.
SAMPLING = "--criterion differentiable_scheduled_sampling --gold-schedule never --alpha 1 --alpha-growth 1"
OBJECTIVES = {
    "direct": "direct loss",
    "risk": "risk of the beam",
    "hinge": "hinge",
    "global": "global",
    "soft_global": "global, soft beam",
    "minimum_risk": "minimum risk",
    "sampling": "scheduled sampling",
}
MEASURES = {"accuracy": "accuracy", "f1": "F1 of spans", "bleu": "BLEU"}
# What the criterion calls differently, or fairseq-train has already.
NOT_HERE = ("sentence_avg", "soft_beam_size", "objective", "score_normalizer")
# The risk that is congruent with a score, if none is given.
RISK_OF = {"accuracy": "hamming", "f1": "span", "bleu": "gleu"}
NORMALIZERS = {"sequence_tagging": [1.0, 0.5, 0.25, 0.0], "direct_loss_translation": [1.0]}


@dataclass
class Way:
    """One way of training, one seed of it.

    Attributes:
        name: what the table calls it.
        start: the run that it continues; itself, if none.
        runs: one for each point of the grid.
        best: the one whose decoded dev score is best; known once they are finished.
    """

    name: str
    start: TrainingRun | None
    runs: list[TrainingRun] = field(default_factory=list)

    @property
    def best(self) -> TrainingRun:
        """Of the finished runs."""
        return max(self.runs, key=lambda run: max(point["metric"] for point in run.curve()))


def parser() -> argparse.ArgumentParser:
    """The trainer's own options; those of the criterion are read off its configuration."""
    found = argparse.ArgumentParser(
        prog="python -m fairseq_plugins.train_beam",
        allow_abbrev=False,  # --seed is fairseq-train's, not short for --seeds
        description="Cross entropy, then direct loss through beam search, compared. Options not listed here "
        "go to fairseq-train (--arch, --max-tokens, ...).",
        formatter_class=DefaultsOnce,
    )
    add = found.add_argument
    add("data", metavar="DATA", help="folder made by fairseq-preprocess")
    add("--out", type=Path, required=True, help="folder for checkpoints, logs, table and picture")
    add(
        "--task",
        default="sequence_tagging",
        choices=("sequence_tagging", "direct_loss_translation"),
        help="what is trained",
    )
    add(
        "--objective",
        nargs="+",
        default=["direct"],
        choices=tuple(OBJECTIVES),
        help="ways to go on beside cross entropy: through the beam, by the risk of samples, or by scheduled "
        "sampling on own words",
    )
    add("--warm-start", type=Path, help="a cross-entropy checkpoint to start from, instead of training one")
    add("--epochs", type=int, default=20, help="at most, of the cross-entropy model")
    add("--more-epochs", type=int, default=10, help="at most, of each continuation")
    add("--lr", type=float, default=0.001, help="first learning rate of the cross-entropy model")
    add("--more-lr", nargs="+", type=float, help="and of the continuations (default: a tenth of --lr)")
    add("--more-dropout", nargs="+", type=float, help="dropouts of the continuations (default: as it was)")
    add("--seeds", nargs="+", type=int, help="all of it for each (default: once, by --seed)")
    add(
        "--equal-time",
        action="store_true",
        help="cross entropy, once more, for the longest objective's CPU time",
    )
    add("--patience", type=int, default=5, help="epochs without a better dev score that end a run")
    add("--metric", choices=tuple(MEASURES), help="score that decides (default: accuracy, or bleu)")
    add("--beam", type=int, default=3, help="beam size in training and decoding")
    add(
        "--normalizers",
        nargs="+",
        type=float,
        help="lambdas that dev chooses from (default: 1 0.5 0.25 0; in translation 1 alone)",
    )
    add(
        "--score-normalizer",
        type=float,
        help="lambda of training (default: 0 for global and soft_global, else 1)",
    )
    add("--search-alpha", type=float, default=10.0, help="peakedness of the soft beam in decoding")
    add("--gen-subset", default="valid", help="split that the table is about")
    add("--no-control", action="store_true", help="do not continue by cross entropy")
    add(
        "--direct-args",
        default="",
        help="further options of fairseq-train for the runs of --objective only, quoted",
    )
    add("--gen-args", default="", help="further options of fairseq-generate, quoted")
    criterion = found.add_argument_group("of the criterion soft_beam")
    for option in dataclasses.fields(SoftBeamConfig):
        if option.name not in NOT_HERE and not option.name.startswith("_"):
            _add_criterion_option(criterion, option)
    shared = {option.name for option in dataclasses.fields(SoftBeamConfig)}
    criterion = found.add_argument_group("of the criterion minimum_risk")
    for option in dataclasses.fields(MinimumRiskConfig):
        if option.name not in shared and not option.name.startswith("_") and option.name != "seed":
            _add_criterion_option(criterion, option)
    # Criterions have defaults of their own.
    found.set_defaults(ce_weight=None, risk=None)
    return found


def _add_criterion_option(group: argparse._ArgumentGroup, option: dataclasses.Field) -> None:
    flag, text = "--" + option.name.replace("_", "-"), option.metadata.get("help", "")
    if option.default is False:
        group.add_argument(flag, action="store_true", help=text)
    else:
        group.add_argument(flag, default=option.default, help=text)


def ways_for(args: argparse.Namespace, passed: list[str], seed: int | None) -> list[Way]:
    """The cross-entropy model of a seed (unless there is a warm start) and the ways to continue it."""
    folder = args.out if seed is None else args.out / f"seed{seed}"
    common = _common(args, passed) + ([] if seed is None else ["--seed", str(seed)])

    def run(name: str, subfolder: str, options: list[str], epochs: int, lr: float) -> TrainingRun:
        arguments = [*common, *options, "--lr", _falling(lr, epochs, passed), "--max-epoch", str(epochs)]
        return TrainingRun(name, folder / subfolder, arguments, epochs, args.metric)

    found, checkpoint = [], args.warm_start
    if checkpoint is None:
        start = run(CROSS_ENTROPY, "ce", ["--criterion", "cross_entropy"], args.epochs, args.lr)
        found, checkpoint = [Way(CROSS_ENTROPY, None, [start])], start.best
    criterions = {} if args.no_control else {CONTINUED: ("ce_continued", ["--criterion", "cross_entropy"])}
    for objective in args.objective:
        options = [*_objective_options(args, objective), *args.direct_args.split()]
        criterions[OBJECTIVES[objective]] = objective, options
    start = found[0].runs[0] if found else None
    for name, (subfolder, options) in criterions.items():
        options = [*options, "--finetune-from-model", str(checkpoint)]
        runs = [
            run(name + suffix, subfolder + suffix, [*options, *point], args.more_epochs, lr)
            for suffix, point, lr in _grid(args)
        ]
        found.append(Way(name, start, runs))
    return found


def _common(args: argparse.Namespace, passed: list[str]) -> list[str]:
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
    return common


def _falling(lr: float, epochs: int, passed: list[str]) -> str:
    """fairseq's list of a rate for each epoch, which falls to 0; one, if a scheduler is asked for."""
    if "--lr-scheduler" in passed:
        return f"{lr:g}"
    return ",".join(f"{lr * (1 - (epoch + 0.5) / epochs):.4g}" for epoch in range(epochs))


def _grid(args: argparse.Namespace) -> list[tuple[str, list[str], float]]:
    """Points that every way is given: suffix of the folder, options, learning rate."""
    points = []
    for lr in args.more_lr:
        for dropout in args.more_dropout or [None]:
            several = len(args.more_lr) * len(args.more_dropout or [None]) > 1
            suffix = f"-lr{lr:g}" + ("" if dropout is None else f"-dropout{dropout:g}")
            options = [] if dropout is None else ["--dropout", f"{dropout:g}"]
            points.append((suffix if several else "", options, lr))
    return points


def _objective_options(args: argparse.Namespace, objective: str) -> list[str]:
    if objective == "sampling":
        return SAMPLING.split()
    if objective == "minimum_risk":
        given = argparse.Namespace(**{**vars(args), "risk": args.risk or RISK_OF[args.metric]})
        return ["--criterion", "minimum_risk", *_criterion_options(given, MinimumRiskConfig, ("seed",))]
    normalizer = args.score_normalizer
    if normalizer is None:
        normalizer = 0.0 if objective in ("global", "soft_global") else 1.0
    return [
        *["--criterion", "soft_beam", "--objective", objective, "--score-normalizer", f"{normalizer:g}"],
        *["--soft-beam-size", str(args.beam)],
        *_criterion_options(args, SoftBeamConfig, (*NOT_HERE, *UNUSED_BY.get(objective, ()))),
    ]


def _validation_options(args: argparse.Namespace) -> list[str]:
    """Validation decodes dev as the table will decode it."""
    if args.task == "sequence_tagging":
        return ["--eval-beam", str(args.beam)]
    return ["--eval-bleu", "--eval-bleu-args", f'{{"beam": {args.beam}, "max_len_a": 1.5, "max_len_b": 10}}']


def _criterion_options(args: argparse.Namespace, config: type, unused: tuple[str, ...]) -> list[str]:
    found = []
    for option in dataclasses.fields(config):
        if option.name in unused or not hasattr(args, option.name):
            continue
        flag, value = "--" + option.name.replace("_", "-"), getattr(args, option.name)
        if value is True:
            found.append(flag)
        elif value not in (False, None):
            found += [flag, str(value)]
    return found


def decodings(args: argparse.Namespace, normalizer: float) -> list[Decoding]:
    """Greedy, hard beam with log-probabilities and with the normaliser that was chosen, soft beam."""
    k, alpha = str(args.beam), str(args.search_alpha)
    soft = ("--beam", k, "--search", "soft-beam", "--search-alpha", alpha)
    found = [
        Decoding("greedy", "greedy", ("--beam", "1")),
        _hard_beam(args, args.gen_subset, 1.0, f"hard beam {k}"),
        Decoding("soft_beam", f"soft beam {k}", soft),
    ]
    if len(args.normalizers) > 1:
        found.insert(2, _hard_beam(args, args.gen_subset, normalizer, f"hard beam {k}, tuned lambda"))
    return found


def _hard_beam(args: argparse.Namespace, split: str, normalizer: float, heading: str) -> Decoding:
    """The same folder for the same search, so that it is done once."""
    options = ("--gen-subset", split, "--beam", str(args.beam), "--score-normalizer", f"{normalizer:g}")
    return Decoding(f"hard_beam-{split}-lambda{normalizer:g}", heading, options)


def chosen_normalizer(
    args: argparse.Namespace, run: TrainingRun, generate: list[str], console: Console
) -> float:
    """The lambda with which the hard beam decodes ``valid`` best; of equals the first."""
    if len(args.normalizers) == 1:
        return args.normalizers[0]
    scores = {}
    for normalizer in args.normalizers:
        with console.status(f"decoding: {run.name}, lambda {normalizer:g}"):
            scores[normalizer] = decode(run, _hard_beam(args, "valid", normalizer, ""), generate)
    return max(scores, key=scores.__getitem__)


def row_of(
    args: argparse.Namespace, ways: list[Way], passed: list[str], console: Console
) -> tuple[Row, list[float]]:
    """Decode one way of training, all its seeds; and the lambdas that dev chose for them."""
    scoring = "conll_f1" if args.task == "sequence_tagging" else "sacrebleu"
    generate = [args.data, "--user-dir", USER_DIR, "--task", args.task, "--gen-subset", args.gen_subset]
    generate += ["--scoring", scoring, "--no-progress-bar", "--max-tokens", "4000", *args.gen_args.split()]
    generate += ["--cpu"] if "--cpu" in passed else []
    row, chosen = Row(ways[0].name), []
    for way in ways:
        run = way.best
        chosen.append(chosen_normalizer(args, run, generate, console))
        one = decoded_row(
            way.name,
            [(run, way.start or run)],
            decodings(args, chosen[-1]),
            generate,
            console,
        )
        row = one if way is ways[0] else row.with_seeds_of(one)
    return row, chosen


def as_long(args: argparse.Namespace, passed: list[str], seed: int | None, ways: list[Way]) -> Way:
    """Cross entropy continued for as much CPU time as the longest of the other continuations took.

    Raises:
        ValueError: a run was killed on the way, so that its CPU time is not known.
    """
    control = next(way for way in ways if way.name == CONTINUED)
    others = [way.best for way in ways if way.name in OBJECTIVES.values()]
    record = control.best.folder.parent / "equal_time.json"
    if not record.exists():
        seconds = {str(run.folder): run.cpu_seconds() for run in (control.best, *others)}
        unknown = [folder for folder, known in seconds.items() if known is None]
        if unknown:
            raise ValueError(
                f"--equal-time: {unknown[0]} was interrupted, so that its CPU time is not known; remove that "
                "folder to train it again"
            )
        of_control, *of_others = seconds.values()
        epochs = max(args.more_epochs, round(args.more_epochs * max(of_others) / of_control))
        write_json(record, {"seconds": seconds, "epochs": epochs})
    longer = argparse.Namespace(**{**vars(args), "more_epochs": read_json(record)["epochs"]})
    again = next(way for way in ways_for(longer, passed, seed) if way.name == CONTINUED)
    index = control.runs.index(control.best)
    run = again.runs[index]
    run = dataclasses.replace(run, name=EQUAL_TIME, folder=run.folder.with_name("ce_equal_time"))
    return Way(EQUAL_TIME, control.start, [run])


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
    args.more_lr = args.more_lr or [args.lr / 10]
    args.normalizers = args.normalizers or NORMALIZERS[args.task]
    console = Console()
    try:
        if args.warm_start and not args.warm_start.is_file():
            raise ValueError(f"--warm-start {args.warm_start} is no file")
        if args.equal_time and args.no_control:
            raise ValueError("--equal-time continues the control longer: remove --no-control")
        _check_data(args.data)
        claim(args.out, {**vars(args), "passed": passed})
        by_name: dict[str, list[Way]] = {}
        for seed in args.seeds or [None]:
            ways = ways_for(args, passed, seed)
            first = [run for way in ways if way.name == CROSS_ENTROPY for run in way.runs]
            train_together(first, console)
            train_together([run for way in ways for run in way.runs if run not in first], console)
            if args.equal_time:
                ways.append(as_long(args, passed, seed, ways))
                train_together(ways[-1].runs, console)
            for way in ways:
                by_name.setdefault(way.name, []).append(way)
        found = [row_of(args, ways, passed, console) for ways in by_name.values()]
        measure = MEASURES[args.metric]
        about = {"measure": measure, "split": args.gen_subset, "seeds": args.seeds}
        about["lambda"] = {row.name: chosen for row, chosen in found}
        report([row for row, _ in found], f"{measure} on {args.gen_subset}", about, args.out, console)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"train_beam: {error}")
    except KeyboardInterrupt:
        sys.exit("train_beam: interrupted; the same command goes on from here")


if __name__ == "__main__":
    main()
