"""``python -m spacy distill-parser``: a spigot_parser that parses as another pipeline does, from raw text."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import tqdm
import typer
from spacy import util
from spacy.cli._util import Arg, Opt, app, parse_config_overrides, setup_gpu
from spacy.cli.train import train
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from wasabi import msg

import spacy_components
from diffdecode.files.atomic import write_bytes
from diffdecode.files.text import numbered_lines
from spacy_components.cli.bad_input import load_pipeline, one_line_errors
from spacy_components.training.corpus import make_example
from spacy_components.training.scorers import parse_scores

READY_CONFIG = Path(spacy_components.__file__).parent / "configs" / "parser.cfg"
SPLITS = ("train", "dev", "test")


@app.command("distill-parser", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def distill_parser_cli(
    ctx: typer.Context,  # further arguments are settings of the config, as for spacy train
    teacher: Annotated[str, Arg(help="Pipeline with a parser: the name of a package, or a folder")],
    text: Annotated[Path, Arg(help="Raw text, one document a line (.gz too)", exists=True, dir_okay=False)],
    output: Annotated[
        Path, Arg(help="Folder to write: corpus/ with the parses, model-best/ and model-last/")
    ],
    config: Annotated[
        Path, Opt("--config", "-c", help="Training config with a spigot_parser, paths.train and paths.dev")
    ] = READY_CONFIG,
    held_out: Annotated[
        float,
        Opt("--held-out", help="Share of the lines to choose the best pipeline on, and as many to report on"),
    ] = 0.05,
    limit: Annotated[int, Opt("--limit", "-n", min=0, help="Read only so many lines; 0 for all")] = 0,
    seed: Annotated[int, Opt("--seed", help="Of the draw of held-out lines")] = 0,
    use_gpu: Annotated[int, Opt("--gpu-id", "-g", help="GPU, or -1 for the CPU")] = -1,
) -> None:
    """Train a spigot_parser on what a parser, such as spaCy's own, makes of raw text."""
    setup_gpu(use_gpu, silent=True)
    with one_line_errors("Cannot distil"):
        scores = distill(
            teacher,
            text,
            output,
            config=config,
            held_out=held_out,
            limit=limit,
            seed=seed,
            use_gpu=use_gpu,
            overrides=parse_config_overrides(ctx.args),
        )
    rows = [
        ("UAS", f"{100 * scores['uas']:.2f}"),
        ("LAS", f"{100 * scores['las']:.2f}"),
        ("documents", scores["docs"]),
    ]
    msg.divider(f"Agreement with {teacher} on text that it was not trained on, all tokens")
    msg.table([*rows, ("tokens", scores["tokens"])], aligns=("l", "r"))
    msg.good(f"The parser: {output / 'model-best'}")


def distill(
    teacher: str | Path,
    text: Path,
    output: Path,
    *,
    config: Path = READY_CONFIG,
    held_out: float = 0.05,
    limit: int = 0,
    seed: int = 0,
    use_gpu: int = -1,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Parses the text, trains on the parses, and measures how often the two parsers agree.

    Returns ``uas, las, docs, tokens`` on held-out text (the training has not seen it, nor chosen by it).
    Raises ValueError if the teacher sets no parse, if there is too little text, or for bad input.
    """
    parser = load_pipeline(teacher)
    settings = as_teacher(parser, teacher, config)
    splits = split(parse(parser, read_texts(text, limit)), held_out, seed)
    paths = {name: output / "corpus" / f"{name}.spacy" for name in SPLITS}
    paths["train"].parent.mkdir(parents=True, exist_ok=True)
    for name, docs in splits.items():
        write_bytes(paths[name], DocBin(attrs=["HEAD", "DEP"], docs=docs).to_bytes())
    msg.info(", ".join(f"{name}: {len(docs)} documents" for name, docs in splits.items()))
    settings |= {f"paths.{name}": str(paths[name]) for name in ("train", "dev")}
    train(config, output, use_gpu=use_gpu, overrides=settings | (overrides or {}))
    return agreement(load_pipeline(output / "model-best"), splits["test"])


def read_texts(path: Path, limit: int = 0) -> list[str]:
    """The lines that are not empty."""
    lines = [line.strip() for _, line in numbered_lines(path) if line.strip()]
    return lines[: limit or None]


def parse(teacher: Language, texts: list[str]) -> Iterator[Doc]:
    """Yields the teacher's parses, with a progress bar. Raises ValueError if it sets none."""
    docs = teacher.pipe(texts)
    for doc in tqdm.tqdm(docs, total=len(texts), desc="Parsing", unit="doc", disable=None, leave=False):
        if not doc.has_annotation("DEP"):
            raise ValueError(
                f"the teacher sets no parse; its pipeline is {', '.join(teacher.pipe_names) or 'empty'}"
            )
        yield doc


def split(docs: Iterable[Doc], held_out: float, seed: int) -> dict[str, list[Doc]]:
    """Random documents to choose the best pipeline on (dev), as many to report on (test), and the rest."""
    docs = list(docs)
    count = max(1, round(held_out * len(docs)))
    if not 0 < held_out < 0.5 or len(docs) < 2 * count + 1:
        raise ValueError(f"{len(docs)} lines of text cannot be split with held_out = {held_out:g}")
    random.Random(seed).shuffle(docs)
    return {"dev": docs[:count], "test": docs[count : 2 * count], "train": docs[2 * count :]}


def as_teacher(parser: Language, path: str | Path, config: Path) -> dict[str, Any]:
    """Settings that give the new pipeline the teacher's language and tokenizer."""
    settings = {"nlp.lang": parser.lang, "nlp.tokenizer": parser.config["nlp"]["tokenizer"]}
    if util.load_config(config, interpolate=False)["initialize"]["before_init"] is None:
        copy = {"@callbacks": "spacy.copy_from_base_model.v1", "tokenizer": str(path), "vocab": None}
        settings["initialize.before_init"] = copy
    return settings


def agreement(student: Language, references: list[Doc]) -> dict[str, Any]:
    """UAS and LAS of a pipeline, with another one's parses as gold; all tokens count but white space."""
    words = (make_example(student, reference, gold_tokens=True).predicted for reference in references)
    scores = parse_scores(map(Example, student.pipe(words), references))
    return {
        "uas": scores["dep_uas"],
        "las": scores["dep_las"],
        "docs": len(references),
        "tokens": sum(map(len, references)),
    }
