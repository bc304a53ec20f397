"""Text files, line by line: the one way in which every reader of a text format opens its input.

Files are UTF-8, plain or (by their name) ``.gz``. Line ends may be ``\\n``, ``\\r\\n`` or ``\\r``. No word
begins with the byte-order mark that may stand before a line, as where files were concatenated. Only spaces
and tabs separate: a non-breaking space or a line separator of Unicode is part of a word. What is no text
raises :class:`FormatError`, which names the file and the line.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

UNWRITABLE = frozenset("\t\n\r\0")
"""Characters that a cell of a tab-separated file cannot hold."""

BYTE_ORDER_MARK = "\ufeff"
SPACE = " \t"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
GZIP = b"\x1f\x8b"
LONGEST = 300  # characters of a message: what is quoted may be a whole file without line ends


class FormatError(ValueError):
    """Bad input; the message is one line, which begins with the file and the line in it.

    Args:
        line: its number, counted from 1, or None where the whole file is meant.
    """

    def __init__(self, path: str | Path, line: int | None, problem: str):
        super().__init__(path, line, problem)
        self.path, self.line, self.problem = path, line, problem

    def __str__(self) -> str:
        place = f"{self.path}, line {self.line}" if self.line else f"{self.path}"
        problem = " ".join(self.problem.splitlines())
        return f"{place}: {problem if len(problem) <= LONGEST else problem[:LONGEST] + ' ...'}"


class Block(NamedTuple):
    """Consecutive lines that are not blank; ``start`` is the number of the first, counted from 1."""

    start: int
    lines: list[str]


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a file without their ends, each with its number, counted from 1.

    Raises FormatError for a damaged ``.gz`` and for what is not UTF-8 text, OSError for a file that cannot be
    opened.
    """
    number = 0
    try:
        with _open(path) as file:
            for raw in file:
                for line in _decoded(path, number + 1, raw).rstrip("\r\n").split("\r"):
                    number += 1
                    yield number, line.removeprefix(BYTE_ORDER_MARK)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(path, number + 1, f"damaged .gz file ({error})") from error


def blocks(path: str | Path) -> Iterator[Block]:
    """Yields the groups of lines that blank lines separate. Raises as :func:`numbered_lines`."""
    block = Block(0, [])
    for number, line in numbered_lines(path):
        if not is_blank(line):
            block = block if block.lines else Block(number, [])
            block.lines.append(line)
        elif block.lines:
            yield block
            block = Block(0, [])
    if block.lines:
        yield block


def is_blank(line: str) -> bool:
    """Whether a line has nothing but spaces and tabs."""
    return not line.strip(SPACE)


def spaced_words(text: str) -> list[str]:
    """The words of a text, cut at spaces and tabs and nowhere else."""
    return [word for word in text.replace("\t", " ").split(" ") if word]


def _open(path: str | Path) -> BinaryIO | gzip.GzipFile:
    if Path(path).suffix != ".gz":
        return open(path, "rb")
    if Path(path).stat().st_size == 0:  # which gzip takes for the end of a file without text
        raise FormatError(path, None, "damaged .gz file (it is empty)")
    return gzip.open(path, "rb")


def _decoded(path: str | Path, number: int, raw: bytes) -> str:
    """One line as text. (Each by itself: a decoder of blocks would not know in which line it fails.)"""
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text ({error.reason} at byte {error.start + 1} of the line)"
        if number == 1 and raw.startswith(UTF_16):
            problem += "; it looks like UTF-16, which must be converted"
        elif number == 1 and raw.startswith(GZIP):
            problem += "; it looks like a gzip file, whose name must end in .gz"
        raise FormatError(path, number, problem) from error
    if "\0" in line:
        raise FormatError(path, number, "not UTF-8 text (a NUL character)")
    return line
