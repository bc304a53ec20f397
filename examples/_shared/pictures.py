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
    _save(figure, path)


def save_scatter(
    path: Path,
    x_label: str,
    y_label: str,
    panels: dict[str, dict[str, list[tuple[float, float]]]],
    levels: dict[str, dict[str, float]] | None = None,
) -> None:
    """Plot points, a panel beside the other.

    Args:
        path: of the PNG.
        x_label: what the horizontal axis shows.
        y_label: what the vertical axis shows.
        panels: by title, the points of each method.
        levels: by title, named horizontal lines.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    titles = list(dict.fromkeys([*panels, *(levels or {})]))
    figure, axes = plt.subplots(1, len(titles), figsize=(1 + 4.5 * len(titles), 4.5), squeeze=False)
    colours = plt.get_cmap("tab10")
    names = list(dict.fromkeys(name for points in panels.values() for name in points))
    for panel, title in zip(axes[0], titles):
        for name, points in panels.get(title, {}).items():
            panel.scatter(*zip(*points), label=name, color=colours(names.index(name) % 10), alpha=0.7)
        for name, level in (levels or {}).get(title, {}).items():
            panel.axhline(level, linestyle="--", color="grey", linewidth=0.8, label=name)
        panel.set(title=title, xlabel=x_label, ylabel=y_label)
    handles = {}
    for panel in axes[0]:
        for handle, name in zip(*panel.get_legend_handles_labels()):
            handles.setdefault(name, handle)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=len(handles), fontsize="small")
    _save(figure, path)


def _save(figure, path: Path) -> None:
    from matplotlib import pyplot as plt

    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
    print(f"plot: {path}")
