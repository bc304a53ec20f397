"""The README of a packaged parser: what it learned from, what it reaches, and how to go on with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.language import Language

from diffdecode import __version__
from spacy_components.training.statistics import Statistics


@dataclass(frozen=True)
class Corpus:
    """A treebank, or a part of one.

    Attributes:
        use: what it was used for: ``training``.
        path: of the file; its name is shown, not where it lay.
        statistics: what is in it.
    """

    use: str
    path: Path
    statistics: Statistics


@dataclass(frozen=True)
class Measured:
    """What a parser reaches.

    Attributes:
        use: of the corpus that it was measured on.
        scores: as ``nlp.evaluate`` gives them.
        words_per_second: by CPU time, on one thread.
    """

    use: str
    scores: dict[str, Any]
    words_per_second: float


SCORES = {
    "dep_uas": "unlabelled attachment (UAS)",
    "dep_las": "labelled attachment (LAS)",
    "sents_f": "sentences, F1",
}


def model_card(
    nlp: Language,
    package: str,
    corpora: Sequence[Corpus],
    measured: Measured,
    parser: str,
    ignored: list[str],
) -> str:
    """The card, in Markdown.

    Args:
        nlp: the pipeline, with name, version, licence and sources in its ``meta``.
        package: the name under which it is imported.
        corpora: what it was trained, chosen and measured on.
        measured: what it reaches.
        parser: the name of its parser.
        ignored: relations that are not scored.
    """
    meta, settings = nlp.meta, nlp.get_pipe(parser).settings
    rows = [(c.use, c.path.name, *_size(c.statistics)) for c in corpora]
    chosen = "" if measured.use == "test" else " This set also chose the best training step, so they flatter."
    left_out = f"without {', '.join(ignored)}" if ignored else "all relations"
    scores = [
        (name, f"{100 * measured.scores[key]:.2f}")
        for key, name in SCORES.items()
        if measured.scores.get(key) is not None
    ]
    labels = ", ".join(f"`{label}`" for label in nlp.get_pipe(parser).labels)
    return f"""# {package} {meta["version"]}

{meta["description"]}

| | |
|---|---|
| language | {meta["lang"]} |
| licence | {meta["license"]} |
| author | {meta["author"] or "not stated"} |
| components | {", ".join(nlp.pipe_names)} |
| trees | {"projective" if settings.projective else "crossing arcs allowed"} |
| made with | diffdecode {__version__}, spaCy {meta["spacy_version"]} |

## Data

{_table(("used for", "file", "sentences", "words"), rows)}

Source: {_sources(meta)}

## Scores

On the {measured.use} set, on its own tokens, {left_out}.{chosen}

{_table(("score", "%"), scores)}

{measured.words_per_second:,.0f} words a second of CPU time, on one thread, when it was made.

## Use

```
pip install {package}-{meta["version"]}-py3-none-any.whl
```

```python
import spacy

nlp = spacy.load("{package}")
for token in nlp("..."):
    print(token.text, token.dep_, token.head.text)
```

How sure it is: `spacy.load("{package}", config={{"components.{parser}.confidence": ["head_probs"]}})` writes
`token._.head_prob`.

## Tune it

Another task can tune the trees, and be told by them what belongs together:

```
python -m spacy init-diffdecode parser,textcat --pretrained {package} --out tune.cfg
python -m spacy train tune.cfg --output tuned --paths.texts texts.spacy --paths.dev_texts dev_texts.spacy \\
    --paths.parses trees.spacy --paths.dev_parses dev_trees.spacy
```

With further trees alone: `[components.{parser}] source = "{package}"` in a config of `spacy train`.

## Relations

{labels}
"""


def _size(statistics: Statistics) -> tuple[str, str]:
    sentences = statistics.trees.sentences or len(statistics.lengths)
    return f"{sentences:,}", f"{sum(statistics.lengths):,}"


def _sources(meta: dict[str, Any]) -> str:
    return "; ".join(f"{source['name']} ({source['license']})" for source in meta["sources"]) + "."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
