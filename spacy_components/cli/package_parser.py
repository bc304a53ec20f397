"""``python -m spacy package-parser``: from a treebank to a parser that pip installs, with its model card."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import spacy
import typer
from spacy.cli._util import Arg, Opt, app, parse_config_overrides, setup_gpu
from spacy.cli.package import package
from spacy.cli.train import train
from spacy.language import Language
from spacy.tokens import DocBin
from wasabi import msg

from diffdecode.files.atomic import atomic_folder, write_bytes, write_text
from spacy_components.cli.bad_input import load_pipeline, one_line_errors
from spacy_components.cli.distill_parser import READY_CONFIG
from spacy_components.pipeline.spigot_parser import DEFAULT_PARSER_MODEL, SpigotParser
from spacy_components.training.corpus import make_example
from spacy_components.training.formats import read_docs
from spacy_components.training.model_card import Corpus, Measured, model_card
from spacy_components.training.statistics import Statistics

MAX_LENGTH = DEFAULT_PARSER_MODEL["segmenter"]["max_length"]
WHEEL = "import setuptools.build_meta as b; print(b.build_wheel('dist'))"
"""What pip does without an isolated environment: nothing is downloaded."""


@app.command("package-parser", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def package_parser_cli(
    ctx: typer.Context,  # further arguments are settings of the config, as for spacy train
    train_path: Annotated[Path, Arg(help="Trees to train on: .conllu or .spacy (.gz too)", exists=True)],
    dev_path: Annotated[Path, Arg(help="Trees to choose the best step on", exists=True)],
    output: Annotated[Path, Arg(help="Folder to write: corpus/, training/, package/ and the wheel in it")],
    name: Annotated[str, Opt("--name", "-n", help="Of the package, after the language code")],
    licence: Annotated[
        str, Opt("--licence", "--license", help="Under which the package may be used; see the treebank's")
    ],
    lang: Annotated[str, Opt("--lang", "-l", help="Language code")] = "en",
    version: Annotated[str, Opt("--version", help="Of the package")] = "0.0.1",
    source: Annotated[
        str | None, Opt("--source", help="What the treebank is called; by default the name of its file")
    ] = None,
    author: Annotated[str, Opt("--author", help="Who answers for it")] = "",
    test_path: Annotated[
        Path | None, Opt("--test", help="Trees to report on; without it, the card says so", exists=True)
    ] = None,
    config: Annotated[
        Path, Opt("--config", "-c", help="Training config with a spigot_parser, paths.train and paths.dev")
    ] = READY_CONFIG,
    use_gpu: Annotated[int, Opt("--gpu-id", "-g", help="GPU, or -1 for the CPU")] = -1,
) -> None:
    """Train a spigot_parser on a treebank, and build a wheel with a model card of it."""
    setup_gpu(use_gpu, silent=True)
    meta = {"name": name, "version": version, "license": licence, "author": author}
    paths = {"training": train_path, "dev": dev_path} | ({"test": test_path} if test_path else {})
    with one_line_errors("Cannot package"):
        if not name.isidentifier():
            raise ValueError(f"--name {name!r}: expected letters, digits and _")
        corpora = [_converted(use, path, output / "corpus", lang) for use, path in paths.items()]
        settings = {"nlp.lang": lang, "paths.train": _docbin(corpora[0], output), "training.logger": LOGGER}
        settings |= {"paths.dev": _docbin(corpora[1], output)} | parse_config_overrides(ctx.args)
        train(config, output / "training", use_gpu=use_gpu, overrides=settings)
        nlp = load_pipeline(output / "training" / "model-best")
        nlp.meta.update(meta)
        nlp.meta["sources"] = [{"name": source or train_path.name, "license": licence}]
        wheel = packaged(nlp, corpora, output)
    msg.good(f"{wheel}\nIts model card: {wheel.parents[1] / 'README.md'}")


LOGGER = {"@loggers": "spacy.ConsoleLogger.v3", "progress_bar": "eval"}


def _docbin(corpus: Corpus, output: Path) -> str:
    return str(output / "corpus" / f"{corpus.use}.spacy")


def _converted(use: str, path: Path, folder: Path, lang: str) -> Corpus:
    """A corpus, written as .spacy, too. Raises ValueError for bad input and where there is no tree."""
    docs = list(read_docs(path, spacy.blank(lang).vocab))
    counted = Statistics.of(docs, MAX_LENGTH)
    if not counted.trees.documents:
        raise ValueError(f"{path}: no document has a tree")
    for problem in counted.problems[:3]:
        msg.warn(f"{path}: document {problem.document}: {problem.what}")
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{use}.spacy", DocBin(docs=docs).to_bytes())
    return Corpus(use, path, counted)


def packaged(nlp: Language, corpora: list[Corpus], output: Path) -> Path:
    """Measures a parser on the last corpus, writes its card and builds the wheel.

    Args:
        nlp: the pipeline, with name, version, licence and sources in its ``meta``.
        corpora: training, dev and perhaps test; as ``.spacy`` they are in ``output / "corpus"``.
        output: where ``package/`` is made.

    Returns:
        The wheel.

    Raises:
        ValueError: there is no ``spigot_parser``, or the wheel cannot be built.
    """
    names = [name for name, pipe in nlp.pipeline if isinstance(pipe, SpigotParser)]
    if not names:
        raise ValueError(f"the config trains no spigot_parser, only {', '.join(nlp.pipe_names)}")
    last = corpora[-1]
    measured = measure(nlp, Path(_docbin(last, output)), last.use)
    size = f"{sum(corpora[0].statistics.lengths):,} words"
    nlp.meta["description"] = f"Dependency parser, trained on {size} of {nlp.meta['sources'][0]['name']}."
    full_name = f"{nlp.lang}_{nlp.meta['name']}"
    ignored = nlp.config["components"][names[0]]["scorer"].get("ignore_labels", [])
    card = model_card(nlp, full_name, corpora, measured, names[0], ignored)
    folder = output / "package"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder / "pipeline") as pipeline:
        nlp.to_disk(pipeline)
        write_text(pipeline / "README.md", card)
    package(folder / "pipeline", folder, create_sdist=False, create_wheel=False, force=True)
    return build_wheel(folder / f"{full_name}-{nlp.meta['version']}")


def measure(nlp: Language, path: Path, use: str) -> Measured:
    """Scores and speed on the trees of a file, on their own tokens; the median of three runs."""
    references = list(read_docs(path, nlp.vocab))
    seconds = []
    for _ in range(3):
        docs = [make_example(nlp, reference, gold_tokens=True).predicted for reference in references]
        started = time.process_time()
        for _ in nlp.pipe(docs):
            pass
        seconds.append(time.process_time() - started)
    examples = [make_example(nlp, reference, gold_tokens=True) for reference in references]
    words = sum(map(len, references))
    return Measured(use, nlp.evaluate(examples), words / max(statistics.median(seconds), 1e-9))


def build_wheel(folder: Path) -> Path:
    """The wheel of a package's folder, in its ``dist/``, built without a download.

    Raises:
        ValueError: setuptools cannot build it; the message has its last line.
    """
    (folder / "dist").mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", WHEEL], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"no wheel ({last}); building one takes setuptools 70.1 or newer")
    return folder / "dist" / done.stdout.strip().splitlines()[-1]
