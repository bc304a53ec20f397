"""Reading text files line by line, with the place of every line."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO


class FormatError(ValueError):
    """Bad input; the message begins with the file and the line."""

    def __init__(self, path: str | Path, line: int, problem: str):
        super().__init__(f"{path}, line {line}: {problem}")


class Block(NamedTuple):
    """Consecutive non-empty lines; ``start`` is the number of the first, counted from 1."""

    start: int
    lines: list[str]


def open_text(path: str | Path) -> TextIO:
    """Opens a UTF-8 text file for reading, unzipped if its name ends in ``.gz``."""
    if Path(path).suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return open(path, encoding="utf-8")


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Lines without their line ends, with their number from 1. Raises FormatError where it is not UTF-8."""
    number = 0
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise FormatError(path, number + 1, f"not UTF-8 text ({error.reason})") from error


def blocks(path: str | Path) -> Iterator[Block]:
    """Groups of lines separated by empty lines."""
    block = Block(0, [])
    for number, line in numbered_lines(path):
        if line.strip():
            block = block if block.lines else Block(number, [])
            block.lines.append(line)
        elif block.lines:
            yield block
            block = Block(0, [])
    if block.lines:
        yield block
