"""``python -m spacy init-diffdecode``: a training config in which parsers and their readers are connected."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

from spacy.cli._util import Arg, Opt, app
from wasabi import msg

from diffdecode.files.atomic import write_text
from spacy_components.cli.bad_input import load_pipeline, one_line_errors
from spacy_components.cli.explained_config import commented, explanations
from spacy_components.connected import PARTS, Plan, connected_config


@app.command("init-diffdecode")
def init_diffdecode_cli(
    components: Annotated[str, Arg(help=f"With commas between them, of {', '.join(PARTS)}")],
    out: Annotated[Path, Opt("--out", "-o", help="Config to write, or - for standard output")],
    lang: Annotated[
        str | None, Opt("--lang", "-l", help="Language code; by default en, or the pretrained pipeline's")
    ] = None,
    vectors: Annotated[
        str | None,
        Opt("--vectors", "-v", help="Word vectors: a folder of `spacy init vectors`, or a package"),
    ] = None,
    pretrained: Annotated[
        str | None, Opt("--pretrained", "-p", help="Pipeline with the spigot_parser (spigot_sdp) to tune")
    ] = None,
    force: Annotated[bool, Opt("--force", "-F", help="Replace a file that is there")] = False,
) -> None:
    """Write a training config whose components are connected: each reads the trees or graphs that are made
    before it, and its gradient goes back through them."""
    words = [word.strip() for word in components.split(",") if word.strip()]
    with one_line_errors("Cannot connect"):
        if out.exists() and not force:
            raise ValueError(f"{out} is there already; --force replaces it")
        plan = Plan(words, lang, vectors, pretrained, load_pipeline)
        said = explanations(plan)
        text = commented(connected_config(plan), said, title(plan))
        if str(out) == "-":
            print(text, end="")
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    msg.good(f"{out}: {title(plan)}")
    for block, about in said.items():
        print(
            f"[{block}]", textwrap.indent(textwrap.fill(about, 100, break_on_hyphens=False), "    "), sep="\n"
        )
    paths = [f"--paths.{name} {name}.spacy" for name in plan.paths]
    print(" ".join([f"\npython -m spacy train {out} --output model", *paths]))


def title(plan: Plan) -> str:
    """Who reads whom, in one line."""
    readers = {part.name: [reader.name for reader in plan.readers_of(part)] for part in plan.structures}
    return (
        "; ".join(f"{name} is read and trained by {', '.join(by)}" for name, by in readers.items() if by)
        + "."
    )
