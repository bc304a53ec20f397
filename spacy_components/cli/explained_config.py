"""What the blocks of a connected config are for: comments in the file, and text for who asked for it."""

from __future__ import annotations

import textwrap

from thinc.api import Config

from spacy_components.connected import CONCATS, Part, Plan


def explanations(plan: Plan) -> dict[str, str]:
    """What a reader of the config should know, by the block that it is about."""
    said = {"paths": _about_paths(plan)}
    for part in plan.parts:
        said |= _about_component(plan, part)
    corpora = ", ".join(f"{corpus}: {annotation}" for corpus, annotation in plan.corpora.items())
    said["corpora.train"] = (
        f"An epoch draws from all corpora ({corpora}). What a document lacks is left out of that loss. A "
        "file with several annotations goes under one name; remove the other corpora and their fractions."
    )
    said["corpora.train.fractions"] = "How often an epoch has each corpus: 0.2 is a random fifth, drawn anew."
    said["training.score_weights"] = (
        "Which evaluation is model-best; all scores are shown whatever their weight."
    )
    if plan.source:
        name = plan.structures[0].name
        said["initialize.before_init"] = (
            f"The settings of {name}, of whose block spaCy reads the source alone. drift holds it to what "
            'it was; freeze = ["tok2vec"] would leave its encoder as it is.'
        )
        said["training.logger"] = (
            f"The guard: set floor to a little less than the metric of {name} now (from 0 to 1), and no "
            "pipeline below it is model-best."
        )
    return said


def _about_paths(plan: Plan) -> str:
    return (
        f"Given to spacy train, as in --paths.{plan.parts[0].corpus} FILE: {', '.join(plan.paths)}. They are "
        ".spacy files; python -m spacy convert and convert-sdp make them."
    )


def _about_component(plan: Plan, part: Part) -> dict[str, str]:
    block = f"components.{part.name}"
    back = f"what comes back through its decisions from {', '.join(r.name for r in plan.readers_of(part))}"
    own = f"Learns from {part.annotation} in paths.{part.corpus}"
    if plan.source and part is plan.structures[0]:
        said = {block: f"Comes from paths.parser. {own}, and from {back}."}
    elif plan.readers_of(part):
        said = {
            block: f"{own}, and from {back}: with the weight grad_factor (0 for the control, a pipeline "
            "that sends nothing back), by the surrogate."
        }
    else:
        said = {block: f"{own}."}
    place = f"{block}.model.tok2vec"
    for upstream in reversed(plan.read_by(part)):
        said[place] = f"Adds to a word's vector, by the decision of {upstream.name}, {upstream.adds}."
        said[f"{place}.{CONCATS[upstream.factory][1]}"] = (
            f"The listener: brings {part.name} what {upstream.name} decided, and {upstream.name} the "
            "gradient on it."
        )
        place = f"{place}.tok2vec"
    return said


def commented(config: Config, said: dict[str, str], title: str) -> str:
    """The text of a config file, with comments above its blocks.

    Args:
        config: the config.
        said: comments by blocks.
        title: what stands on top.

    Raises:
        ValueError: a comment on a block that the config does not have.
    """
    lines = [*_comment(title), ""]
    left = dict(said)
    for line in config.to_str().splitlines():
        lines += _comment(left.pop(line[1:-1], "")) if line.startswith("[") else []
        lines.append(line)
    if left:
        raise ValueError(f"the config has no block {', '.join(left)}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
