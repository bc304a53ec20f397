"""Tables of the recipes, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from diffdecode.files.atomic import write_text


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and sample standard deviation over the seeds."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, so that the source can be read too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in lines
    )


def save_table(path: Path, caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Print a Markdown table under its caption and save both."""
    text = f"{caption}\n\n{markdown_table(header, rows)}\n"
    write_text(path, text)
    print(text)
    return text


def save_markdown(path: Path, text: str) -> None:
    """Show a text with its tables drawn, and save its source."""
    write_text(path, text)
    Console().print(Markdown(text))
