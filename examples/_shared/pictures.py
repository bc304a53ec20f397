"""Pictures of the recipes, as PNG."""

from __future__ import annotations

from pathlib import Path

from diffdecode.files.atomic import atomic_write


def save_curves(
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    curves: dict[str, list[float]],
    levels: dict[str, float] | None = None,
    x: list | None = None,
    skip: int = 0,
) -> None:
    """Plot one curve per method.

    Args:
        path: of the PNG.
        title: of the picture.
        x_label: what the horizontal axis shows.
        y_label: what the vertical axis shows.
        curves: values per method.
        levels: named horizontal lines.
        x: labels of the values, drawn as unconnected markers; default: epochs 1, 2, ... as lines.
        skip: first epochs left out, so that they do not flatten the rest.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5))
    colours = plt.get_cmap("tab20")
    for i, (name, values) in enumerate(curves.items()):
        if x is None:
            axes.plot(range(skip + 1, len(values) + 1), values[skip:], label=name, color=colours(i % 20))
        else:
            axes.plot(x, values, marker="o", linestyle="", label=name, color=colours(i % 20))
    for name, level in (levels or {}).items():
        axes.axhline(level, linestyle="--", color="grey", linewidth=0.8)
        axes.annotate(name, (0, level), xycoords=("axes fraction", "data"), fontsize="small", va="bottom")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.tick_params(axis="x", rotation=0 if x is None else 20)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
    print(f"plot: {path}")
