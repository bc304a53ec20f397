"""A parser trained with Stanza, tuned by a sentiment classifier: what one gains and the other loses.

Stanza's own trainer makes a small parser from UD English EWT. It becomes a component of a spaCy pipeline, in
which a text classifier reads its trees and is trained on SST::

    python -m examples.finetune_stanza
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from spacy import util
from spacy.language import Language

from examples.finetune_stanza.stanza_parser import parse_with_stanza, train_parser
from examples.spacy._data import converted
from examples.spacy._training import train_from_scratch
from spacy_components.cli.compare_parses import compare, html_page
from spacy_components.ml.stanza_checkpoint import CheckpointFiles
from spacy_components.stanza_export import export_parser
from spacy_components.stanza_import import import_parser
from spacy_components.training.corpus import create_corpus
from spacy_components.training.parse_changes import ParseChanges
from spacy_components.training.scorers import parse_scores

CONFIG = Path(__file__).parent / "config.cfg"
SYSTEMS = ("no trees", "pipeline", "ste", "spigot", "spigot_exact")
WORDS_PER_STEP = 1000


def main(argv: list[str] | None = None) -> None:
    args = _arguments().parse_args(argv)
    logging.getLogger("stanza").setLevel(logging.INFO)
    started = time.process_time()
    checkpoint = train_parser(args.out, args.parser_steps)
    data = _data(args.out)
    untuned = import_parser(CheckpointFiles(checkpoint))
    lines = [_start(untuned, checkpoint, data, args.out, time.process_time() - started)]
    rows = [
        _run(system, seed, checkpoint, data, args) for seed in range(args.seeds) for system in args.systems
    ]
    lines += _table(rows)
    lines += _given_back(args, data)
    lines += _changes(args, data)
    (args.out / "table.md").write_text("\n".join(lines), encoding="utf-8")
    Console().print(Markdown("\n".join(lines)))


def _data(out: Path) -> dict[str, str]:
    """Treebank and reviews in spaCy's format, and Stanza's dev set."""
    treebank = "ud_english_ewt/en_ewt-ud-{}.conllu.gz"
    return {
        "trees": converted(treebank.format("train"), out / "trees.spacy"),
        "trees_dev": converted(treebank.format("dev"), out / "trees_dev.spacy"),
        "reviews": converted("sst_binary/train.tsv", out / "reviews.spacy"),
        "reviews_dev": converted("sst_binary/dev.tsv", out / "reviews_dev.spacy"),
    }


def _run(system: str, seed: int, checkpoint: Path, data: dict[str, str], args) -> dict[str, Any]:
    """Trains one system; its scores at the step that is best on dev, and at the last one.

    What was run before with the same settings is not run again.
    """
    folder = _folder(args.out, system, seed)
    settings = _settings(system, seed, checkpoint, data, args)
    finished = folder / "row.json"
    if finished.exists():
        row = json.loads(finished.read_text(encoding="utf-8"))
        if row["settings"] == settings:
            return row
    started = time.process_time()
    train_from_scratch(CONFIG, folder, settings)
    seconds = time.process_time() - started
    row = {"system": system, "seed": seed, "seconds": seconds, "settings": settings}
    for step in ("best", "last"):
        nlp = util.load_model(folder / f"model-{step}")
        row[step] = {"accuracy": _accuracy(nlp, data), **_tree_scores(nlp, data)}
    finished.write_text(json.dumps(row, indent=1), encoding="utf-8")
    return row


def _settings(system: str, seed: int, checkpoint: Path, data: dict[str, str], args) -> dict[str, Any]:
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
    import spacy

    nlp = spacy.blank("en")
    return sum(len(example.reference) for example in create_corpus(Path(path), limit=limit)(nlp))


def _folder(out: Path, system: str, seed: int) -> Path:
    return out / system.replace(" ", "-") / str(seed)


def _accuracy(nlp: Language, data: dict[str, str]) -> float:
    return nlp.evaluate(list(create_corpus(Path(data["reviews_dev"]))(nlp)))["cats_acc"]


def _tree_scores(nlp: Language, data: dict[str, str]) -> dict[str, float]:
    """UAS and LAS over all words of the treebank's dev set; empty without a parser."""
    if "spigot_parser" not in nlp.pipe_names:
        return {}
    scores = parse_scores(_parsed(nlp, data), frozenset())
    return {"uas": scores["dep_uas"], "las": scores["dep_las"]}


def _parsed(nlp: Language, data: dict[str, str]) -> list:
    examples = list(create_corpus(Path(data["trees_dev"]))(nlp))
    parser = nlp.get_pipe("spigot_parser")
    for example, doc in zip(examples, parser.pipe(example.predicted for example in examples)):
        example.predicted = doc
    return examples


def _equal_to_stanza(nlp: Language, checkpoint: Path, data: dict[str, str], out: Path) -> str:
    """In how many dev sentences all heads and labels are those of Stanza itself."""
    stanza = parse_with_stanza(checkpoint, out / "dev.conllu")
    ours = [
        [(0, "root") if t.head.i == t.i else (t.head.i + 1, t.dep_) for t in example.predicted]
        for example in _parsed(nlp, data)
    ]
    return f"{sum(a == b for a, b in zip(ours, stanza, strict=True)):,} of {len(ours):,}"


def _start(nlp: Language, checkpoint: Path, data: dict[str, str], out: Path, seconds: float) -> str:
    scores = _tree_scores(nlp, data)
    return (
        f"Stanza's parser: UAS {100 * scores['uas']:.2f}, LAS {100 * scores['las']:.2f} on EWT dev "
        f"({seconds:.0f} s of CPU time). In spaCy it gives the same heads and labels in "
        f"{_equal_to_stanza(nlp, checkpoint, data, out)} sentences.\n"
    )


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown, means over the seeds."""
    lines = [
        "| system | accuracy | UAS | LAS | last step: accuracy | UAS | LAS | CPU time |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        cells = [
            _mean([row[step].get(score) for row in own])
            for step in ("best", "last")
            for score in ("accuracy", "uas", "las")
        ]
        seconds = sum(row["seconds"] for row in own) / len(own)
        lines.append(f"| {system} | {' | '.join(cells)} | {seconds:.0f} s |")
    return [*lines, ""]


def _mean(values: list[float | None]) -> str:
    if None in values:
        return ""
    text = f"{100 * sum(values) / len(values):.2f}"
    return text if len(values) == 1 else f"{text} ({', '.join(f'{100 * value:.2f}' for value in values)})"


def _given_back(args, data: dict[str, str]) -> list[str]:
    """The tuned parser as a file of Stanza's, and whether Stanza parses with it as spaCy does."""
    if "spigot" not in args.systems:
        return []
    nlp = util.load_model(_folder(args.out, "spigot", 0) / "model-best")
    checkpoint = args.out / "tuned.pt"
    export_parser(nlp, checkpoint)
    same = _equal_to_stanza(nlp, checkpoint, data, args.out)
    return [
        f"The tuned parser (spigot, seed 0) went back to Stanza, which parses {same} sentences the same.",
        "",
    ]


def _changes(args, data: dict[str, str]) -> list[str]:
    """What became of the trees of the reviews, against the pipeline's, with pages that draw them."""
    if "pipeline" not in args.systems:
        return []
    before = util.load_model(_folder(args.out, "pipeline", 0) / "model-best")
    lines = ["| reviews (dev, seed 0) | split | # | pipeline | tuned |", "|---|---|---:|---:|---:|"]
    for system in args.systems:
        if system not in ("no trees", "pipeline"):
            after = util.load_model(_folder(args.out, system, 0) / "model-best")
            changes = compare(before, after, Path(data["reviews_dev"]))
            lines += _split_rows(system, changes)
            page = args.out / f"changed_trees-{system}.html"
            page.write_text(html_page(changes), encoding="utf-8")
            print(f"{page}: trees of reviews before and after")
    return [*lines, ""]


def _split_rows(system: str, changes: ParseChanges) -> list[str]:
    rows = list(changes.rows())
    return [
        f"| {system} | {a['split']} | {a['sentences']} | {_percent(a)} | {_percent(b)} |"
        for a, b in zip(rows[::2], rows[1::2])
    ]


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['acc']:.2f}" if row["sentences"] else ""


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.finetune_stanza", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--parser-steps", type=int, default=600, help="Stanza's steps of 2000 words")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--reviews", type=int, default=3000, help="reviews to train on; 0 for all 6,920")
    parser.add_argument("--epochs", type=float, default=3.0, help="how often each review is seen")
    parser.add_argument("--trees", type=float, default=0.1, help="share of the treebank that is mixed in")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs of each system")
    parser.add_argument("--grad-factor", type=float, default=0.1)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--learn-rate", type=float, default=0.001)
    parser.add_argument("--out", type=Path, default=Path("runs/finetune-stanza"))
    return parser


if __name__ == "__main__":
    main()
