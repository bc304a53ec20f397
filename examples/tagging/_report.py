"""What the demo shows at the end: a table, a picture of the training curves, and both as JSON."""

import json
from statistics import mean, stdev

from rich import box
from rich.table import Table


def column_names(beam):
    """Keys of the decodings in the results, and the headings of their columns."""
    return {"greedy": "greedy", "beam": f"beam of {beam}"}


def table(results):
    """A :class:`rich.table.Table` of *results* (made by ``demo.collect``), the best of each column marked."""
    columns = column_names(results["beam"])
    seeds = results["seeds"]
    what = f"{results['measure']} on {results['split']}, percent"
    over = f"mean and standard deviation of seeds {seeds}" if len(seeds) > 1 else f"seed {seeds[0]}"
    title = f"{what}\n{over}; * is the best of its column"
    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    view.add_column("trained with", no_wrap=True)
    for heading in (*columns.values(), "updates", "seconds"):
        view.add_column(heading, justify="right", no_wrap=True)
    best = {key: max(mean(row[key]) for row in results["rows"]) for key in columns}
    for row in results["rows"]:
        cells = [_cell(row[key], best[key]) for key in columns]
        view.add_row(row["name"], *cells, f"{mean(row['updates']):,.0f}", f"{mean(row['seconds']):.0f}")
    return view


def _cell(values, best):
    text = f"{mean(values):.2f}"
    if len(values) > 1:
        text += f" ±{stdev(values):.2f}"
    return f"[bold]{text} *[/bold]" if mean(values) == best else f"{text}  "


def plot(results, path):
    """Write a PNG: metric on dev and cross entropy on dev, against updates, of every run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for number, row in enumerate(results["rows"]):
        for i, curve in enumerate(row["curves"]):
            updates = [point["updates"] for point in curve]
            style = {"color": f"C{number}", "marker": ".", "label": row["name"] if i == 0 else None}
            left.plot(updates, [point["metric"] for point in curve], **style)
            right.plot(updates, [point["nll"] for point in curve], **style)
    left.set(
        xlabel="updates", ylabel="percent", title=f"{results['measure']} on dev, beam of {results['beam']}"
    )
    right.set(xlabel="updates", ylabel="nats per word", title="cross entropy on dev")
    left.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write_json(results, path):
    """Write everything in the table and in the picture."""
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
