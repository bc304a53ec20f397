"""``python -m spacy diffdecode-data``: what is in corpora of trees, graphs and categories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import spacy
from spacy.cli._util import Arg, Opt, app
from spacy.tokens import Doc
from spacy.training.corpus import FILE_TYPE, walk_corpus
from spacy.vocab import Vocab
from wasabi import msg

from spacy_components.cli.bad_input import one_line_errors
from spacy_components.pipeline.spigot_parser import DEFAULT_PARSER_MODEL
from spacy_components.sdp_graph import DEFAULT_KEY, make_key
from spacy_components.training.formats import read_docs
from spacy_components.training.statistics import Coverage, Statistics, as_rows


@app.command("diffdecode-data")
def diffdecode_data_cli(
    corpora: Annotated[
        list[Path],
        Arg(help="Training corpus, and others to compare with it: .spacy (or a folder), .conllu, .sdp, .tsv"),
    ],
    graph: Annotated[
        bool, Opt("--graph/--no-graph", help="CoNLL-U: read the enhanced graph in DEPS")
    ] = False,
    key: Annotated[
        str, Opt("--key", help="Where the graphs of .conllu and .sdp go: doc._.KEY")
    ] = DEFAULT_KEY,
    lang: Annotated[str, Opt("--lang", "-l", help="Language code of the vocabulary")] = "en",
    max_length: Annotated[
        int, Opt("--max-length", help="Of the parser's segmenter: name what is longer; 0 for nothing")
    ] = DEFAULT_PARSER_MODEL["segmenter"]["max_length"],
    show: Annotated[int, Opt("--show", min=0, help="Show only so many problems of a corpus")] = 10,
) -> None:
    """Count trees, crossing arcs, roots, labels and graphs, compare the labels of corpora, and name problems
    by file and document. What spaCy's own components need, `debug data` counts."""
    with one_line_errors("Cannot read"):
        vocab = spacy.blank(lang).vocab
        counted = [(path, Statistics.of(_read(path, vocab, graph, key), max_length)) for path in corpora]
        for path, statistics in counted:
            if not statistics.lengths:
                raise ValueError(f"{path}: no documents")
    for path, statistics in counted:
        msg.divider(str(path))
        msg.table(as_rows(statistics), aligns=("l", "l"))
        _say([f"{path}: document {p.document} ({p.text!r}): {p.what}" for p in statistics.problems], show)
    train_path, train = counted[0]
    for path, statistics in counted[1:]:
        msg.divider(f"{path} beside {train_path}")
        coverage = Coverage.of(train, statistics)
        print(f"tokens that do not occur in {train_path}: {100 * coverage.unseen_words:.2f} %")
        _say(list(_gaps(coverage, path, train_path)), show)


def _read(path: Path, vocab: Vocab, graph: bool, key: str) -> Iterator[Doc]:
    files = walk_corpus(path, FILE_TYPE) if path.is_dir() else [path]
    for file in files:
        yield from read_docs(file, vocab, graph=graph, key=make_key(key))


def _gaps(coverage: Coverage, path: Path, train: Path) -> Iterator[str]:
    for kind in coverage.absent:
        yield f"{path} has annotation of a kind that {train} does not have: {kind}"
    for (kind, label), (count, first) in coverage.labels.items():
        yield f"{path}: {kind} {label!r} is not in {train}: {count} times, first in document {first}"
    if coverage.repeated:
        there, here = coverage.repeated[0]
        yield (
            f"{path}: {len(coverage.repeated)} texts are in {train}, too; the first is document {here}, "
            f"there document {there}"
        )


def _say(problems: list[str], show: int) -> None:
    for problem in problems[:show]:
        msg.warn(problem)
    if len(problems) > show:
        msg.warn(f"{len(problems) - show} more of these; --show {len(problems)} names them")
