"""``python -m spacy compare-parses``: which trees did finetuning through the parser change, and how?"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Annotated

from spacy.cli._util import Arg, Opt, app, setup_gpu
from spacy.language import Language
from wasabi import msg

from diffdecode.files.atomic import write_text
from diffdecode.files.text import FormatError
from spacy_components.cli.bad_input import load_pipeline, one_line_errors
from spacy_components.display import drawable, render_svg
from spacy_components.sdp_graph import DEFAULT_KEY, make_key
from spacy_components.training.corpus import make_example
from spacy_components.training.formats import read_docs
from spacy_components.training.parse_changes import CASES, ParseChanges, Sentence, compare_parses

SCORES = {"uas": "UAS", "lf": "LF", "acc": "Accuracy"}


@app.command("compare-parses")
def compare_parses_cli(
    before: Annotated[
        Path, Arg(help="Pipeline before, such as the parser alone", exists=True, file_okay=False)
    ],
    after: Annotated[
        Path, Arg(help="Pipeline after training through the parser", exists=True, file_okay=False)
    ],
    data: Annotated[Path, Arg(help="Annotated data: .spacy, .sdp, .conllu or .tsv (.gz too)", exists=True)],
    html: Annotated[
        Path | None, Opt("--html", help="Write changed trees, before and after, to this page")
    ] = None,
    examples: Annotated[int, Opt("--examples", "-n", min=0, help="How many sentences the page shows")] = 20,
    graph: Annotated[bool, Opt("--graph/--no-graph", help="CoNLL-U: read the enhanced graphs")] = False,
    use_gpu: Annotated[int, Opt("--gpu-id", "-g", help="GPU, or -1 for the CPU")] = -1,
    key: Annotated[str, Opt("--key", help="Compared with which graphs: doc._.KEY")] = DEFAULT_KEY,
) -> None:
    """Compare the trees of two pipelines as in Table 3 of the SPIGOT paper (Peng et al., 2018)."""
    setup_gpu(use_gpu)
    with one_line_errors("Cannot compare"):
        changes = compare(load_pipeline(before), load_pipeline(after), data, graph, key)
        if html is not None:
            write_text(html, html_page(changes, examples))
    print_changes(changes)
    if html is not None:
        msg.good(f"{min(len(changes.diff), examples)} of {len(changes.diff)} changed trees drawn in {html}")


def compare(
    before: Language, after: Language, data: Path, graph: bool = False, key: str = DEFAULT_KEY
) -> ParseChanges:
    """Parses the data with both pipelines, on the tokens of the data; key is that of its graphs.

    Raises ValueError for bad input and where a pipeline sets no parse.
    """
    runs = {
        name: [
            make_example(nlp, doc, gold_tokens=True)
            for doc in read_docs(data, nlp.vocab, graph=graph, key=make_key(key))
            if len(doc)
        ]
        for name, nlp in (("before", before), ("after", after))
    }
    if not runs["after"]:
        raise FormatError(data, None, "no documents")
    return compare_parses(
        before.pipe(example.predicted for example in runs["before"]),
        after.pipe(example.predicted for example in runs["after"]),
        [example.reference for example in runs["after"]],
        key,
    )


def print_changes(changes: ParseChanges) -> None:
    """Prints the table of scores by split, then the shares of the cases."""
    rows = list(changes.rows())
    scores = [name for name in SCORES if any(name in row for row in rows)]
    table = [
        (
            *(row[name] for name in ("split", "sentences", "system")),
            *(f"{100 * row[name]:.2f}" if name in row else "" for name in scores),
        )
        for row in rows
    ]
    header = ("Split", "# Sent.", "System", *(SCORES[name] for name in scores))
    msg.table(table, header=header, divider=True, aligns=("l", "r", "l", *"r" * len(scores)))
    shares = changes.case_shares()
    if shares is not None:
        msg.text(f"{shares['changed']} heads changed in sentences with a gold graph. Of these:")
        msg.table(
            [(f"({case})", CASES[case], f"{shares[case]:.1%}") for case in CASES], aligns=("l", "l", "r")
        )
        msg.text(f"at least one of the three: {shares['any']:.1%}")


def html_page(changes: ParseChanges, examples: int = 20) -> str:
    """A page with the trees of the first changed sentences, before above after; changed arcs have a star."""
    sections = "\n".join(map(_section, changes.diff[:examples]))
    title = f"{len(changes.diff)} of {len(changes.sentences)} trees changed"
    style = "body{font-family:sans-serif;margin:2em} figure{overflow-x:auto;margin:0 0 1em} h2{font-size:1em}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style></head>\n<body><h1>{title}</h1>\n{sections}\n</body></html>\n"
    )


def _section(sentence: Sentence) -> str:
    figures = [
        f"<figure><figcaption>{name}</figcaption>{render_svg(doc, 'tree', sentence.changed)}</figure>"
        for name, doc in (("before", sentence.before), ("after", sentence.after))
    ]
    return "\n".join([f"<h2>{escape(drawable(sentence.after.text))}</h2>", *figures])
