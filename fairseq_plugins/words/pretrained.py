"""Word vectors from a file, in fairseq's format: a header line, then a word and its numbers on each line."""

import logging
from pathlib import Path

import torch
from fairseq import utils
from fairseq.data import Dictionary
from torch import nn

logger = logging.getLogger(__name__)


@torch.no_grad()
def load_vectors(path: str | Path, dictionary: Dictionary, table: nn.Embedding) -> None:
    """Put the vectors of a file (``--encoder-embed-path``) into the rows of the words that it holds.

    How many words it holds, and which share of the running text they are, is logged.

    Args:
        path: the file.
        dictionary: of the words.
        table: ``[V, d]``, changed in place.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it cannot be read, its vectors have another size than the table, or it holds no word of
            the dictionary.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"--encoder-embed-path {path}: no such file")
    try:
        vectors = utils.parse_embedding(path)
    except (ValueError, StopIteration, UnicodeDecodeError) as error:
        raise ValueError(
            f"--encoder-embed-path {path} cannot be read ({error}): it holds a header line, then a word and "
            "its numbers, separated by single spaces, on each line"
        ) from None
    words = [i for i in range(dictionary.nspecial, len(dictionary)) if dictionary[i] in vectors]
    for i in words:
        vector = vectors[dictionary[i]]
        if len(vector) != table.embedding_dim:
            raise ValueError(
                f"--encoder-embed-path {path}: {dictionary[i]!r} has {len(vector)} numbers; the model has "
                f"--encoder-embed-dim {table.embedding_dim}"
            )
        table.weight[i] = vector
    if not words:
        raise ValueError(f"--encoder-embed-path {path} holds no word of the dictionary")
    running, found = sum(dictionary.count[dictionary.nspecial :]), sum(dictionary.count[i] for i in words)
    logger.info(
        "%s: vectors of %d of %d words of the dictionary (%.1f %% of the running text)",
        path,
        len(words),
        len(dictionary) - dictionary.nspecial,
        100 * found / max(running, 1),
    )
