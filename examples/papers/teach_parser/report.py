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
from examples._shared.records import Record, typed
from examples._shared.tables import markdown_table, spread
from examples.papers.teach_parser.systems import GIVEN, NO_TREES, PIPELINE, SCORES
from spacy_components.cli.compare_parses import html_page
from spacy_components.training.parse_changes import ParseChanges, compare_parses

Row = dict[str, Any]
EXPLANATION = (
    "Percent on dev after the last step, mean ± standard deviation. Δ: less the pipeline of the same seed, "
    "mean ± standard error, and how many runs are better. UAS and LAS count all words."
)
FEWEST = 20
"""A relation or part of speech with fewer changed heads has no line."""
SHOWN = 12
DRAWN = 10


def tables(rows: Sequence[Row]) -> str:
    """One Markdown table for each encoder and number of trees."""
    parts = [EXPLANATION, ""]
    for encoder, trees in dict.fromkeys((row["encoder"], row["trees"]) for row in rows):
        own = [row for row in rows if (row["encoder"], row["trees"]) == (encoder, trees)]
        starts = {row["seed"]: row["start"]["uas"] for row in own if row["start"]}
        before = f", whose UAS before was {spread(list(starts.values()), 2)}" if starts else ""
        parts += [f"Encoder `{encoder}`, a parser with {trees:,} trees{before}:", "", _table(own), ""]
    return "\n".join(parts)


def record(rows: Sequence[Row]) -> Record:
    """Scores of every seed; a system is named with its encoder and the number of trees."""
    systems: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {}
    for row in rows:
        name = f"{row['system']}, {row['encoder']}, {row['trees']:,} trees"
        seconds.setdefault(name, []).append(row["seconds"])
        for measure in (*SCORES.values(), GIVEN):
            if measure in row:
                systems.setdefault(name, {}).setdefault(measure, {})[str(row["seed"])] = row[measure]
    name = "examples.papers.teach_parser"
    measures = dict.fromkeys([*SCORES.values(), *([GIVEN] if any(GIVEN in row for row in rows) else [])], 1)
    return Record(
        name, typed(name, None), measures, systems, {key: mean(values) for key, values in seconds.items()}
    )


def _table(rows: Sequence[Row]) -> str:
    header = ["system", "seeds", "accuracy", "UAS", "LAS", "Δ accuracy", "Δ UAS"]
    lines = []
    for system in dict.fromkeys(row["system"] for row in rows):
        own = {row["seed"]: row for row in rows if row["system"] == system}
        pipeline = {row["seed"]: row for row in rows if row["system"] == PIPELINE}
        found = {name: [row[name] for row in own.values() if name in row] for name in SCORES.values()}
        scores = [spread(values, 2) if values else "" for values in found.values()]
        against = ["" if system == PIPELINE else _paired(own, pipeline, name) for name in ("accuracy", "uas")]
        lines.append(
            [f"`{system}`", str(len(own)), *scores, *against, _setting(own), f"{_seconds(own):.0f} s"]
        )
    return markdown_table([*header, "rate, factor", "CPU time"], lines)


def _setting(rows: dict[int, Row]) -> str:
    """What was chosen for a system: its learning rate, and the factor of the gradient through its trees."""
    row = next(iter(rows.values()))
    factor = "" if row["system"] in (NO_TREES, PIPELINE) else f", {row['grad_factor']:g}"
    return f"{row['learn_rate']:g}{factor}"


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
    return f"{text}, {sum(d > 0 for d in differences)}/{len(differences)}"


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
