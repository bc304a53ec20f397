"""Tables and pages: what the classifier gained, what the parser lost, which trees changed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from spacy import util
from spacy.language import Language

from diffdecode.files.atomic import write_text
from examples._shared.tables import markdown_table
from examples.finetune_stanza.stanza_parser import parse_with_stanza
from examples.finetune_stanza.systems import folder_of, parsed, tree_scores
from spacy_components.cli.compare_parses import compare, html_page
from spacy_components.stanza.export_parser import export_parser
from spacy_components.training.parse_changes import ParseChanges


def start_line(nlp: Language, checkpoint: Path, data: dict[str, str], out: Path) -> str:
    """The parser before it is tuned, in spaCy and in Stanza."""
    scores = tree_scores(nlp, data)
    same = _equal_to_stanza(nlp, checkpoint, data, out)
    return (
        f"Stanza's parser: UAS {100 * scores['uas']:.2f}, LAS {100 * scores['las']:.2f} on EWT dev. "
        f"In spaCy it gives the same heads and labels in {same} sentences.\n"
    )


def score_table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown, means over the seeds."""
    header = ["system", "accuracy", "UAS", "LAS", "last step: accuracy", "UAS", "LAS", "CPU time"]
    lines = []
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        cells = [
            _mean([row[step].get(score) for row in own])
            for step in ("best", "last")
            for score in ("accuracy", "uas", "las")
        ]
        seconds = sum(row["seconds"] for row in own) / len(own)
        lines.append([system, *cells, f"{seconds:.0f} s"])
    return [markdown_table(header, lines), ""]


def given_back(args: argparse.Namespace, data: dict[str, str]) -> list[str]:
    """The tuned parser as a file of Stanza's, and whether Stanza parses with it as spaCy does."""
    if "spigot" not in args.systems:
        return []
    nlp = util.load_model(folder_of(args.out, "spigot", 0) / "model-best")
    checkpoint = args.out / "tuned.pt"
    export_parser(nlp, checkpoint)
    same = _equal_to_stanza(nlp, checkpoint, data, args.out)
    return [
        f"The tuned parser (spigot, seed 0) went back to Stanza, which parses {same} sentences the same.",
        "",
    ]


def tree_changes(args: argparse.Namespace, data: dict[str, str]) -> list[str]:
    """What became of the trees of the reviews, against the pipeline's, with pages that draw them."""
    if "pipeline" not in args.systems:
        return []
    before = util.load_model(folder_of(args.out, "pipeline", 0) / "model-best")
    header, lines = ["reviews (dev, seed 0)", "split", "#", "pipeline", "tuned"], []
    for system in args.systems:
        if system not in ("no trees", "pipeline"):
            after = util.load_model(folder_of(args.out, system, 0) / "model-best")
            changes = compare(before, after, Path(data["reviews_dev"]))
            lines += _split_rows(system, changes)
            page = args.out / f"changed_trees-{system}.html"
            write_text(page, html_page(changes))
            print(f"{page}: trees of reviews before and after")
    return [markdown_table(header, lines), ""]


def _split_rows(system: str, changes: ParseChanges) -> list[list[str]]:
    rows = list(changes.rows())
    return [
        [system, a["split"], str(a["sentences"]), _percent(a), _percent(b)]
        for a, b in zip(rows[::2], rows[1::2])
    ]


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['acc']:.2f}" if row["sentences"] else ""


def _mean(values: list[float | None]) -> str:
    if None in values:
        return ""
    text = f"{100 * sum(values) / len(values):.2f}"
    return text if len(values) == 1 else f"{text} ({', '.join(f'{100 * value:.2f}' for value in values)})"


def _equal_to_stanza(nlp: Language, checkpoint: Path, data: dict[str, str], out: Path) -> str:
    """In how many dev sentences all heads and labels are those of Stanza itself."""
    stanza = parse_with_stanza(checkpoint, out / "dev.conllu")
    ours = [
        [(0, "root") if t.head.i == t.i else (t.head.i + 1, t.dep_) for t in example.predicted]
        for example in parsed(nlp, data)
    ]
    return f"{sum(a == b for a, b in zip(ours, stanza, strict=True)):,} of {len(ours):,}"
