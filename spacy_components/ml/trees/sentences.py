"""Trees within sentences that were set before the parser."""

from dataclasses import replace

import numpy as np

from diffdecode.structure import TreeKind
from spacy_components.ml.segments import SegmentBatch


def trees_of(batch: SegmentBatch, trees: TreeKind) -> TreeKind:
    """Which trees there are for a batch of segments.

    Args:
        batch: the segments.
        trees: which trees there are for any other.

    Returns:
        The same, but with one root where each segment is a sentence.
    """
    return replace(trees, multi_root=False) if batch.one_sentence else trees


def join_trees(heads: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Join each tree that begins where no sentence may begin with the one before it: root below root.

    That is possible without crossing arcs, as no arc of a tree spans its root.

    Args:
        heads: ``[T]`` positions, a root's being its own.
        inner: positions where no sentence may begin, rising; none is the first of a document.

    Returns:
        ``[T]`` heads of trees none of which begins there.
    """
    if not len(inner):
        return heads
    root = heads
    while not np.array_equal(root, root[root]):
        root = root[root]
    first = np.full(len(heads), len(heads))
    np.minimum.at(first, root, np.arange(len(heads)))
    heads = heads.copy()
    for word in inner[first[root[inner]] == inner]:
        before = root[word - 1]
        while heads[before] != before:  # that one was joined itself
            before = heads[before]
        heads[root[word]] = before
    return heads
