"""The systems that are compared: their settings, their training, their scores."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import spacy
from spacy import util
from spacy.language import Language
from spacy.training import Example

from examples._shared.runs import done_once
from examples._shared.spacy_training import converted, train_from_scratch
from examples.finetune_stanza.stanza_parser import TREEBANK
from spacy_components.training.corpus import create_corpus
from spacy_components.training.scorers import parse_scores

CONFIG = Path(__file__).parent / "config.cfg"
SYSTEMS = ("no trees", "pipeline", "ste", "spigot", "spigot_exact")
WORDS_PER_STEP = 1000


def convert_data(out: Path) -> dict[str, str]:
    """Treebank and reviews in spaCy's format, and Stanza's dev set."""
    return {
        "trees": converted(TREEBANK.format("train"), out / "trees.spacy"),
        "trees_dev": converted(TREEBANK.format("dev"), out / "trees_dev.spacy"),
        "reviews": converted("sst_binary/train.tsv", out / "reviews.spacy"),
        "reviews_dev": converted("sst_binary/dev.tsv", out / "reviews_dev.spacy"),
    }


def run_system(
    system: str, seed: int, checkpoint: Path, data: dict[str, str], args: argparse.Namespace
) -> dict[str, Any]:
    """Trains one system; its scores at the step that is best on dev, and at the last one.

    What was run before with the same settings is not run again.
    """
    folder = folder_of(args.out, system, seed)
    settings = _settings(system, seed, checkpoint, data, args)

    def train() -> dict[str, Any]:
        started = time.process_time()
        train_from_scratch(CONFIG, folder, settings)
        row = {"system": system, "seed": seed, "seconds": time.process_time() - started}
        for step in ("best", "last"):
            nlp = util.load_model(folder / f"model-{step}")
            row[step] = {"accuracy": _accuracy(nlp, data), **tree_scores(nlp, data)}
        return row

    return done_once(folder / "row.json", settings, train)


def _settings(
    system: str, seed: int, checkpoint: Path, data: dict[str, str], args: argparse.Namespace
) -> dict[str, Any]:
    reviews = _words(data["reviews"], args.reviews)
    trees = args.trees * _words(data["trees"]) if args.trees and system != "no trees" else 0
    steps = round(args.epochs * (reviews + trees) / WORDS_PER_STEP)
    settings = {
        "paths.checkpoint": str(checkpoint),
        "paths.trees": data["trees"],
        "paths.reviews": data["reviews"],
        "paths.dev": data["reviews_dev"],
        "corpora.train.corpora.reviews.limit": args.reviews,
        "corpora.train.corpora.reviews.shuffle": False,
        "corpora.train.fractions.trees": args.trees,
        "components.spigot_parser.eta": args.eta,
        "components.spigot_parser.grad_factor": args.grad_factor,
        "system.seed": seed,
        "training.max_steps": steps,
        "training.eval_frequency": max(steps // 6, 1),
        "training.optimizer.learn_rate": args.learn_rate,
    }
    if system != "no trees":
        return settings | {"components.spigot_parser.surrogate": system}
    tok2vec = util.load_config(CONFIG)["components"]["textcat"]["model"]["tok2vec"]
    bilstm = tok2vec["embed"]["tok2vec"]
    return settings | {
        "nlp.pipeline": ["textcat"],
        "components.textcat.model.tok2vec.embed": bilstm,
        "components.textcat.model.tok2vec.encode.width": bilstm["encode"]["width"],
        "corpora.train.fractions.trees": 0.0,
    }


def _words(path: str, limit: int = 0) -> int:
    nlp = spacy.blank("en")
    return sum(len(example.reference) for example in create_corpus(Path(path), limit=limit)(nlp))


def folder_of(out: Path, system: str, seed: int) -> Path:
    """Where a system lies."""
    return out / system.replace(" ", "-") / str(seed)


def _accuracy(nlp: Language, data: dict[str, str]) -> float:
    return nlp.evaluate(list(create_corpus(Path(data["reviews_dev"]))(nlp)))["cats_acc"]


def tree_scores(nlp: Language, data: dict[str, str]) -> dict[str, float]:
    """UAS and LAS over all words of the treebank's dev set; empty without a parser."""
    if "spigot_parser" not in nlp.pipe_names:
        return {}
    scores = parse_scores(parsed(nlp, data), frozenset())
    return {"uas": scores["dep_uas"], "las": scores["dep_las"]}


def parsed(nlp: Language, data: dict[str, str]) -> list[Example]:
    """The treebank's dev set, parsed."""
    examples = list(create_corpus(Path(data["trees_dev"]))(nlp))
    parser = nlp.get_pipe("spigot_parser")
    for example, doc in zip(examples, parser.pipe(example.predicted for example in examples)):
        example.predicted = doc
    return examples
