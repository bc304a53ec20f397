"""Make a spaCy pipeline of a dependency parser that was trained with Stanza::

    python -m spacy_components.stanza.import_parser MODEL.pt OUT_DIR [--pretrain VECTORS.pt]
        [--charlm-forward FORWARD.pt --charlm-backward BACKWARD.pt]

The pipeline holds all that the parser needs. It can be loaded, trained, and sourced into others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.training import Example
from spacy.util import get_lang_class
from wasabi import msg

import spacy_components.pipeline.spigot_parser
import spacy_components.training.scorers  # noqa: F401  (known to spaCy before the package is installed, too)
from diffdecode.files.atomic import atomic_folder, read_json
from spacy_components.ml.stanza.checkpoint import CheckpointFiles, read_checkpoint
from spacy_components.ml.stanza.inputs import ATTRIBUTES
from spacy_components.ml.stanza.parser import load_parser

PIPELINE = ("meta.json", "config.cfg", "tokenizer", "vocab")
"""What spaCy writes for every pipeline, beside its components."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    args = _arguments().parse_args(argv)
    files = CheckpointFiles(
        args.checkpoint, args.pretrain, args.charlm_forward, args.charlm_backward, args.transformer
    )
    try:
        _refuse_other_folders(args.output)
        nlp = import_parser(files, lang=args.lang, sentencizer=args.sentencizer)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(args.output) as folder:
            nlp.to_disk(folder)
    except (ValueError, ImportError, OSError) as error:
        msg.fail("Cannot import", str(error), exits=1)
    _report(nlp, args.output)


def _refuse_other_folders(output: Path) -> None:
    """The pipeline takes the place of another pipeline, but not of anything else."""
    if not output.is_dir():
        return
    meta = output / "meta.json"
    components = read_json(meta).get("components", []) if meta.is_file() else []
    # Some components add an ending to their names.
    others = {path.name for path in output.iterdir() if path.stem not in components} - {*PIPELINE}
    if others:
        raise ValueError(
            f"{output} holds {', '.join(sorted(others)[:3])}, which is no part of a pipeline: name another"
        )


def import_parser(files: CheckpointFiles, *, lang: str | None = None, sentencizer: bool = False) -> Language:
    """A pipeline whose ``spigot_parser`` is a parser of Stanza's.

    Args:
        files: the parser's files.
        lang: spaCy's code of the language, by default that in the checkpoint.
        sentencizer: find sentences by their punctuation first; otherwise each text is one sentence.

    Returns:
        the pipeline.

    Raises:
        ValueError: the files cannot be used.
    """
    parts, state = read_checkpoint(files)
    nlp = spacy.blank(lang or _language(parts["config"].get("lang")))
    if sentencizer:
        nlp.add_pipe("sentencizer")
    model = {"@architectures": "diffdecode.StanzaParser.v1"}
    model["segmenter"] = {"@misc": "diffdecode.sentences.v1", "required": False}
    settings = {"model": model, "projective": False, "multi_root": False}
    parser = nlp.add_pipe("spigot_parser", config=settings)
    load_parser(parser.model, files, parts, state)
    parser.initialize(lambda: [Example.from_dict(nlp.make_doc("a"), {})])
    return nlp


def _language(code: str | None) -> str:
    """spaCy's code for a language of Stanza's; ``xx`` if spaCy does not have it."""
    code = str(code or "xx").partition("-")[0]
    try:
        get_lang_class(code)
    except ImportError:
        return "xx"
    return code


def _report(nlp: Language, output: Path) -> None:
    parser = nlp.get_pipe("spigot_parser")
    msg.good(f"{output}: {len(parser.labels)} labels, {nlp.lang}, {', '.join(nlp.pipe_names)}")
    needed = [ATTRIBUTES[name] for name in parser.model.shims[0].module.attributes]
    if needed:
        names = ", ".join(f"{attribute.spacy} ({attribute.component})" for attribute in needed)
        msg.info(f"It needs, from components before it: {names}")
    if "sentencizer" not in nlp.pipe_names:
        msg.info("Texts without sentence boundaries are parsed as one sentence; --sentencizer finds some")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spacy_components.stanza.import_parser", description=__doc__.partition("::")[0]
    )
    parser.add_argument("checkpoint", type=Path, metavar="MODEL.pt", help="the parser")
    parser.add_argument("output", type=Path, metavar="OUT_DIR", help="where the pipeline goes")
    parser.add_argument("--pretrain", type=Path, help="its word vectors, if it has any")
    parser.add_argument("--charlm-forward", type=Path, help="its character language models, if it has any")
    parser.add_argument("--charlm-backward", type=Path)
    parser.add_argument("--transformer", help="folder or name of its transformer, if it has moved")
    parser.add_argument("--lang", help="spaCy's code of the language, by default that in the checkpoint")
    parser.add_argument("--sentencizer", action="store_true", help="find sentences by their punctuation")
    return parser


if __name__ == "__main__":
    main()
