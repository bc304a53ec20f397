"""What came out: results.json, a table, a picture, and which arcs the tags moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spacy.tokens import DocBin, Token
from spacy.vocab import Vocab

from diffdecode.files.atomic import write_text
from examples._shared.pictures import save_scatter
from examples._shared.tables import markdown_table, spread
from examples.spacy.teach_parser.systems import NO_TREES, PIPELINE
from spacy_components.cli.compare_parses import html_page
from spacy_components.training.parse_changes import ParseChanges, compare_parses

Row = dict[str, Any]
FEWEST = 20
"""A relation or part of speech with fewer changed heads has no line."""
SHOWN = 12
DRAWN = 10


def tables(rows: Sequence[Row]) -> str:
    """One Markdown table for each encoder and number of trees."""
    parts = []
    for encoder, trees in dict.fromkeys((row["encoder"], row["trees"]) for row in rows):
        own = [row for row in rows if (row["encoder"], row["trees"]) == (encoder, trees)]
        starts = {row["seed"]: row["start"]["uas"] for row in own if row["start"]}
        before = f", whose UAS before was {spread(list(starts.values()), 2)}" if starts else ""
        parts += [f"Encoder `{encoder}`, a parser with {trees:,} trees{before}:", "", _table(own), ""]
    return "\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    header = ["system", "seeds", "accuracy", "UAS", "LAS", "accuracy against pipeline", "UAS against it"]
    lines = []
    for system in dict.fromkeys(row["system"] for row in rows):
        own = {row["seed"]: row for row in rows if row["system"] == system}
        pipeline = {row["seed"]: row for row in rows if row["system"] == PIPELINE}
        scores = [
            spread([row[name] for row in own.values()], 2) if all(name in row for row in own.values()) else ""
            for name in ("accuracy", "uas", "las")
        ]
        against = [
            "" if (system in (PIPELINE, NO_TREES) and name == "uas") or system == PIPELINE else text
            for name in ("accuracy", "uas")
            for text in [_paired(own, pipeline, name)]
        ]
        lines.append([f"`{system}`", str(len(own)), *scores, *against, f"{_seconds(own):.0f} s"])
    return markdown_table([*header, "CPU time"], lines)


def _seconds(rows: dict[int, Row]) -> float:
    return mean(row["seconds"] for row in rows.values())


def _paired(rows: dict[int, Row], others: dict[int, Row], name: str) -> str:
    """Mean difference of runs of the same seed, its standard error, and how many are above 0."""
    pairs = [(row, others[seed]) for seed, row in rows.items() if seed in others]
    differences = [row[name] - other[name] for row, other in pairs if name in row and name in other]
    if not differences:
        return ""
    text = f"{mean(differences):+.2f}"
    if len(differences) > 1:
        text += f" ± {stdev(differences) / len(differences) ** 0.5:.2f}"
    return f"{text} ({sum(d > 0 for d in differences)} of {len(differences)} better)"


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Accuracy against UAS, a marker for each run, a panel for each encoder and number of trees."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    levels: dict[str, dict[str, float]] = {}
    for row in rows:
        title = f"{row['encoder']}, {row['trees']:,} trees"
        if "uas" in row:
            points = panels.setdefault(title, {}).setdefault(row["system"], [])
            points.append((row["uas"], row["accuracy"]))
        else:
            same = [r["accuracy"] for r in rows if _group(r) == _group(row)]
            levels.setdefault(title, {})["without trees"] = mean(same)
    save_scatter(path, "UAS on dev", "accuracy of tags on dev", panels, levels)


def _group(row: Row) -> tuple:
    return row["encoder"], row["trees"], row["system"]


# ---- changed trees


def changes(before: Path, after: Path, gold: Path) -> ParseChanges:
    """The trees of two systems side by side; all are .spacy files of the same sentences."""
    docs = [list(DocBin().from_disk(path).get_docs(Vocab())) for path in (before, after, gold)]
    return compare_parses(*docs)


def changed_arcs(changed: ParseChanges) -> str:
    """Markdown: for each relation and part of speech in the gold tree, how many heads moved, and whereto."""
    kinds: tuple[tuple[str, Callable[[Token], str]], ...] = (
        ("relation", lambda token: token.dep_),
        ("part of speech", lambda token: token.pos_),
    )
    parts = []
    for kind, of in kinds:
        header = [kind, "words", "moved", "to the right head", "from it", "from wrong to wrong"]
        parts += [markdown_table(header, list(_moved(changed, of))), ""]
    return "\n".join(parts)


def _moved(changed: ParseChanges, of: Callable[[Token], str]) -> Iterator[list[str]]:
    words: Counter[str] = Counter()
    moves: dict[str, Counter[str]] = {}
    for sentence in changed.sentences:
        words.update(of(token) for token in sentence.reference)
        for i in sentence.changed:
            moves.setdefault(of(sentence.reference[i]), Counter()).update([_move(sentence, i), "moved"])
    columns = ("moved", "right", "from right", "wrong")
    total: Counter[str] = sum(moves.values(), Counter())
    yield ["all", f"{words.total():,}", *(f"{total[column]:,}" for column in columns)]
    common = sorted(moves, key=lambda name: -moves[name]["moved"])[:SHOWN]
    for name in common:
        if name and moves[name]["moved"] >= FEWEST:
            yield [f"`{name}`", f"{words[name]:,}", *(f"{moves[name][column]:,}" for column in columns)]


def _move(sentence: Any, i: int) -> str:
    gold, old, new = (doc[i].head.i for doc in (sentence.reference, sentence.before, sentence.after))
    return "right" if new == gold else "from right" if old == gold else "wrong"


def draw(page: Path, changed: ParseChanges) -> None:
    """The trees of the first changed sentences that are short enough to look at, as an HTML page."""
    short = [sentence for sentence in changed.diff if len(sentence.after) <= 15]
    write_text(page, html_page(ParseChanges([*short, *changed.same], changed.key), DRAWN))
