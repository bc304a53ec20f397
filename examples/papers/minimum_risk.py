"""Minimum risk training for translation (Shen et al. 2016), against continued cross entropy.

    python -m examples.papers.minimum_risk            # 40,000 pairs, three continuations of each kind
    python -m examples.papers.minimum_risk --quick    # a few pairs, to see that everything runs

A cross-entropy model (fairseq's LSTM with attention, German to English) is trained until its learning rate
has decayed to 0, and is then continued, with several seeds, by cross entropy for as many updates and for
about as much time, by scheduled sampling and by minimum risk. Each is decoded greedily and with a beam: BLEU,
chrF, and the length of what is written over that of the references, as another length is the cheapest gain of
all. The data is that of ``examples/translation``.
"""

import argparse
import math
import time
from pathlib import Path

import sacrebleu
from rich.console import Console

from diffdecode.files.atomic import write_json
from examples._shared.commands import add_device, add_out, device, fairseq_device, one_line_errors
from examples._shared.data import data_folder
from examples._shared.tables import save_table, spread
from examples._shared.translation import USER_DIR, generate_options, prepare, translations
from fairseq_plugins.comparison import Decoding, TrainingRun, claim, decode, train_together

MEASURES = {"BLEU": sacrebleu.metrics.BLEU(), "chrF": sacrebleu.metrics.CHRF()}
DECODINGS = (Decoding("greedy", "greedy", ("--beam", "1")), Decoding("beam", "beam of 4", ("--beam", "4")))
CROSS_ENTROPY = "--criterion cross_entropy"
START, AS_LONG = "cross entropy, the start", "cross entropy, as much time"
SAMPLING = (
    "--criterion differentiable_scheduled_sampling --estimator soft --alpha 2 --alpha-growth 1 "
    "--gold-schedule linear --gold-unit update --gold-decay {updates}"
)
RISK = (
    "--criterion minimum_risk --risk gleu --risk-remove-bpe sentencepiece --num-candidates 4 "
    "--include-reference --sharpness 0.1 --ce-weight 0.5"
)
CONTINUATIONS = {
    "cross entropy": ("ce", CROSS_ENTROPY),
    AS_LONG: ("ce_as_long", CROSS_ENTROPY),
    "scheduled sampling": ("sampling", SAMPLING),
    "minimum risk": ("risk", RISK),
}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.papers.minimum_risk",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    default = data_folder() / "mt_tatoeba"
    add("--data", type=Path, default=default, help="folder with train and dev in de and en")
    add_out(parser, "runs/minimum_risk")
    add("--pairs", type=int, default=40_000, help="training pairs, drawn at random; 0: all")
    add("--dev-pairs", type=int, default=500, help="dev pairs, the first; 0: all")
    add("--vocabulary", type=int, default=2000, help="sentencepiece units, shared by both languages")
    add("--units", type=int, default=128, help="size of embeddings and hidden layers")
    add("--updates", type=int, default=1200, help="of the start, of 2,000 target units each")
    add("--more-updates", type=int, default=40, help="of each continuation, of 1,000 target units each")
    add("--time-ratio", type=float, default=10.0, help="time of an update of minimum risk over one of CE")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the continuations")
    add("--seed", type=int, default=1, help="of the data and the start")
    add_device(parser, "cpu")
    add("--quick", action="store_true", help="small enough for a test")
    args = parser.parse_args(argv)
    args.device = device(args.device)
    if args.quick:
        args.pairs, args.dev_pairs, args.vocabulary, args.units = 200, 20, 100, 16
        args.updates, args.more_updates = 4, 2
    return args


def model(args: argparse.Namespace) -> list[str]:
    """What all runs share: data, model, optimiser, what is validated by."""
    sizes = ("encoder-embed-dim", "encoder-hidden-size", "decoder-embed-dim", "decoder-hidden-size")
    options = """--task direct_loss_translation --arch lstm --encoder-bidirectional --encoder-layers 1
        --decoder-layers 1 --dropout 0.1 --optimizer adam --clip-norm 1 --lr-scheduler polynomial_decay
        --num-workers 0 --eval-bleu --eval-bleu-remove-bpe sentencepiece --best-checkpoint-metric bleu
        --maximize-best-checkpoint-metric --no-epoch-checkpoints --log-format json --log-interval 20"""
    command = [str(args.out / "data" / "bin"), "--user-dir", USER_DIR, *options.split()]
    command += fairseq_device(args.device)
    command += ["--eval-bleu-args", '{"beam": 1, "max_len_a": 1.5, "max_len_b": 5}']
    for size in (*sizes, "decoder-out-embed-dim"):
        command += [f"--{size}", str(args.units)]
    return command


def training_run(
    args: argparse.Namespace, name: str, folder: str, options: str, seed: int, updates: int
) -> TrainingRun:
    """One fairseq-train command whose learning rate decays to 0 over its ``updates``."""
    command = [*model(args), *options.split(), "--seed", str(seed)]
    command += ["--max-update", str(updates), "--total-num-update", str(updates)]
    epochs = math.ceil(updates * 1000 / (args.pairs or 165_000) / 10) + 1
    return TrainingRun(name, args.out / folder, command, epochs, "bleu")


def start_run(args: argparse.Namespace) -> TrainingRun:
    """The cross-entropy run that all others continue."""
    warmup = min(100, args.updates // 2)
    options = f"{CROSS_ENTROPY} --lr 0.004 --warmup-updates {warmup} --max-tokens 2000"
    return training_run(args, START, "start", options, args.seed, args.updates)


def continuations(args: argparse.Namespace, start: TrainingRun) -> dict[str, list[TrainingRun]]:
    """For each way of going on, a run for each seed."""
    common = f"--lr 0.0005 --max-tokens 1000 --finetune-from-model {start.best}"

    def run(name, folder, options, seed):
        updates = round(args.more_updates * (args.time_ratio if name == AS_LONG else 1))
        options = f"{options.format(updates=updates)} {common}"
        return training_run(args, f"{name}, seed {seed}", f"{folder}_{seed}", options, seed, updates)

    return {
        name: [run(name, folder, options, seed) for seed in args.seeds]
        for name, (folder, options) in CONTINUATIONS.items()
    }


def measured(
    args: argparse.Namespace, run: TrainingRun, references: list[str], console: Console
) -> dict[str, float]:
    """BLEU, chrF and length ratio of a run, decoded in every way: ``{"greedy BLEU": ...}``."""
    generate = generate_options(args.out, args.device)
    found = {}
    for decoding in DECODINGS:
        with console.status(f"decoding: {run.name}, {decoding.heading}"):
            decode(run, decoding, generate)
        (path,) = (run.folder / decoding.key).glob("generate-*.txt")
        written = translations(path, len(references))
        for name, measure in MEASURES.items():
            found[f"{decoding.heading} {name}"] = measure.corpus_score(written, [references]).score
        words = sum(len(text.split()) for text in written) / sum(len(text.split()) for text in references)
        found[f"{decoding.heading} length"] = words
    return found


def updates_of(run: TrainingRun) -> int:
    """How long it was trained."""
    return int(run.arguments[run.arguments.index("--max-update") + 1])


def table(rows: dict[str, list[dict[str, float]]], updates: dict[str, int], caption: str, path: Path) -> None:
    """Mean and spread over the seeds of every measure."""
    measures = list(next(iter(rows.values()))[0])
    body = [
        [name, f"{updates[name]:,}"]
        + [spread([one[m] for one in found], 3 if m.endswith("length") else 2) for m in measures]
        for name, found in rows.items()
    ]
    save_table(path, caption, ["trained with", "updates", *measures], body)


@one_line_errors("minimum_risk", RuntimeError)
def main(argv: list[str] | None = None) -> None:
    """The command; what an earlier call has finished is not done again."""
    args, console, started = arguments(argv), Console(), time.monotonic()
    claim(args.out, {name: value for name, value in vars(args).items() if name != "seeds"})
    references = prepare(args, console)
    start = start_run(args)
    train_together([start], console, at_once=1)
    ways = continuations(args, start)
    rows = {START: [measured(args, start, references, console)]}
    for k in range(len(args.seeds)):
        train_together([runs[k] for runs in ways.values()], console, at_once=1)
        for name, runs in ways.items():
            rows.setdefault(name, []).append(measured(args, runs[k], references, console))
    runs = {START: [start], **ways}
    about = {
        "seeds": args.seeds,
        "signatures": {name: str(measure.get_signature()) for name, measure in MEASURES.items()},
        "rows": rows,
        "commands": {name: [run.command for run in some] for name, some in runs.items()},
    }
    write_json(args.out / "results.json", about)
    caption = f"dev, mean ± standard deviation over {len(args.seeds)} continuations of one start"
    table(rows, {name: updates_of(some[0]) for name, some in runs.items()}, caption, args.out / "table.md")
    console.print(f"{time.monotonic() - started:.0f} s in all; see results.json and table.md in {args.out}")


if __name__ == "__main__":
    main()
