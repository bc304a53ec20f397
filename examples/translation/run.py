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
import gzip
import os
import random
import re
import sys
import time
from pathlib import Path

import sacrebleu
import sentencepiece
from rich.console import Console

import fairseq_plugins
from fairseq_plugins.comparison import (
    Decoding,
    Row,
    TrainingRun,
    claim,
    continued,
    decode,
    fairseq_command,
    plot,
    table,
    train_together,
    write_json,
)

USER_DIR = str(Path(fairseq_plugins.__file__).parent)
LANGUAGES = ("de", "en")
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
        f"{SAMPLING} --relaxation soft_argmax --alpha 2 --alpha-growth 1.5",
    ),
    "scheduled sampling, Gumbel": (
        "dss_gumbel",
        f"{SAMPLING} --relaxation gumbel_soft --alpha 1 --alpha-growth 1.5",
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


def arguments(argv=None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.translation.run",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    default = Path(os.environ.get("DIFFDECODE_DATA", "../shared/data")) / "mt_tatoeba"
    add("--data", type=Path, default=default, help="folder with train and dev in de and en")
    add("--out", type=Path, default=Path("runs/translation"), help="where everything is written")
    add(
        "--full",
        action="store_true",
        help="all pairs, vocabulary of 8000, 20 + 5 epochs, on a GPU if there is",
    )
    add("--pairs", type=int, default=8_000, help="training pairs, drawn at random; 0: all")
    add("--dev-pairs", type=int, default=500, help="dev pairs, the first; 0: all")
    add("--vocabulary", type=int, default=2000, help="sentencepiece units, shared by both languages")
    add("--epochs", type=int, default=8, help="of the cross-entropy model")
    add("--more-epochs", type=int, default=2, help="of each continuation")
    add("--max-tokens", type=int, default=1500, help="target units in a batch")
    add("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    if args.full:
        args.pairs, args.dev_pairs, args.vocabulary = 0, 0, 8000
        args.epochs, args.more_epochs, args.max_tokens = 20, 5, 4000
    return args


def read_lines(folder: Path, name: str) -> list[str]:
    """Lines of a file, packed or not. Raises FileNotFoundError naming it."""
    for path, reader in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if path.is_file():
            with reader(path, "rt", encoding="utf-8") as file:
                return file.read().splitlines()
    raise FileNotFoundError(f"{folder / name} (or {name}.gz) does not exist: give the folder with --data")


def write_lines(path: Path, lines) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def prepare(args, console: Console) -> list[str]:
    """Train sentencepiece, split, binarise; returns the English dev sentences."""
    text, units = args.out / "text", args.out / "units"
    dev = {
        language: read_lines(args.data, f"dev.{language}")[: args.dev_pairs or None] for language in LANGUAGES
    }
    if (args.out / "bin" / "preprocess.log").exists():
        return dev["en"]
    train = list(zip(*(read_lines(args.data, f"train.{language}") for language in LANGUAGES), strict=True))
    if args.pairs:
        train = random.Random(args.seed).sample(train, args.pairs)
    console.print(f"{len(train):,} training pairs, {len(dev['en']):,} dev pairs from {args.data}")
    splits = {"train": dict(zip(LANGUAGES, zip(*train))), "valid": dev}
    for folder in (text, units):
        folder.mkdir(parents=True, exist_ok=True)
    for split, sides in splits.items():
        for language, lines in sides.items():
            (text / f"{split}.{language}").write_text(
                "".join(f"{line}\n" for line in lines), encoding="utf-8"
            )
    with console.status("sentencepiece"):
        sentencepiece.SentencePieceTrainer.train(
            input=[str(text / f"train.{language}") for language in LANGUAGES],
            model_prefix=str(args.out / "sentencepiece"),
            vocab_size=args.vocabulary,
            character_coverage=1.0,
            minloglevel=2,
        )
    model = sentencepiece.SentencePieceProcessor(model_file=str(args.out / "sentencepiece.model"))
    for split, sides in splits.items():
        for language, lines in sides.items():
            encoded = (" ".join(pieces) for pieces in model.encode(list(lines), out_type=str))
            (units / f"{split}.{language}").write_text(
                "".join(f"{line}\n" for line in encoded), encoding="utf-8"
            )
    command = ["-s", "de", "-t", "en", "--joined-dictionary", "--destdir", str(args.out / "bin")]
    command += ["--trainpref", str(units / "train"), "--validpref", str(units / "valid")]
    fairseq_command("preprocess", command, args.out / "preprocess.log")
    return dev["en"]


def systems(args, on_gpu: bool) -> list[TrainingRun]:
    """The cross-entropy run and its continuations."""
    common = [str(args.out / "bin"), "--user-dir", USER_DIR, *MODEL.split(), *TRAINING.split()]
    common += ["--eval-bleu-args", '{"beam": 1, "max_len_a": 1.5, "max_len_b": 5}']
    common += ["--max-tokens", str(args.max_tokens), "--seed", str(args.seed), *([] if on_gpu else ["--cpu"])]
    more = ["--finetune-from-model", str(args.out / "ce" / "checkpoint_best.pt")]

    def run(name, folder, options, more, epochs):
        options = [*common, *options.split(), *more, "--max-epoch", str(epochs)]
        return TrainingRun(name, args.out / folder, options, epochs, "bleu")

    first = run(CROSS_ENTROPY, "ce", "--criterion cross_entropy --dropout 0.3 --lr 0.002", [], args.epochs)
    return [first] + [
        run(name, folder, f"--lr 0.0003 {options}", more, args.more_epochs)
        for name, (folder, options) in CONTINUATIONS.items()
    ]


def bleu_of(references: list[str]):
    """A function from fairseq-generate's output file to BLEU against the untokenised references."""

    def score(path: Path) -> float:
        lines = re.findall(r"^D-(\d+)\t\S+\t(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        hypotheses = {int(number): text for number, text in lines}
        return BLEU.corpus_score([hypotheses[i] for i in range(len(references))], [references]).score

    return score


def row_of(args, run: TrainingRun, first: TrainingRun, references: list[str], on_gpu: bool) -> Row:
    """Decode one run in every way."""
    generate = [str(args.out / "bin"), "--user-dir", USER_DIR, "--task", "direct_loss_translation"]
    generate += ["--gen-subset", "valid", "--bpe", "sentencepiece", "--sentencepiece-model"]
    generate += [str(args.out / "sentencepiece.model"), "--max-tokens", "8000", "--no-progress-bar"]
    generate += [
        "--scoring",
        "sacrebleu",
        "--max-len-a",
        "1.5",
        "--max-len-b",
        "5",
        *([] if on_gpu else ["--cpu"]),
    ]
    row = Row(run.name)
    for decoding in DECODINGS:
        row.scores[decoding.heading] = [decode(run, decoding, generate, bleu_of(references))]
    curve = run.curve()
    row.updates, row.seconds, row.commands = [curve[-1]["updates"]], [run.seconds()], [run.command]
    row.curves = [curve if run is first else continued(first.curve(), curve)]
    return row


def main(argv=None) -> None:
    import torch

    args, console, started = arguments(argv), Console(), time.monotonic()
    on_gpu = args.full and torch.cuda.is_available()
    try:
        claim(args.out, vars(args))
        references = prepare(args, console)
        runs = systems(args, on_gpu)
        train_together(runs[:1], console)
        train_together(runs[1:], console, at_once=1 if on_gpu else 2)
        with console.status("decoding"):
            rows = [row_of(args, run, runs[0], references, on_gpu) for run in runs]
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"translation: {error}")
    signature = str(BLEU.get_signature())
    write_json(rows, {"measure": "BLEU", "signature": signature}, args.out / "results.json")
    plot(rows, "BLEU (greedy)", args.out / "curves.png")
    console.print(table(rows, f"BLEU on dev, seed {args.seed}"))
    console.print(f"sacreBLEU signature: {signature}")
    console.print(f"{time.monotonic() - started:.0f} s in all; see results.json and curves.png in {args.out}")


if __name__ == "__main__":
    main()
