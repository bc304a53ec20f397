"""What a comparison shows at the end: a table, a picture of the training curves, and both as JSON."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev

from rich import box
from rich.console import Console
from rich.table import Table

from diffdecode.files import atomic

WIDTH = 120  # of a table that is no terminal's


@dataclass
class Row:
    """One way of training; every list has one entry for each seed.

    Attributes:
        name: what it is called.
        scores: by heading of the decoding.
        updates: of the whole run.
        cpu_seconds: of the whole run, start of the program and validation included; None if it was killed on
            the way.
        curves: lists of points with ``updates``, ``metric`` and ``nll``.
        commands: as one would type them.
    """

    name: str
    scores: dict[str, list[float]] = field(default_factory=dict)
    updates: list[int] = field(default_factory=list)
    cpu_seconds: list[float | None] = field(default_factory=list)
    curves: list[list[dict]] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)

    def with_seeds_of(self, other: "Row") -> "Row":
        """This row with the seeds of another one of the same name behind its own."""
        scores = {heading: [*values, *other.scores[heading]] for heading, values in self.scores.items()}
        lists = {
            name: [*getattr(self, name), *getattr(other, name)]
            for name in ("updates", "cpu_seconds", "curves", "commands")
        }
        return Row(self.name, scores, **lists)


def table(rows: list[Row], title: str) -> Table:
    """A column per decoding, a row per way of training, the best of each column marked."""
    headings = list(rows[0].scores)
    view = Table(title=f"{title}; * is the best of its column", title_justify="left", box=box.SIMPLE_HEAD)
    view.add_column("trained with", no_wrap=True)
    for heading in (*headings, "updates", "CPU s"):
        view.add_column(heading, justify="right", no_wrap=True)
    best = {heading: max(mean(row.scores[heading]) for row in rows) for heading in headings}
    for row in rows:
        cells = [_cell(row.scores[heading], best[heading]) for heading in headings]
        view.add_row(row.name, *cells, f"{mean(row.updates):,.0f}", _seconds(row.cpu_seconds))
    return view


def _seconds(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.0f}" if known else "?"


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
    with atomic.atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    pyplot.close(figure)


def write_json(rows: list[Row], about: dict, path: Path) -> None:
    """Write everything in the table and in the picture, and what it is about."""
    atomic.write_json(path, {**about, "rows": [asdict(row) for row in rows]})


def report(rows: list[Row], title: str, about: dict, folder: Path, console: Console) -> None:
    """Show the table; write it, the picture and both as JSON to ``folder``.

    Args:
        rows: one for each way of training.
        title: of the table.
        about: goes into the JSON; ``measure`` is what the picture calls the metric.
        folder: for ``results.json``, ``curves.png`` and ``table.txt``.
        console: where the table is shown.
    """
    view = table(rows, title)
    write_json(rows, about, folder / "results.json")
    plot(rows, about["measure"], folder / "curves.png")
    with atomic.atomic_write(folder / "table.txt") as file:
        Console(file=file, width=WIDTH).print(view)
    if not console.is_terminal:  # rich takes 80 columns for granted and cuts names and numbers
        console = Console(file=console.file, width=WIDTH)
    console.print(view)
    console.print(f"see results.json, table.txt and curves.png in {folder}")
