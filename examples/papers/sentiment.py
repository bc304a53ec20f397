"""Semantic dependencies for sentiment, and what the classifier sends back (Peng et al. 2018, Table 2).

    python -m examples.papers.sentiment --data DIR --vectors runs/glove  # all reviews, 8 seeds: hours
    python -m examples.papers.sentiment --data DIR --reviews 3000 --steps 240 --seeds 3
    python -m examples.papers.sentiment --quick                          # a generated language

A DM parser is trained alone, and a classifier that reads its graphs then trains it on, with a fifth of the
graphs. ``DIR`` has ``sst_binary`` and ``sdp_dm_wescience``; ``examples.spacy.glove`` makes word vectors. The
BiLSTM is the classifier without graphs, and takes as many reviews.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from spacy import util
from spacy.training import Example

from examples._shared.data import file_in
from examples._shared.toy_corpus import corpus, with_graph
from examples.papers._spacy import (
    Experiment,
    Overrides,
    System,
    made_once,
    save_docs,
    split_aside,
    words_in,
)
from spacy_components.cli.convert_sdp import convert

NAME, CONFIG = "examples.papers.sentiment", Path(__file__).with_suffix(".cfg")
REVIEWS, GRAPHS = "sst_binary/{}.tsv", "sdp_dm_wescience/{}.sdp.gz"
BILSTM, PIPELINE = "BiLSTM", "pipeline"
SURROGATE, EMBED = "components.spigot_sdp.surrogate", "components.textcat.model.tok2vec.embed"
GRAPHS_DRAWN = 0.2
"""How much of the graphs an epoch of the reviews draws (4.2.1 of the paper)."""


def files(args: argparse.Namespace) -> dict[str, str]:
    """Graphs and reviews to train on, reviews kept aside, and both of dev; made if they are not there."""
    names = ("graphs", "reviews", "aside", "dev_reviews", "dev_graphs")
    return made_once(args, names, _generated, _converted)


def _converted(args: argparse.Namespace, found: dict[str, Path]) -> None:
    whole = args.out / "data" / "whole.spacy"
    convert(file_in(args.data, REVIEWS.format("train")), whole)
    split_aside(whole, found["reviews"], found["aside"], args.reviews)
    convert(file_in(args.data, REVIEWS.format("dev")), found["dev_reviews"])
    convert(file_in(args.data, GRAPHS.format("train")), found["graphs"])
    convert(file_in(args.data, GRAPHS.format("dev")), found["dev_graphs"])


def _generated(found: dict[str, Path]) -> None:
    vocab = spacy.blank("en").vocab
    for seed, (name, path) in enumerate(found.items()):
        graphs = "graphs" in name
        size = 30 if "dev" in name or name == "aside" else 80
        docs = corpus(vocab, size, seed, trees=graphs, classes=not graphs)
        save_docs(path, (with_graph(doc, "sdp", far=True) for doc in docs) if graphs else docs)


def common(args: argparse.Namespace, files: dict[str, str]) -> Overrides:
    """Sizes and data of all systems."""
    return {
        "paths.graphs": files["graphs"],
        "paths.reviews": files["reviews"],
        "paths.dev": files["aside"],
        "paths.vectors": args.vectors,
        "training.batcher.size": args.words,
        "corpora.train.fractions": {"graphs": GRAPHS_DRAWN, "reviews": 1.0},
        "paths.use_vectors": args.vectors is not None,
    }


def graphs_alone(files: dict[str, str]) -> Overrides:
    """Of the DM parser that all begin with."""
    return {
        "paths.dev": files["dev_graphs"],
        "corpora.train.fractions": {"graphs": 1.0, "reviews": 0.0},
        "training.score_weights": {"sdp_lf": 1.0},
    }


def without_graphs() -> dict[str, Any]:
    """The plain BiLSTM stands where the others join it with graphs."""
    bilstm = util.load_config(CONFIG, interpolate=False)["components"]["textcat"]["model"]["tok2vec"]["embed"]
    return {
        "nlp.pipeline": ["textcat"],
        EMBED: bilstm["tok2vec"],
        "components.textcat.model.tok2vec.encode.width": bilstm["tok2vec"]["encode"]["width"],
        "corpora.train.fractions": {"graphs": 0.0, "reviews": 1.0},
    }


def share(files: dict[str, str]) -> float:
    """Of words of reviews."""
    reviews, graphs = words_in(files["reviews"]), words_in(files["graphs"])
    return reviews / (reviews + GRAPHS_DRAWN * graphs)


def counts(example: Example) -> tuple[int, ...]:
    """Whether the class of one review is right, and one."""
    gold, found = (max(doc.cats, key=doc.cats.__getitem__) for doc in (example.reference, example.predicted))
    return int(gold == found), 1


def accuracy(counts: np.ndarray) -> np.ndarray:
    """In percent, of sums of counts ``[..., 2]``."""
    return 100 * counts[..., 0] / counts[..., 1]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes."""
    add = parser.add_argument
    add("--reviews", type=int, default=0, help="reviews to train on; 0 for all 6,920")
    add("--steps", type=int, default=2000, help="of the joint training")
    add("--words", type=int, default=1000, help="of both texts in a step")
    add("--start-steps", type=int, default=2000, help="of the DM parser before, alone")
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
        System(BILSTM, without_graphs(), sends=False, alone=True),
        System(PIPELINE, {SURROGATE: "pipeline"}, sends=False),
        *(System(name, {SURROGATE: name}) for name in ("ste", "spigot", "structured_st")),
    ),
    component="spigot_sdp",
    files=files,
    common=common,
    share=share,
    start=graphs_alone,
    dev=("dev_reviews", "dev_graphs"),
    scores={"cats_acc": "accuracy", "sdp_lf": "DM LF"},
    aside="cats_acc",
    counts=counts,
    score=accuracy,
    pairs=(
        (PIPELINE, BILSTM),
        ("spigot", PIPELINE),
        ("spigot", "ste"),
        ("structured_st", PIPELINE),
        ("structured_st", BILSTM),
    ),
    add_options=add_options,
    quick=quick,
    quick_systems=(BILSTM, PIPELINE, "structured_st"),
    seeds=8,
    paper={
        BILSTM: {"accuracy": 84.8},
        PIPELINE: {"accuracy": 85.7},
        "ste": {"accuracy": 85.4},
        "spigot": {"accuracy": 86.3},
    },
    paper_data="SST, test, with GloVe",
)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    EXPERIMENT.main_program(argv)


if __name__ == "__main__":
    main()
