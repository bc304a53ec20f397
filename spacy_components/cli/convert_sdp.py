"""``python -m spacy convert-sdp``: files with graphs, trees or classes to spaCy's binary format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import spacy
from spacy.cli._util import Arg, Opt, app
from spacy.tokens import DocBin
from wasabi import msg

from diffdecode.files.atomic import write_bytes
from diffdecode.files.text import FormatError
from spacy_components.cli.bad_input import one_line_errors
from spacy_components.sdp_graph import has_graph
from spacy_components.training.formats import FORMATS, read_docs


@app.command("convert-sdp")
def convert_sdp_cli(
    input_path: Annotated[Path, Arg(help="File to convert (.gz too)", exists=True, dir_okay=False)],
    output_path: Annotated[Path, Arg(help="File to write, ending in .spacy")],
    format: str = Opt(
        "auto", "--format", "-f", help=f"auto (by suffix) or one of {', '.join(FORMATS.values())}"
    ),
    lang: Annotated[str, Opt("--lang", "-l", help="Language code of the vocabulary")] = "en",
    tree: Annotated[bool, Opt("--tree/--no-tree", help="CoNLL-U: read HEAD and DEPREL")] = True,
    graph: Annotated[
        bool, Opt("--graph/--no-graph", help="CoNLL-U: read the enhanced graph in DEPS")
    ] = False,
    subtypes: Annotated[
        bool, Opt("--subtypes/--no-subtypes", help="CoNLL-U: keep nmod:about, not just nmod")
    ] = True,
    limit: Annotated[int, Opt("--limit", "-n", min=0, help="Only so many sentences; 0 for all")] = 0,
) -> None:
    """Convert SDP 2015, CoNLL-U (basic or enhanced) or labelled text to .spacy, with doc._.sdp."""
    with one_line_errors("Cannot convert"):
        docs = convert(input_path, output_path, format, lang, tree, graph, subtypes, limit)
    msg.good(f"{output_path}: {summary(docs)}")


def convert(
    input_path: Path,
    output_path: Path,
    format: str = "auto",
    lang: str = "en",
    tree: bool = True,
    graph: bool = False,
    subtypes: bool = True,
    limit: int = 0,
) -> list[spacy.tokens.Doc]:
    """Writes the documents of ``input_path`` to ``output_path`` with their graphs, and returns them.

    Raises ValueError for bad input, with its file and line, and for a file without documents.
    """
    vocab = spacy.blank(lang).vocab
    docs = list(read_docs(input_path, vocab, format=format, tree=tree, graph=graph, subtypes=subtypes))
    if not docs:
        raise FormatError(input_path, None, "no documents")
    docs = docs[: limit or None]
    output_path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output_path, DocBin(docs=docs, store_user_data=True).to_bytes())
    return docs


def summary(docs: list[spacy.tokens.Doc]) -> str:
    """How many documents there are, and how many with a tree, a graph, categories."""
    counts = {
        "with a tree": sum(doc.has_annotation("DEP") for doc in docs),
        "with a graph": sum(map(has_graph, docs)),
        "with categories": sum(bool(doc.cats) for doc in docs),
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    return ", ".join([f"{len(docs)} documents, {sum(map(len, docs))} tokens", *found])
