"""Train a dependency parser on a Universal Dependencies treebank.

English EWT (the default) by a CNN in minutes, and full size with a BiLSTM::

    python -m examples.spacy.parse_ud
    python -m examples.spacy.parse_ud --lstm-width 200 --dropout 0.3 --steps 3500

Basque, where a third of the trees have crossing arcs (compare with --no-projective)::

    python -m examples.spacy.parse_ud --treebank basque --projective
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from examples.spacy._data import converted
from examples.spacy._training import PACKAGE_CONFIGS, learn_rate, train_from_scratch
from spacy_components.training.corpus import create_corpus
from spacy_components.training.scorers import parse_scores

TREEBANKS = {
    "english": ("ud_english_ewt/en_ewt-ud-{}.conllu.gz", "en"),
    "basque": ("ud_basque_bdt/eu-ud-{}.conllu.gz", "eu"),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.parse_ud", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--treebank", choices=TREEBANKS, default="english")
    parser.add_argument("--projective", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--steps", type=int, default=2000, help="steps of 1000 words")
    parser.add_argument(
        "--lstm-width", type=int, default=0, help="size of a BiLSTM above the CNN; 0 for none"
    )
    parser.add_argument("--lstm-depth", type=int, default=2, help="its layers")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--width", type=int, default=96, help="width of the CNN")
    parser.add_argument("--learn-rate", type=float, default=0.002)
    parser.add_argument("--out", type=Path, default=Path("runs/spacy-ud"))
    args = parser.parse_args(argv)
    files, lang = TREEBANKS[args.treebank]
    data = args.out / args.treebank
    model = "components.spigot_parser.model"
    overrides = {
        "nlp.lang": lang,
        "paths.train": converted(files.format("train"), data / "train.spacy", lang=lang),
        "paths.dev": converted(files.format("dev"), data / "dev.spacy", lang=lang),
        "components.spigot_parser.projective": args.projective,
        "components.spigot_parser.multi_root": False,
        f"{model}.lstm_width": args.lstm_width,
        f"{model}.lstm_depth": args.lstm_depth if args.lstm_width else 0,
        f"{model}.tok2vec.width": args.width,
        f"{model}.tok2vec.embed_size": 5000,
        "training.dropout": args.dropout,
        "training.max_steps": args.steps,
        "training.eval_frequency": max(args.steps // 5, 1),
        **learn_rate(args.learn_rate, args.steps),
    }
    name = "-".join(
        ["projective" if args.projective else "nonprojective", "bilstm" if args.lstm_width else "cnn"]
    )
    started = time.process_time()
    nlp = train_from_scratch(PACKAGE_CONFIGS / "parser.cfg", data / name, overrides)
    spent = time.process_time() - started
    examples = list(create_corpus(data / "dev.spacy")(nlp))
    for example, doc in zip(examples, nlp.pipe([example.predicted for example in examples])):
        example.predicted = doc
    report(f"{args.treebank}, {name}", examples, spent)


def report(name: str, examples: list, seconds: float) -> None:
    """Prints UAS and LAS of both conventions."""
    print(f"{name}: {seconds:.0f} s of CPU time")
    for convention, ignored in (("all words", frozenset()), ("without punct", frozenset({"p", "punct"}))):
        scores = parse_scores(examples, ignored)
        print(f"  {convention:14} UAS {100 * scores['dep_uas']:.2f}  LAS {100 * scores['dep_las']:.2f}")


if __name__ == "__main__":
    main()
