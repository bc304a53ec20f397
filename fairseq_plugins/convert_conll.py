"""Column files (CoNLL) into the parallel word and label files that fairseq-preprocess reads.

    python -m fairseq_plugins.convert_conll --out text --train train.conll.gz --valid dev.conll.gz

writes ``text/train.words``, ``text/train.labels``, ``text/valid.words`` and ``text/valid.labels``: one
sentence a line, line i of the one file labelled by line i of the other.
"""

import argparse
import gzip
import sys
from pathlib import Path

RESERVED = {"<s>", "</s>", "<pad>", "<unk>"}  # fairseq's own symbols
DOCUMENT_START = "-DOCSTART-"


def read_sentences(path, word_column=0, label_column=-1):
    """Yield ``(words, labels)`` of each sentence of a column file, plain or ``.gz``.

    Columns are separated by a tab, or by spaces in lines without a tab; blank lines end sentences, and the
    ``-DOCSTART-`` lines of the CoNLL-2003 data are left out.

    Raises:
        ValueError: a line that has too few columns, or a word or label that fairseq cannot read back; names
            the file and the line.
    """
    open_text = gzip.open if str(path).endswith(".gz") else open
    words, labels = [], []
    with open_text(path, "rt", encoding="utf-8-sig") as lines:
        for number, line in enumerate(_decoded(lines, path), start=1):
            if line.strip():
                word, label = _word_and_label(line, word_column, label_column, f"{path}, line {number}")
                if word != DOCUMENT_START:
                    words.append(word)
                    labels.append(label)
            elif words:
                yield words, labels
                words, labels = [], []
    if words:
        yield words, labels


def _decoded(lines, path):
    try:
        yield from lines
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path}: not readable as UTF-8 text ({error})") from error


def _word_and_label(line, word_column, label_column, where):
    line = line.rstrip("\n")
    cells = line.split("\t") if "\t" in line else line.split()
    if len(cells) < 2:
        raise ValueError(f"{where}: expected a word and a label, found one column: {line!r}")
    try:
        pair = cells[word_column], cells[label_column]
    except IndexError:
        raise ValueError(f"{where}: only {len(cells)} columns: {line!r}") from None
    for name, cell in zip(("word", "label"), pair):
        if not cell or any(character.isspace() for character in cell):
            raise ValueError(f"{where}: the {name} {cell!r} is empty or contains a space")
        if cell in RESERVED:
            raise ValueError(f"{where}: the {name} {cell!r} is a symbol of fairseq itself; rename it")
    return pair


def convert(path, prefix, word_column=0, label_column=-1, limit=None):
    """Write *prefix*.words and *prefix*.labels for the column file *path*; return the numbers written.

    Args:
        path: the column file.
        prefix: folder and split name of the two files.
        word_column: column of the words, from 0; negative numbers count from the last column.
        label_column: column of the labels.
        limit: convert the first *limit* sentences only.

    Returns:
        ``(sentences, words)``.

    Raises:
        ValueError: as :func:`read_sentences`, or no sentence at all. Nothing is written then.
    """
    sentences = list(read_sentences(path, word_column, label_column))[:limit]
    if not sentences:
        raise ValueError(f"{path}: no sentences")
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    for column, suffix in enumerate(("words", "labels")):
        text = "".join(" ".join(sentence[column]) + "\n" for sentence in sentences)
        Path(f"{prefix}.{suffix}").write_text(text, encoding="utf-8", newline="\n")
    return len(sentences), sum(len(words) for words, _ in sentences)


def _arguments(argv):
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
    parser.add_argument("--limit", type=int, metavar="N", help="first N sentences of the training file only")
    args = parser.parse_args(argv)
    if not (args.train or args.valid or args.test):
        parser.error("name at least one file: --train, --valid or --test")
    return args


def main(argv=None):
    args = _arguments(argv)
    for split in ("train", "valid", "test"):
        path = getattr(args, split)
        if path is None:
            continue
        limit = args.limit if split == "train" else None
        try:
            sentences, words = convert(
                path, Path(args.out) / split, args.word_column, args.label_column, limit
            )
        except (OSError, ValueError) as error:
            sys.exit(f"convert_conll: {error}")
        print(f"{path}: {sentences:,} sentences, {words:,} words -> {Path(args.out) / split}.words, .labels")


if __name__ == "__main__":
    main()
