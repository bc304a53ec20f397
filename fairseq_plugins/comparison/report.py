"""What a comparison shows at the end: a table, a picture of the training curves, and both as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev

from rich import box
from rich.table import Table

from fairseq_plugins.comparison.settings import write_atomically


@dataclass
class Row:
    """One way of training; every list has one entry for each seed.

    Attributes:
        name: what it is called.
        scores: by heading of the decoding.
        updates: of the whole run.
        seconds: of its training steps.
        curves: lists of points with ``updates``, ``metric`` and ``nll``.
        commands: as one would type them.
    """

    name: str
    scores: dict[str, list[float]] = field(default_factory=dict)
    updates: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    curves: list[list[dict]] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)


def table(rows: list[Row], title: str) -> Table:
    """A column per decoding, a row per way of training, the best of each column marked."""
    headings = list(rows[0].scores)
    view = Table(title=f"{title}; * is the best of its column", title_justify="left", box=box.SIMPLE_HEAD)
    view.add_column("trained with", no_wrap=True)
    for heading in (*headings, "updates", "seconds"):
        view.add_column(heading, justify="right", no_wrap=True)
    best = {heading: max(mean(row.scores[heading]) for row in rows) for heading in headings}
    for row in rows:
        cells = [_cell(row.scores[heading], best[heading]) for heading in headings]
        view.add_row(row.name, *cells, f"{mean(row.updates):,.0f}", f"{mean(row.seconds):.0f}")
    return view


def _cell(values: list[float], best: float) -> str:
    text = f"{mean(values):.2f}"
    if len(values) > 1:
        text += f" ±{stdev(values):.2f}"
    return f"[bold]{text} *[/bold]" if mean(values) == best else f"{text}  "


def plot(rows: list[Row], measure: str, path: Path) -> None:
    """Write a PNG: metric on dev and cross entropy on dev, against updates, of every run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for number, row in enumerate(rows):
        for i, curve in enumerate(row.curves):
            updates = [point["updates"] for point in curve]
            style = {"color": f"C{number}", "marker": ".", "label": row.name if i == 0 else None}
            left.plot(updates, [point["metric"] for point in curve], **style)
            right.plot(updates, [point["nll"] for point in curve], **style)
    left.set(xlabel="updates", ylabel="percent", title=f"{measure} on dev")
    right.set(xlabel="updates", ylabel="nats per symbol", title="cross entropy on dev")
    left.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write_json(rows: list[Row], about: dict, path: Path) -> None:
    """Write everything in the table and in the picture, and what it is about."""
    content = {**about, "rows": [asdict(row) for row in rows]}
    write_atomically(path, json.dumps(content, indent=1) + "\n")
