"""German-English translation: cross entropy, scheduled sampling and direct loss, with fairseq's own LSTM.

    python -m examples.translation.run                # a part of the data, a quarter of an hour on 2 cores
    python -m examples.translation.run --full         # all of it, for a GPU

The model of Goyal, Dyer and Berg-Kirkpatrick (2017), section 5: a bidirectional LSTM encoder and an LSTM
decoder with attention, one layer of 256 units each. A cross-entropy model is continued, for the same number
of updates, by cross entropy, by differentiable scheduled sampling (soft argmax, and Gumbel), and by direct
loss on a soft beam (Goyal et al. 2018). Data: ``train.de``, ``train.en``, ``dev.de`` and ``dev.en`` (or
``.gz``), one untokenised sentence a line, in ``--data`` or ``$DIFFDECODE_DATA/mt_tatoeba``.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import sacrebleu
from rich.console import Console

from examples._shared.commands import add_device, device, fairseq_device, one_line_errors
from examples._shared.data import data_folder
from examples._shared.translation import USER_DIR, generate_options, prepare, translations
from fairseq_plugins.comparison import (
    Decoding,
    Row,
    TrainingRun,
    claim,
    decoded_row,
    report,
    train_together,
)

BLEU = sacrebleu.metrics.BLEU()
CROSS_ENTROPY = "cross entropy"
MODEL = """
    --task direct_loss_translation --arch lstm --encoder-bidirectional --encoder-layers 1 --decoder-layers 1
    --encoder-embed-dim 256 --encoder-hidden-size 256 --decoder-embed-dim 256 --decoder-hidden-size 256
    --decoder-out-embed-dim 256"""
TRAINING = """
    --optimizer adam --clip-norm 1 --num-workers 0 --eval-bleu --eval-bleu-remove-bpe sentencepiece
    --best-checkpoint-metric bleu --maximize-best-checkpoint-metric --no-epoch-checkpoints
    --log-format json --log-interval 10"""
SAMPLING = "--dropout 0.3 --criterion differentiable_scheduled_sampling --gold-schedule linear --gold-decay 4"
CONTINUATIONS = {
    "cross entropy, continued": ("ce_continued", "--dropout 0.3 --criterion cross_entropy"),
    "scheduled sampling, greedy": (
        "dss_greedy",
        f"{SAMPLING} --estimator soft --alpha 2 --alpha-growth 1.5",
    ),
    "scheduled sampling, Gumbel": (
        "dss_gumbel",
        f"{SAMPLING} --estimator gumbel_soft --alpha 1 --alpha-growth 1.5",
    ),
    "direct loss": (
        "direct",
        "--dropout 0 --criterion soft_beam --ce-weight 0.5 --alpha 0.1 --alpha-growth 1.5",
    ),
}
DECODINGS = (
    Decoding("greedy", "greedy", ("--beam", "1")),
    Decoding("beam", "beam of 3", ("--beam", "3")),
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.translation.run",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    default = data_folder() / "mt_tatoeba"
    add("--data", type=Path, default=default, help="folder with train and dev in de and en")
    add("--out", type=Path, default=Path("runs/translation"), help="where everything is written")
    add(
        "--full",
        action="store_true",
        help="all pairs, vocabulary of 8000, 20 + 5 epochs, for a GPU",
    )
    add("--pairs", type=int, default=8_000, help="training pairs, drawn at random; 0: all")
    add("--dev-pairs", type=int, default=500, help="dev pairs, the first; 0: all")
    add("--vocabulary", type=int, default=2000, help="sentencepiece units, shared by both languages")
    add("--epochs", type=int, default=8, help="of the cross-entropy model")
    add("--more-epochs", type=int, default=2, help="of each continuation")
    add("--max-tokens", type=int, default=1500, help="target units in a batch")
    add("--seed", type=int, default=1)
    add_device(parser, "auto")
    args = parser.parse_args(argv)
    if args.full:
        args.pairs, args.dev_pairs, args.vocabulary = 0, 0, 8000
        args.epochs, args.more_epochs, args.max_tokens = 20, 5, 4000
    args.device = device(args.device)
    return args


def systems(args: argparse.Namespace) -> list[TrainingRun]:
    """The cross-entropy run and its continuations."""
    common = [str(args.out / "data" / "bin"), "--user-dir", USER_DIR, *MODEL.split(), *TRAINING.split()]
    common += ["--eval-bleu-args", '{"beam": 1, "max_len_a": 1.5, "max_len_b": 5}']
    common += ["--max-tokens", str(args.max_tokens), "--seed", str(args.seed), *fairseq_device(args.device)]
    more = ["--finetune-from-model", str(args.out / "ce" / "checkpoint_best.pt")]

    def run(name: str, folder: str, options: str, more: list[str], epochs: int) -> TrainingRun:
        options = [*common, *options.split(), *more, "--max-epoch", str(epochs)]
        return TrainingRun(name, args.out / folder, options, epochs, "bleu")

    first = run(CROSS_ENTROPY, "ce", "--criterion cross_entropy --dropout 0.3 --lr 0.002", [], args.epochs)
    return [first] + [
        run(name, folder, f"--lr 0.0003 {options}", more, args.more_epochs)
        for name, (folder, options) in CONTINUATIONS.items()
    ]


def bleu_of(references: list[str]) -> Callable[[Path], float]:
    """A function from fairseq-generate's output file to BLEU against the untokenised references."""

    def score(path: Path) -> float:
        return BLEU.corpus_score(translations(path, len(references)), [references]).score

    return score


def row_of(
    args: argparse.Namespace,
    run: TrainingRun,
    first: TrainingRun,
    references: list[str],
    console: Console,
) -> Row:
    """Decode one run in every way."""
    generate = generate_options(args.out, args.device)
    return decoded_row(run.name, [(run, first)], DECODINGS, generate, console, bleu_of(references))


def signature(references: list[str]) -> str:
    """How sacreBLEU scores, also where all scores were read from files: it asks for an evaluation first."""
    BLEU.corpus_score(references, [references])
    return str(BLEU.get_signature())


@one_line_errors("translation", RuntimeError)
def main(argv: list[str] | None = None) -> None:
    """The command; what an earlier call has finished is not done again."""
    args, console, started = arguments(argv), Console(), time.monotonic()
    claim(args.out, vars(args))
    references = prepare(args, console)
    runs = systems(args)
    train_together(runs[:1], console)
    train_together(runs[1:], console, at_once=1 if args.device == "cuda" else 2)
    rows = [row_of(args, run, runs[0], references, console) for run in runs]
    about = {"measure": "BLEU (greedy)", "signature": signature(references)}
    report(rows, f"BLEU on dev, seed {args.seed}", about, args.out, console)
    console.print(f"sacreBLEU signature: {about['signature']}")
    console.print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
