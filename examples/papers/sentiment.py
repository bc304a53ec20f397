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
    generated_sizes,
    made_once,
    save_docs,
    split_aside,
    words_in,
)
from spacy_components.cli.convert_sdp import convert

NAME, CONFIG = "examples.papers.sentiment", Path(__file__).with_suffix(".cfg")
REVIEWS, GRAPHS = "sst_binary/{}.tsv", "sdp_dm_wescience/{}.sdp.gz"
BILSTM, PIPELINE = "BiLSTM", "pipeline"
GRAPHS_DRAWN = 0.2
"""How much of the graphs an epoch of the reviews draws (4.2.1 of the paper)."""


def files(args: argparse.Namespace) -> dict[str, str]:
    """Graphs and reviews to train on, reviews kept aside, and both of dev; made if they are not there."""
    names = ("graphs", "reviews", "aside", "dev_reviews", "dev_graphs")
    return made_once(args, names, _generated, _converted)


def convert_reviews(args: argparse.Namespace, found: dict[str, Path]) -> None:
    """Reviews to train on, reviews kept aside, and those of dev."""
    whole = args.out / "data" / "whole.spacy"
    convert(file_in(args.data, REVIEWS.format("train")), whole)
    split_aside(whole, found["reviews"], found["aside"], args.reviews)
    convert(file_in(args.data, REVIEWS.format("dev")), found["dev_reviews"])


def _converted(args: argparse.Namespace, found: dict[str, Path]) -> None:
    convert_reviews(args, found)
    convert(file_in(args.data, GRAPHS.format("train")), found["graphs"])
    convert(file_in(args.data, GRAPHS.format("dev")), found["dev_graphs"])


def _generated(found: dict[str, Path]) -> None:
    vocab = spacy.blank("en").vocab
    for name, path, size, seed in generated_sizes(found):
        graphs = "graphs" in name
        docs = corpus(vocab, size, seed, trees=graphs, classes=not graphs)
        save_docs(path, (with_graph(doc, "sdp", far=True) for doc in docs) if graphs else docs)


def of_reviews(args: argparse.Namespace, files: dict[str, str]) -> Overrides:
    """Sizes and data of the classifier."""
    return {
        "paths.reviews": files["reviews"],
        "paths.dev": files["aside"],
        "paths.vectors": args.vectors,
        "paths.use_vectors": args.vectors is not None,
        "training.batcher.size": args.words,
    }


def common(args: argparse.Namespace, files: dict[str, str]) -> Overrides:
    """Sizes and data of all systems."""
    return of_reviews(args, files) | {
        "paths.graphs": files["graphs"],
        "corpora.train.fractions": {"graphs": GRAPHS_DRAWN, "reviews": 1.0},
    }


def graphs_alone(files: dict[str, str]) -> Overrides:
    """Of the DM parser that all begin with."""
    return {
        "paths.dev": files["dev_graphs"],
        "corpora.train.fractions": {"graphs": 1.0, "reviews": 0.0},
        "training.score_weights": {"sdp_lf": 1.0},
    }


def classifier_alone(config: Path, annotated: str) -> Overrides:
    """The plain BiLSTM stands where the others join it with what a parser found.

    Args:
        config: of all systems.
        annotated: name of the parser's corpus, of which nothing is drawn.
    """
    embed = util.load_config(config, interpolate=False)["components"]["textcat"]["model"]["tok2vec"]["embed"]
    return {
        "nlp.pipeline": ["textcat"],
        "components.textcat.model.tok2vec.embed": embed["tok2vec"],
        "components.textcat.model.tok2vec.encode.width": embed["tok2vec"]["encode"]["width"],
        "corpora.train.fractions": {annotated: 0.0, "reviews": 1.0},
    }


def systems(component: str, alone: Overrides) -> tuple[System, ...]:
    """A classifier alone, and over a parser that it sends nothing, or a gradient by a surrogate."""
    surrogate = f"components.{component}.surrogate"
    return (
        System(BILSTM, alone, sends=False, alone=True),
        System(PIPELINE, {surrogate: "pipeline"}, sends=False),
        *(System(name, {surrogate: name}) for name in ("ste", "spigot", "structured_st")),
    )


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


def add_options(parser: argparse.ArgumentParser, steps: int = 2000, start_steps: int = 2000) -> None:
    """Sizes."""
    add = parser.add_argument
    add("--reviews", type=int, default=0, help="reviews to train on; 0 for all 6,920")
    add("--steps", type=int, default=steps, help="of the joint training")
    add("--words", type=int, default=1000, help="of both texts in a step")
    add("--start-steps", type=int, default=start_steps, help="of the parser before, alone")
    add("--start-rate", type=float, default=0.002, help="learning rate of that")
    add("--vectors", help="a pipeline with word vectors (python -m examples.spacy.glove)")


def quick(args: argparse.Namespace) -> None:
    """Small."""
    args.steps, args.start_steps, args.words = min(args.steps, 8), min(args.start_steps, 8), 200


EXPERIMENT = Experiment(
    module=NAME,
    about=__doc__ or "",
    config=CONFIG,
    systems=systems("spigot_sdp", classifier_alone(CONFIG, "graphs")),
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
