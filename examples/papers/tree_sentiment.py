"""Trees for sentiment: what reviews teach a parser, and the parser the classifier of reviews.

    python -m examples.papers.tree_sentiment --data DIR --vectors runs/glove    # all reviews, 16 seeds: hours
    python -m examples.papers.tree_sentiment --data DIR --steps 240 --seeds 3
    python -m examples.papers.tree_sentiment --quick                            # a generated language

The recipe of ``teach_parser`` with a text classifier in the place of the tagger. A parser is trained alone on
some trees, and then together with a classifier that reads each word with its head, its children and its
grandparent. ``DIR`` has ``sst_binary`` and ``ud_english_ewt``; ``examples.spacy.glove`` makes word vectors.
The BiLSTM is the classifier without trees, and takes as many reviews.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import spacy
from spacy import util

from examples._shared.data import file_in
from examples._shared.toy_corpus import corpus
from examples.papers._spacy import (
    Experiment,
    Overrides,
    System,
    made_once,
    save_docs,
    split_aside,
    words_in,
)
from examples.papers.sentiment import BILSTM, PIPELINE, REVIEWS, accuracy, counts
from spacy_components.cli.convert_sdp import convert

NAME, CONFIG = "examples.papers.tree_sentiment", Path(__file__).with_suffix(".cfg")
TREEBANK = "ud_english_ewt/en_ewt-ud-{}.conllu.gz"
SURROGATE, EMBED = "components.spigot_parser.surrogate", "components.textcat.model.tok2vec.embed"
TREE_WORDS = 0.25
"""Words with a tree for each word of a review."""


def files(args: argparse.Namespace) -> dict[str, str]:
    """Trees and reviews to train on, reviews kept aside, and both of dev; made if they are not there."""
    names = ("trees", "reviews", "aside", "dev_reviews", "dev_trees")
    return made_once(args, names, _generated, _converted)


def _converted(args: argparse.Namespace, found: dict[str, Path]) -> None:
    whole = args.out / "data" / "whole.spacy"
    convert(file_in(args.data, REVIEWS.format("train")), whole)
    split_aside(whole, found["reviews"], found["aside"], args.reviews)
    convert(file_in(args.data, REVIEWS.format("dev")), found["dev_reviews"])
    convert(file_in(args.data, TREEBANK.format("train")), found["trees"], limit=args.trees)
    convert(file_in(args.data, TREEBANK.format("dev")), found["dev_trees"])


def _generated(found: dict[str, Path]) -> None:
    vocab = spacy.blank("en").vocab
    for seed, (name, path) in enumerate(found.items()):
        trees = "trees" in name
        size = 30 if "dev" in name or name == "aside" else 80
        save_docs(path, corpus(vocab, size, seed, trees=trees, classes=not trees))


def common(args: argparse.Namespace, files: dict[str, str]) -> Overrides:
    """Sizes and data of all systems."""
    trees = TREE_WORDS * _words(files["reviews"]) / _words(files["trees"])
    return {
        "paths.trees": files["trees"],
        "paths.reviews": files["reviews"],
        "paths.dev": files["aside"],
        "paths.vectors": args.vectors,
        "paths.use_vectors": args.vectors is not None,
        "training.batcher.size": args.words,
        "corpora.train.fractions": {"trees": trees, "reviews": 1.0},
    }


_words = cache(words_in)


def trees_alone(files: dict[str, str]) -> Overrides:
    """Of the parser that all begin with."""
    return {
        "paths.dev": files["dev_trees"],
        "corpora.train.fractions": {"trees": 1.0, "reviews": 0.0},
        "training.score_weights": {"dep_uas": 1.0},
    }


def without_trees() -> dict[str, Any]:
    """The plain BiLSTM stands where the others join it with the words around in the tree."""
    bilstm = util.load_config(CONFIG, interpolate=False)["components"]["textcat"]["model"]["tok2vec"]["embed"]
    return {
        "nlp.pipeline": ["textcat"],
        EMBED: bilstm["tok2vec"],
        "components.textcat.model.tok2vec.encode.width": bilstm["tok2vec"]["encode"]["width"],
        "corpora.train.fractions": {"trees": 0.0, "reviews": 1.0},
    }


def share(files: dict[str, str]) -> float:
    """Of words of reviews."""
    return 1 / (1 + TREE_WORDS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes."""
    add = parser.add_argument
    add("--reviews", type=int, default=0, help="reviews to train on; 0 for all 6,920")
    add("--trees", type=int, default=3000, help="sentences with a tree; 0 for all 12,544")
    add("--steps", type=int, default=1500, help="of the joint training")
    add("--words", type=int, default=1000, help="of both texts in a step")
    add("--start-steps", type=int, default=600, help="of the parser before, alone")
    add("--start-rate", type=float, default=0.002, help="learning rate of that")
    add("--vectors", help="a pipeline with word vectors (python -m examples.spacy.glove)")


def quick(args: argparse.Namespace) -> None:
    """Small."""
    args.steps, args.start_steps, args.words = min(args.steps, 8), min(args.start_steps, 8), 200


EXPERIMENT = Experiment(
    module=NAME,
    about=__doc__ or "",
    config=CONFIG,
    systems=(
        System(BILSTM, without_trees(), sends=False, alone=True),
        System(PIPELINE, {SURROGATE: "pipeline"}, sends=False),
        *(System(name, {SURROGATE: name}) for name in ("ste", "spigot", "structured_st")),
    ),
    component="spigot_parser",
    files=files,
    common=common,
    share=share,
    start=trees_alone,
    dev=("dev_reviews", "dev_trees"),
    scores={"cats_acc": "accuracy", "dep_uas": "UAS", "dep_las": "LAS"},
    aside="cats_acc",
    counts=counts,
    score=accuracy,
    pairs=(
        (PIPELINE, BILSTM),
        ("spigot", PIPELINE),
        ("structured_st", PIPELINE),
        ("structured_st", BILSTM),
    ),
    add_options=add_options,
    quick=quick,
    quick_systems=(BILSTM, PIPELINE, "structured_st"),
    seeds=16,
)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    EXPERIMENT.main_program(argv)


if __name__ == "__main__":
    main()
