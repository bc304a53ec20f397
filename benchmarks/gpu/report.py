"""Tables and a plot of what was measured on a card."""

from pathlib import Path

from diffdecode.files.atomic import atomic_write


def markdown(stage: str, tables: dict[str, list[dict]]) -> str:
    """The tables of a stage."""
    parts = [f"## {stage}\n"]
    for size, rows in tables.items():
        columns = list(dict.fromkeys(key for one in rows for key in one))
        lines = [f"### {size}\n", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(_cell(one.get(key)) for key in columns)} |" for one in rows]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _cell(value) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plot(stages: dict[str, dict[str, list[dict]]], path: Path) -> None:
    """Times over those of each table's base, one panel a table that has them."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    panels = [
        (f"{stage}: {size}", [(one["what"], one["ratio"]) for one in rows if one.get("ratio")])
        for stage, tables in stages.items()
        for size, rows in tables.items()
    ]
    panels = [panel for panel in panels if panel[1]]
    heights = [len(bars) + 3 for _, bars in panels]  # so that no label lies on another
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9, sum(heights) / 6), squeeze=False, height_ratios=heights
    )
    for axis, (title, bars) in zip(axes[:, 0], panels):
        names, ratios = zip(*bars)
        axis.barh(range(len(names)), ratios)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_xscale("log")
        axis.axvline(1, color="black", linewidth=0.5)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=8)
    figure.tight_layout()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=100)
    plt.close(figure)
