"""Give a parser that was tuned in spaCy back to Stanza::

    python -m spacy_components.stanza.export_parser PIPELINE MODEL.pt [--inputs FOLDER]

Stanza loads MODEL.pt as it did the original, with the same word vectors and character language models. If
those are not at hand, ``--inputs`` writes them too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import spacy
from spacy.language import Language
from wasabi import msg

import spacy_components.pipeline.spigot_parser  # noqa: F401  (known to spaCy before the package is installed, too)
from spacy_components.ml.stanza.checkpoint import write_checkpoint, write_inputs
from spacy_components.ml.stanza.parser import StanzaScorer


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m spacy_components.stanza.export_parser", description=__doc__.partition("::")[0]
    )
    parser.add_argument("pipeline", help="a saved pipeline")
    parser.add_argument("checkpoint", type=Path, metavar="MODEL.pt", help="where the parser goes")
    parser.add_argument("--component", default="spigot_parser", help="its name in the pipeline")
    parser.add_argument("--inputs", type=Path, help="folder for word vectors and character language models")
    args = parser.parse_args(argv)
    try:
        written = export_parser(spacy.load(args.pipeline), args.checkpoint, args.component, args.inputs)
    except (ValueError, OSError) as error:
        msg.fail("Cannot export", str(error), exits=1)
    for path in written:
        msg.good(str(path))


def export_parser(
    nlp: Language, checkpoint: Path, component: str = "spigot_parser", inputs: Path | None = None
) -> list[Path]:
    """Write a file that Stanza can load, with the parser as it is now.

    Args:
        nlp: the pipeline.
        checkpoint: the file.
        component: name of the parser.
        inputs: folder for what Stanza keeps in files of their own.

    Returns:
        what was written.

    Raises:
        ValueError: the component is no parser of Stanza's.
    """
    if component not in nlp.pipe_names:
        raise ValueError(f"no component '{component}' in the pipeline: {', '.join(nlp.pipe_names)}")
    shims = getattr(getattr(nlp.get_pipe(component), "model", None), "shims", [])
    module = getattr(shims[0], "module", None) if shims else None
    if not isinstance(module, StanzaScorer):
        raise ValueError(f"'{component}' is no parser of Stanza's (diffdecode.StanzaParser.v1)")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(module.net, shims[0].cfg["config"], checkpoint)
    return [checkpoint, *(write_inputs(module.net, module.pretrain_vocab, inputs) if inputs else [])]


if __name__ == "__main__":
    main()
