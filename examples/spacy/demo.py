"""Train a classifier through the hard trees of a parser, on a toy language, and compare ways to do it.

    python -m examples.spacy.demo [--out runs/spacy-toy]

First a parser (from a small treebank) and a classifier on its trees are trained as a pipeline: the parser
learns from the treebank alone. Then both go on for the same number of steps in several ways: as a pipeline,
with straight-through estimators, and with SPIGOT (Peng, Thomson and Smith, 2018) and its variant by
exponentiated gradient. The language is in ``examples/_shared/toy_corpus.py``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import spacy
from rich.console import Console
from rich.table import Table
from spacy.language import Language
from spacy.tokens import DocBin

from diffdecode.files.atomic import write_bytes, write_text
from examples._shared.commands import add_device, add_out, one_line_errors
from examples._shared.spacy_training import train_from_scratch, train_on, use_device
from examples._shared.toy_corpus import ENDINGS, KNOWN_ENDINGS, corpus
from examples.spacy._configs import CONFIGS
from spacy_components.cli.compare_parses import html_page
from spacy_components.training.corpus import create_corpus, make_example
from spacy_components.training.parse_changes import compare_parses

SIZES = {"trees": 200, "reviews": 4000, "dev": 300, "test": 1000}
SEEDS = {"trees": 1, "reviews": 2, "dev": 3, "test": 4}
METHODS = ("pipeline", "ste", "structured_st", "spigot", "spigot_eg")
GRAD_FACTOR = 0.1


@one_line_errors("demo")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.demo", description=__doc__.partition("\n")[0]
    )
    add_out(parser, "runs/spacy-toy")
    add_device(parser, "cpu")
    parser.add_argument("--steps", type=int, default=300, help="steps of the pipeline to start from")
    parser.add_argument("--more-steps", type=int, default=200, help="steps of each way to go on")
    args = parser.parse_args(argv)
    use_device(args.device)
    started = time.monotonic()
    paths = write_corpus(args.out)
    overrides = {f"paths.{name}": str(path) for name, path in paths.items() if name != "test"}
    overrides |= {"components.parser.surrogate": "pipeline", "components.parser.grad_factor": GRAD_FACTOR}
    overrides |= steps(args.steps)
    start = train_from_scratch(CONFIGS / "toy.cfg", args.out / "start", overrides)
    table = results_table()
    table.add_row("start", *accuracies(start, paths["test"]))
    for method in METHODS:
        folder = args.out / method
        settings = {"components.parser.surrogate": method} | steps(args.more_steps)
        best = train_on(args.out / "start" / "model-best", folder, settings)
        last = spacy.load(folder / "model-last")
        table.add_row(method, *accuracies(best, paths["test"]), *accuracies(last, paths["test"]))
        draw_changes(start, best, paths["test"], folder / "changed_trees.html")
    Console().print(table)
    print(
        f"Trees before and after: {args.out}/*/changed_trees.html. {time.monotonic() - started:.0f} seconds."
    )


def write_corpus(folder: Path) -> dict[str, Path]:
    """Generates the treebank, the reviews, and dev and test with both annotations."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = spacy.blank("xx").vocab
    kinds = {"trees": {"trees": True, "classes": False, "endings": KNOWN_ENDINGS}}
    kinds["reviews"] = {"trees": False, "classes": True}
    paths = {}
    for name, size in SIZES.items():
        docs = corpus(vocab, size, SEEDS[name], **kinds.get(name, {"trees": True, "classes": True}))
        paths[name] = folder / f"{name}.spacy"
        write_bytes(paths[name], DocBin(docs=docs, store_user_data=True).to_bytes())
    return paths


def steps(number: int) -> dict[str, int]:
    """Settings for so many steps, with four looks at the dev set."""
    return {"training.max_steps": number, "training.eval_frequency": max(number // 4, 1)}


def results_table() -> Table:
    """The empty table of results."""
    caption = f"{len(KNOWN_ENDINGS)} of {len(ENDINGS)} endings in the treebank"
    view = Table(title="Toy reviews, test", title_justify="left", caption=caption)
    view.add_column("trained with")
    for step in ("best on dev", "last step"):
        view.add_column(f"{step}:\nclasses right", justify="right")
        view.add_column("UAS", justify="right")
    return view


def accuracies(nlp: Language, test: Path) -> tuple[str, str]:
    """Percentages of right classes and of right heads."""
    scores = nlp.evaluate(list(create_corpus(test)(nlp)))
    return f"{100 * scores['cats_acc']:.1f}", f"{100 * scores['dep_uas']:.1f}"


def draw_changes(before: Language, after: Language, test: Path, page: Path) -> None:
    """Writes the first changed trees of 100 test sentences as an HTML page."""
    references = [list(DocBin().from_disk(test).get_docs(nlp.vocab))[:100] for nlp in (before, after)]
    runs = [
        nlp.pipe(make_example(nlp, doc, gold_tokens=True).predicted for doc in docs)
        for nlp, docs in zip((before, after), references)
    ]
    changes = compare_parses(*runs, references[1])
    write_text(page, html_page(changes, examples=10))


if __name__ == "__main__":
    main()
