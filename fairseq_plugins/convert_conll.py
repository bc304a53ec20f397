"""Column files (CoNLL) into the parallel word and label files that fairseq-preprocess reads.

    python -m fairseq_plugins.convert_conll --out text --train train.conll.gz --valid dev.conll.gz

writes ``text/train.words``, ``text/train.labels``, ``text/valid.words`` and ``text/valid.labels``: one
sentence a line, line i of the one file labelled by line i of the other.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diffdecode.files.atomic import atomic_write
from diffdecode.files.text import SPACE, FormatError, blocks, numbered_lines, spaced_words

RESERVED = {"<s>", "</s>", "<pad>", "<unk>"}  # fairseq's own symbols
DOCUMENT_START = "-DOCSTART-"
NUMBER = re.compile(r"[1-9][0-9]*")
RANGE_OR_EMPTY_NODE = re.compile(r"[0-9]+[-.][0-9]+")
WHITE_SPACE = re.compile(r"\s+")  # what fairseq's tokenizer splits lines at: that of Unicode, too

Sentence = tuple[list[str], list[str]]  # words, labels


class _Row(NamedTuple):
    """A line of the file: its number from 1, its text, its cells, and whether tabs separate them."""

    line: int
    text: str
    cells: list[str]
    tabs: bool

    @property
    def shape(self) -> tuple[int, bool]:
        return len(self.cells), self.tabs


def read_sentences(
    path: str | Path, word_column: int = 0, label_column: int = -1, replace_spaces: str | None = None
) -> Iterator[Sentence]:
    """Yield ``(words, labels)`` of each sentence of a column file, plain or ``.gz``.

    Columns are separated by a tab, or by spaces in lines without a tab. Blank lines and the ``-DOCSTART-``
    lines of the CoNLL-2003 data end sentences. Left out are comments, which are the lines before the first
    token of a sentence that begin with ``#`` and do not have as many columns as the tokens (CoNLL-U,
    GermEval), and, where the first column numbers the words, ranges (``2-3``) and empty nodes (``4.1``).

    Args:
        path: the column file.
        word_column: column of the words, from 0; negative numbers count from the last column.
        label_column: column of the labels.
        replace_spaces: what to put in place of white space (Unicode's, too) inside a word or label, at which
            fairseq would split it; None refuses such words.

    Raises:
        FormatError: a line that has too few columns, or more or fewer than the others of its sentence, or a
            word or label that fairseq cannot read back; names the file and the line.
    """
    usual = _usual_shape(path)
    for block in blocks(path):
        rows = [_row(number, line) for number, line in enumerate(block.lines, block.start)]
        for sentence in _between_document_starts(rows):
            tokens = _without_ranges(_without_comments(sentence, usual), word_column)
            pairs = [_pair(path, row, tokens[0], word_column, label_column, replace_spaces) for row in tokens]
            if pairs:
                yield [word for word, _ in pairs], [label for _, label in pairs]


def _row(number: int, line: str) -> _Row:
    tabs = "\t" in line
    return _Row(number, line, line.split("\t") if tabs else spaced_words(line), tabs)


def _usual_shape(path: str | Path) -> tuple[int, bool] | None:
    """That of the first token which begins with no ``#``: what tells comments in a block of ``#`` lines."""
    for number, line in numbered_lines(path):
        row = _row(number, line)
        if line.strip(SPACE) and not line.startswith("#") and DOCUMENT_START not in row.cells:
            return row.shape
    return None


def _between_document_starts(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    sentence: list[_Row] = []
    for row in rows:
        if DOCUMENT_START in row.cells:
            yield sentence
            sentence = []
        else:
            sentence.append(row)
    yield sentence


def _without_comments(rows: list[_Row], usual: tuple[int, bool] | None) -> list[_Row]:
    shape = next((row.shape for row in rows if not row.text.startswith("#")), usual)
    for i, row in enumerate(rows):
        if not row.text.startswith("#") or row.shape == (shape or row.shape):
            return rows[i:]
    return []


def _without_ranges(rows: list[_Row], word_column: int) -> list[_Row]:
    """CoNLL-U without multi-word tokens and empty nodes, which are no words of the annotation."""
    if not rows or word_column in (0, -len(rows[0].cells)):
        return rows
    numbered = [row for row in rows if NUMBER.fullmatch(row.cells[0])]
    others = [row for row in rows if RANGE_OR_EMPTY_NODE.fullmatch(row.cells[0])]
    in_order = [row.cells[0] for row in numbered] == [str(i + 1) for i in range(len(numbered))]
    return numbered if in_order and len(numbered) + len(others) == len(rows) else rows


def _pair(
    path: str | Path,
    row: _Row,
    first: _Row,
    word_column: int,
    label_column: int,
    replace_spaces: str | None,
) -> tuple[str, str]:
    """The word and the label of a row in the sentence of ``first``."""
    cells = row.cells
    if len(cells) < 2:
        raise FormatError(path, row.line, f"expected a word and a label, found one column: {row.text!r}")
    if len(cells) != len(first.cells):
        problem = f"{len(cells)} columns, but line {first.line} of the sentence has {len(first.cells)}"
        raise FormatError(path, row.line, f"{problem}: {row.text!r}")
    try:
        pair = cells[word_column], cells[label_column]
    except IndexError:
        raise FormatError(path, row.line, f"only {len(cells)} columns: {row.text!r}") from None
    word, label = (_symbol(path, row, *named, replace_spaces) for named in zip(("word", "label"), pair))
    return word, label


def _symbol(path: str | Path, row: _Row, name: str, cell: str, replace_spaces: str | None) -> str:
    """A word or label as fairseq can read it back."""
    symbol = cell if replace_spaces is None else WHITE_SPACE.sub(lambda _: replace_spaces, cell)
    if not symbol or WHITE_SPACE.search(symbol):
        problem = f"the {name} {cell!r} is empty or contains a space (--replace-spaces puts something there)"
        raise FormatError(path, row.line, problem)
    if symbol in RESERVED:
        raise FormatError(path, row.line, f"the {name} {symbol!r} is a symbol of fairseq itself; rename it")
    return symbol


def convert(
    path: str | Path,
    prefix: str | Path,
    word_column: int = 0,
    label_column: int = -1,
    limit: int | None = None,
    replace_spaces: str | None = None,
) -> tuple[int, int]:
    """Write *prefix*.words and *prefix*.labels for the column file *path*; return the numbers written.

    Args:
        path: the column file.
        prefix: folder and split name of the two files.
        word_column: column of the words, from 0; negative numbers count from the last column.
        label_column: column of the labels.
        limit: convert the first *limit* sentences only.
        replace_spaces: see :func:`read_sentences`.

    Returns:
        ``(sentences, words)``.

    Raises:
        ValueError: as :func:`read_sentences`, or no sentence at all, or numbers for words. Nothing is written
            then.
    """
    sentences = _checked_sentences(path, word_column, label_column, replace_spaces)[:limit]
    return _write(sentences, prefix)


def _checked_sentences(
    path: str | Path, word_column: int, label_column: int, replace_spaces: str | None
) -> list[Sentence]:
    sentences = list(read_sentences(path, word_column, label_column, replace_spaces))
    if not sentences:
        raise FormatError(path, None, "no sentences")
    if any(len(words) > 1 for words, _ in sentences) and all(_are_numbers(words) for words, _ in sentences):
        problem = f"column {word_column} has the numbers of the words 1, 2, ...; name another --word-column"
        raise FormatError(path, None, problem)
    return sentences


def _are_numbers(words: Sequence[str]) -> bool:
    numbers = [word for word in words if not RANGE_OR_EMPTY_NODE.fullmatch(word)]
    return numbers == [str(i + 1) for i in range(len(numbers))]


def _write(sentences: Sequence[Sentence], prefix: str | Path) -> tuple[int, int]:
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    with (  # both or neither: words with the labels of an earlier run would be taken for a corpus
        atomic_write(f"{prefix}.words", newline="\n") as words_file,
        atomic_write(f"{prefix}.labels", newline="\n") as labels_file,
    ):
        for words, labels in sentences:
            words_file.write(" ".join(words) + "\n")
            labels_file.write(" ".join(labels) + "\n")
    return len(sentences), sum(len(words) for words, _ in sentences)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_plugins.convert_conll",
        description="Turn column files (CoNLL) into word and label files for fairseq-preprocess.",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the text files are written")
    for split in ("train", "valid", "test"):
        parser.add_argument(f"--{split}", metavar="FILE", help=f"column file of the {split} split (or .gz)")
    parser.add_argument(
        "--word-column", type=int, default=0, metavar="N", help="column of the words, from 0 (default: 0)"
    )
    parser.add_argument(
        "--label-column", type=int, default=-1, metavar="N", help="column of the labels (default: -1)"
    )
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="first N sentences of the training file only"
    )
    parser.add_argument(
        "--replace-spaces",
        metavar="TEXT",
        help="put this in place of white space inside a word, such as _ (default: refuse such words)",
    )
    args = parser.parse_args(argv)
    if not (args.train or args.valid or args.test):
        parser.error("name at least one file: --train, --valid or --test")
    return args


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    """Convert the files that the command line names; all are read before the first is written."""
    args = _arguments(argv)
    paths = {split: getattr(args, split) for split in ("train", "valid", "test") if getattr(args, split)}
    columns = args.word_column, args.label_column, args.replace_spaces
    try:
        read = {split: _checked_sentences(path, *columns) for split, path in paths.items()}
        if args.limit:
            read |= {"train": read["train"][: args.limit]} if "train" in read else {}
        for split, sentences in read.items():
            prefix = Path(args.out) / split
            counts = "{:,} sentences, {:,} words".format(*_write(sentences, prefix))
            print(f"{paths[split]}: {counts} -> {prefix}.words, .labels")
    except (OSError, ValueError) as error:
        sys.exit(f"convert_conll: {error}")


if __name__ == "__main__":
    main()
