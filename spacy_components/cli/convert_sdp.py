"""``python -m spacy convert-sdp``: files with graphs, trees or classes to spaCy's binary format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import spacy
from spacy.cli._util import Arg, Opt, app
from spacy.tokens import DocBin
from wasabi import msg

from diffdecode.files.atomic import write_bytes
from diffdecode.files.text import FormatError
from spacy_components.cli.bad_input import one_line_errors
from spacy_components.sdp_graph import DEFAULT_KEY, add_graphs, graph_keys, has_graph, make_key
from spacy_components.training.formats import FORMATS, read_docs


@app.command("convert-sdp")
def convert_sdp_cli(
    input_path: Annotated[Path, Arg(help="File to convert (.gz too)", exists=True, dir_okay=False)],
    output_path: Annotated[Path, Arg(help="File to write, ending in .spacy")],
    format: str = Opt("auto", "--format", "-f", help=f"auto (by suffix) or one of {', '.join(FORMATS)}"),
    lang: Annotated[str, Opt("--lang", "-l", help="Language code of the vocabulary")] = "en",
    tree: Annotated[bool, Opt("--tree/--no-tree", help="CoNLL-U: read HEAD and DEPREL")] = True,
    graph: Annotated[
        bool, Opt("--graph/--no-graph", help="CoNLL-U: read the enhanced graph in DEPS")
    ] = False,
    subtypes: Annotated[
        bool, Opt("--subtypes/--no-subtypes", help="CoNLL-U: keep nmod:about, not just nmod")
    ] = True,
    limit: Annotated[int, Opt("--limit", "-n", min=0, help="Only so many sentences; 0 for all")] = 0,
    key: Annotated[str, Opt("--key", help="Where the graphs go: doc._.KEY")] = DEFAULT_KEY,
    also: Annotated[
        list[str] | None,
        Opt("--also", metavar="KEY=FILE", help="Add the graphs of another file with the same sentences"),
    ] = None,
) -> None:
    """Convert SDP 2015, CoNLL-U (basic or enhanced) or labelled text to .spacy, with doc._.sdp."""
    with one_line_errors("Cannot convert"):
        docs = convert(
            input_path,
            output_path,
            format=format,
            lang=lang,
            tree=tree,
            graph=graph,
            subtypes=subtypes,
            limit=limit,
            key=key,
            also=[_key_and_path(text) for text in also or ()],
        )
    msg.good(f"{output_path}: {summary(docs)}")


def convert(
    input_path: Path,
    output_path: Path,
    *,
    format: str = "auto",
    lang: str = "en",
    tree: bool = True,
    graph: bool = False,
    subtypes: bool = True,
    limit: int = 0,
    key: str = DEFAULT_KEY,
    also: Sequence[tuple[str, Path]] = (),
) -> list[spacy.tokens.Doc]:
    """Writes the documents of ``input_path`` to ``output_path`` with their graphs, and returns them.

    Args:
        key: of the graphs of ``input_path``.
        also: other keys, each with the file (in the format that its name says) whose graphs the documents
            get, too.

    Raises:
        ValueError: bad input, with its file and line, for a file without documents or graphs, for two
            files that do not have the same sentences, and for a key given twice.
    """
    keys = [key, *(other for other, _ in also)]
    if len(set(keys)) < len(keys):
        raise ValueError(f"each file needs a key of its own, not {', '.join(keys)}")
    vocab = spacy.blank(lang).vocab
    options = {"tree": tree, "graph": graph, "subtypes": subtypes, "key": make_key(key)}
    docs = list(read_docs(input_path, vocab, format=format, **options))
    if not docs:
        raise FormatError(input_path, None, "no documents")
    for other, path in also:
        others = read_docs(path, vocab, graph=True, subtypes=subtypes, key=make_key(other))
        docs = list(add_graphs(docs, others, other))
        if not any(has_graph(doc, other) for doc in docs):
            raise FormatError(path, None, f"no document has a graph in doc._.{other}")
    docs = docs[: limit or None]
    output_path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output_path, DocBin(docs=docs, store_user_data=True).to_bytes())
    return docs


def _key_and_path(text: str) -> tuple[str, Path]:
    key, equals, path = text.partition("=")
    if not equals or not path:
        raise ValueError(f"--also {text!r}: expected KEY=FILE")
    return key, Path(path)


def summary(docs: list[spacy.tokens.Doc]) -> str:
    """How many documents there are, and how many with a tree, a graph, categories."""
    counts = {
        "with a tree": sum(doc.has_annotation("DEP") for doc in docs),
        "with a graph": sum(bool(graph_keys(doc)) for doc in docs),
        "with categories": sum(bool(doc.cats) for doc in docs),
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    return ", ".join([f"{len(docs)} documents, {sum(map(len, docs))} tokens", *found])
