"""``python -m spacy replace-parser``: a spigot_parser of another pipeline in the place of a parser."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

from spacy.cli._util import Arg, Opt, app
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from wasabi import msg

from diffdecode.files.atomic import atomic_folder
from spacy_components.cli.bad_input import load_pipeline, one_line_errors
from spacy_components.connected import STRUCTURES, source_block
from spacy_components.training.corpus import make_example
from spacy_components.training.formats import read_docs
from spacy_components.training.scorers import parse_scores


@app.command("replace-parser")
def replace_parser_cli(
    pipeline: Annotated[str, Arg(help="Pipeline with any parser: the name of a package, or a folder")],
    parser: Annotated[str, Arg(help="Pipeline with the spigot_parser to put there")],
    output: Annotated[Path, Arg(help="Folder to write")],
    gold: Annotated[
        Path | None,
        Opt("--gold", help="Trees to compare both parsers on: .conllu or .spacy (.gz too)", exists=True),
    ] = None,
) -> None:
    """Put a spigot_parser where a pipeline's parser is. All other components stay as they are."""
    with one_line_errors("Cannot replace"):
        if output.exists():
            raise ValueError(f"{output} is there already")
        nlp = load_pipeline(pipeline)
        references = list(read_docs(gold, nlp.vocab)) if gold else []
        if gold and not any(doc.has_annotation("DEP") for doc in references):
            raise ValueError(f"{gold}: no document has a tree")
        before = parses(nlp, references)
        old, new = replace_parser(nlp, load_pipeline(parser), parser)
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(output) as folder:
            nlp.to_disk(folder)
        after = parses(nlp, references)
    if gold:
        rows = [
            (f"{old}, before", *percent(references, before)),
            (f"{new}, now", *percent(references, after)),
            ("now, with what was before as gold", *percent(before, after)),
        ]
        msg.divider(f"{gold.name}, all tokens")
        msg.table(rows, header=("", "UAS", "LAS"), aligns=("l", "r", "r"))
    msg.good(f"{output}: {', '.join(nlp.pipe_names)}")


def replace_parser(nlp: Language, other: Language, name: str | Path) -> tuple[str, str]:
    """Puts the ``spigot_parser`` of another pipeline where a pipeline's parser is.

    Args:
        nlp: the pipeline; it is changed.
        other: where the new parser comes from. If it shares an encoder there, it gets a copy of its own.
        name: of the other pipeline, for messages.

    Returns:
        The names of the old parser and of the new one.

    Raises:
        ValueError: there is no parser, or the new one reads word vectors that the pipeline does not have.
    """
    old = parser_of(nlp)
    block = source_block(other, STRUCTURES["parser"], str(name))
    new = block.get("component", STRUCTURES["parser"].name)
    reads = any(node.name == "static_vectors" for node in other.get_pipe(new).model.walk())
    if reads and nlp.vocab.vectors != other.vocab.vectors:
        raise ValueError(f"{new} of {name} reads word vectors that are not those of the pipeline")
    for upstream, pipe in other.pipeline:
        if new in getattr(pipe, "listening_components", ()):
            other.replace_listeners(upstream, new, block["replace_listeners"])
    following = nlp.component_names[nlp.component_names.index(old) + 1 :]
    nlp.remove_pipe(old)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\[W113\]")  # of vectors that differ: nobody reads them
        nlp.add_pipe(new, source=other, before=following[0] if following else None)
    return old, new


def parser_of(nlp: Language) -> str:
    """The component that says that it sets ``token.dep``. Raises ValueError if there is none."""
    names = [name for name in nlp.pipe_names if "token.dep" in nlp.get_pipe_meta(name).assigns]
    if not names:
        raise ValueError(f"the pipeline has no parser, only {', '.join(nlp.pipe_names) or 'nothing'}")
    return names[-1]


def parses(nlp: Language, references: list[Doc]) -> list[Doc]:
    """A pipeline's documents, of the same words as others."""
    return list(nlp.pipe(make_example(nlp, doc, gold_tokens=True).predicted for doc in references))


def percent(references: list[Doc], docs: list[Doc]) -> tuple[str, str]:
    """UAS and LAS."""
    scores = parse_scores(map(Example, docs, references))
    return f"{100 * scores['dep_uas']:.2f}", f"{100 * scores['dep_las']:.2f}"
