"""Train a dependency parser on a Universal Dependencies treebank, with or without pretrained vectors.

English EWT (the default) by a CNN in minutes, and by a BiLSTM in three times as long::

    python -m examples.spacy.parse_ud
    python -m examples.spacy.parse_ud --encoder bilstm

with word vectors, which another command makes of a package::

    python -m examples.spacy.glove runs/glove
    python -m examples.spacy.parse_ud --encoder bilstm --vectors runs/glove

Basque, where a third of the trees have crossing arcs (compare with --no-projective)::

    python -m examples.spacy.parse_ud --treebank basque --projective
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples._shared.commands import add_device, add_out, one_line_errors
from examples._shared.spacy_training import (
    PACKAGE_CONFIGS,
    converted,
    learn_rate,
    train_from_scratch,
    train_on,
    use_device,
)
from examples.spacy._configs import CONFIGS
from spacy_components.training.corpus import create_corpus
from spacy_components.training.scorers import parse_scores

TREEBANKS = {
    "english": ("ud_english_ewt/en_ewt-ud-{}.conllu.gz", "en"),
    "basque": ("ud_basque_bdt/eu-ud-{}.conllu.gz", "eu"),
}


@dataclass(frozen=True)
class Encoder:
    """A config and its settings here; ``looks``: how often the dev set is parsed in training."""

    config: Path
    steps: int
    dropout: float
    looks: int
    overrides: dict[str, Any] = field(default_factory=dict)


ENCODERS = {
    "cnn": Encoder(
        PACKAGE_CONFIGS / "parser.cfg",
        steps=2000,
        dropout=0.1,
        looks=5,
        overrides={"components.spigot_parser.model.tok2vec.embed_size": 5000},
    ),
    "bilstm": Encoder(CONFIGS / "bilstm_parser.cfg", steps=1800, dropout=0.25, looks=9),
}


@one_line_errors("parse_ud")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.parse_ud", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--treebank", choices=TREEBANKS, default="english")
    parser.add_argument("--projective", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--encoder", choices=ENCODERS, default="cnn", help="what reads the words")
    parser.add_argument(
        "--steps", type=int, help="default: 2000 of 1000 words (cnn), 1800 of 2000 words (bilstm)"
    )
    parser.add_argument("--dropout", type=float, help="default: 0.1 (cnn), 0.25 (bilstm)")
    parser.add_argument("--learn-rate", type=float, default=0.002)
    parser.add_argument("--vectors", help="a pipeline with word vectors (python -m examples.spacy.glove)")
    parser.add_argument("--start", type=Path, help="a pipeline of the same encoder to train on from")
    parser.add_argument("--seed", type=int, default=0)
    add_out(parser, "runs/spacy-ud")
    add_device(parser, "cpu")
    args = parser.parse_args(argv)
    use_device(args.device)
    files, lang = TREEBANKS[args.treebank]
    encoder = ENCODERS[args.encoder]
    steps = args.steps or encoder.steps
    data = args.out / args.treebank
    overrides = {
        "nlp.lang": lang,
        "paths.train": converted(files.format("train"), data / "train.spacy", lang=lang),
        "paths.dev": converted(files.format("dev"), data / "dev.spacy", lang=lang),
        "paths.vectors": args.vectors,
        "system.seed": args.seed,
        "components.spigot_parser.projective": args.projective,
        "components.spigot_parser.multi_root": False,
        **encoder.overrides,
        "training.dropout": encoder.dropout if args.dropout is None else args.dropout,
        "training.max_steps": steps,
        "training.eval_frequency": max(steps // encoder.looks, 1),
        **learn_rate(args.learn_rate, steps),
    }
    kinds = ["projective" if args.projective else "nonprojective", args.encoder]
    name = "-".join([*kinds, "vectors"] if args.vectors else kinds)
    started = time.process_time()
    if args.start is None:
        nlp = train_from_scratch(encoder.config, data / name, overrides)
    else:
        nlp = train_on(args.start, data / name, overrides)
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
