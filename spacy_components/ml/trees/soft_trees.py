"""Trees in expectation: every arc that there can be between two words, with its probability."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from thinc.api import Ops
from thinc.types import Floats1d, Ints1d
from torch import Tensor

from diffdecode.moves import moved
from spacy_components.ml.segments import SegmentedDocs, split_rows


class SoftTree(NamedTuple):
    """The arcs of one document, by dependent. What a word lacks to 1 is the probability that it is a root."""

    heads: Ints1d
    """``[m]`` positions in the document"""
    dependents: Ints1d
    """``[m]`` positions, rising"""
    probs: Floats1d
    """``[m]``"""


class WordPairs:
    """The pairs of words that share a segment, and white space with the word that it hangs on.

    Args:
        segments: the documents' segments.
    """

    def __init__(self, segments: SegmentedDocs):
        self._places, of_heads, of_dependents = [], [], []
        for batch in segments.batches:
            is_pair = batch.is_word[:, :, None] & batch.is_word[:, None, :]
            is_pair &= ~np.eye(batch.tokens.shape[1], dtype=bool)
            row, dependent, head = np.nonzero(is_pair)
            self._places.append(np.flatnonzero(is_pair))
            of_heads.append(batch.tokens[row, head])
            of_dependents.append(batch.tokens[row, dependent])
        hangs = segments.hosts != segments.spaces  # else it is a document without words
        self._given = int(hangs.sum())
        heads = np.concatenate([*of_heads, segments.hosts[hangs]]).astype(np.int64)
        dependents = np.concatenate([*of_dependents, segments.spaces[hangs]]).astype(np.int64)
        self._order = np.argsort(dependents, kind="stable")
        ends = np.cumsum(segments.doc_lengths)
        stops = np.searchsorted(dependents[self._order], ends)
        self._counts = np.diff(stops, prepend=0).tolist()
        start = np.repeat(ends - segments.doc_lengths, self._counts)
        self._heads = (heads[self._order] - start).astype(np.int32)
        self._dependents = (dependents[self._order] - start).astype(np.int32)

    def probs(self, marginals: Sequence[Tensor]) -> Tensor:
        """Of all documents, ``[pairs]`` float32.

        Args:
            marginals: of each batch of segments, ``[B, N+1, N+1]``: dependent, head; 0 is the root.
        """
        device = marginals[0].device if marginals else torch.device("cpu")
        chosen = [
            of_batch[:, 1:, 1:].flatten()[moved(torch.from_numpy(places), device)].float()
            for of_batch, places in zip(marginals, self._places)
        ]
        together = torch.cat([*chosen, torch.ones(self._given, device=device)]).clamp(0, 1)
        return together[moved(torch.from_numpy(self._order), device)]

    def by_doc(self, ops: Ops, probs: Any) -> list[SoftTree]:
        """One tree for each document.

        Args:
            ops: of the device that they are for.
            probs: ``[pairs]``, an array of that device.
        """
        columns = [ops.asarray(self._heads), ops.asarray(self._dependents), probs]
        return soft_trees(columns, self._counts)


def soft_trees(columns: Sequence[Any], counts: Sequence[int]) -> list[SoftTree]:
    """Columns of all documents, one below the other, as one tree for each.

    Args:
        columns: those of ``SoftTree``.
        counts: arcs of each document.
    """
    return [SoftTree(*rows) for rows in zip(*(split_rows(column, counts) for column in columns))]
