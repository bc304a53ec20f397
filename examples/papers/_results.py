"""What the runners say of systems at the end: columns beside the paper's, and differences seed by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import mean, stdev

import numpy as np

from examples._shared.bootstrap import paired_interval
from examples._shared.tables import spread

Scores = Mapping[str, Mapping[str, list[float]]]
"""By system and heading, the score of each seed."""
Interval = tuple[float, float]


def beside_paper(
    scores: Scores, paper: Mapping[str, Mapping[str, float]]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows, less the first column: every score beside the paper's figure, where it has some."""
    headings = list(dict.fromkeys(heading for found in scores.values() for heading in found))
    header: list[str] = []
    rows: dict[str, list[str]] = {name: [] for name in scores}
    for heading in headings:
        header.append(heading)
        for name, row in rows.items():
            row.append(spread(scores[name][heading], 2) if heading in scores[name] else "")
        if any(heading in figures for figures in paper.values()):
            header.append("paper")
            for name, row in rows.items():
                figure = paper.get(name, {}).get(heading)
                row.append("" if figure is None else f"{figure:g}")
    return header, list(rows.values())


def intervals_of(
    pairs: Iterable[tuple[str, str]],
    counts: Mapping[str, np.ndarray],
    score: Callable[[np.ndarray], np.ndarray],
) -> dict[str, Interval]:
    """``{"one system - another": interval}`` of the pairs that were run.

    Args:
        pairs: of systems.
        counts: of each system, ``[S, N, P]``.
        score: of sums of counts.
    """
    return {
        f"{mine} - {theirs}": paired_interval(counts[mine], counts[theirs], score)
        for mine, theirs in pairs
        if mine in counts and theirs in counts
    }


def verdict(heading: str, scores: Scores, intervals: Mapping[str, Interval]) -> str:
    """Differences of a column, seed by seed, in one line each."""
    lines = [f"{heading}, differences, and paired bootstrap over the sentences:"]
    for pair, (low, high) in intervals.items():
        mine, theirs = (scores[name][heading] for name in pair.split(" - "))
        gains = [one - other for one, other in zip(mine, theirs, strict=True)]
        deviation = f" ±{stdev(gains):.2f}" if len(gains) > 1 else ""
        each = ", ".join(f"{gain:+.2f}" for gain in gains)
        lines.append(f"{pair}: {mean(gains):+.2f}{deviation} ({each}); 95 % {low:+.2f} to {high:+.2f}")
    return "\n".join(lines)
