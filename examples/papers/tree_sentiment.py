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

import spacy

from examples._shared.data import file_in
from examples._shared.toy_corpus import corpus
from examples.papers._spacy import (
    Experiment,
    Overrides,
    generated_sizes,
    made_once,
    save_docs,
    words_in,
)
from examples.papers.sentiment import (
    BILSTM,
    PIPELINE,
    accuracy,
    classifier_alone,
    convert_reviews,
    counts,
    of_reviews,
    quick,
    systems,
)
from examples.papers.sentiment import add_options as add_sizes
from examples.papers.syntax_semantics import TREEBANK
from spacy_components.cli.convert_sdp import convert

NAME, CONFIG = "examples.papers.tree_sentiment", Path(__file__).with_suffix(".cfg")
TREE_WORDS = 0.25
"""Words with a tree for each word of a review."""


def files(args: argparse.Namespace) -> dict[str, str]:
    """Trees and reviews to train on, reviews kept aside, and both of dev; made if they are not there."""
    names = ("trees", "reviews", "aside", "dev_reviews", "dev_trees")
    return made_once(args, names, _generated, _converted)


def _converted(args: argparse.Namespace, found: dict[str, Path]) -> None:
    convert_reviews(args, found)
    convert(file_in(args.data, TREEBANK.format("train")), found["trees"], limit=args.trees)
    convert(file_in(args.data, TREEBANK.format("dev")), found["dev_trees"])


def _generated(found: dict[str, Path]) -> None:
    vocab = spacy.blank("en").vocab
    for name, path, size, seed in generated_sizes(found):
        trees = "trees" in name
        save_docs(path, corpus(vocab, size, seed, trees=trees, classes=not trees))


def common(args: argparse.Namespace, files: dict[str, str]) -> Overrides:
    """Sizes and data of all systems."""
    trees = TREE_WORDS * _words(files["reviews"]) / _words(files["trees"])
    return of_reviews(args, files) | {
        "paths.trees": files["trees"],
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


def share(files: dict[str, str]) -> float:
    """Of words of reviews."""
    return 1 / (1 + TREE_WORDS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes."""
    add_sizes(parser, steps=1500, start_steps=600)
    parser.add_argument("--trees", type=int, default=3000, help="sentences with a tree; 0 for all 12,544")


EXPERIMENT = Experiment(
    module=NAME,
    about=__doc__ or "",
    config=CONFIG,
    systems=systems("spigot_parser", classifier_alone(CONFIG, "trees")),
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
main = EXPERIMENT.main_program

if __name__ == "__main__":
    main()
