"""The probability of a document's tree where trees of segments are joined to it.

A parser decides on the trees of segments. Where no sentence may begin, a tree is then joined to the one
before it, root below root (see ``ml.trees.sentences.join_trees``), so that several decisions can give one
tree of the document: its probability is the sum of theirs. They differ only in words that hang on the root of
the document's tree: each of them did so from the start, or was a root that was joined.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffdecode.structure import TreeKind
from spacy_components.ml.trees.sentences import join_trees


@dataclass(frozen=True)
class SegmentScores:
    """A segment of a document.

    Attributes:
        words: ``[N]`` positions in the document.
        arcs: ``[N+1, N+1]`` float64 scores.
        trees: which trees it may have.
    """

    words: np.ndarray
    arcs: np.ndarray
    trees: TreeKind


def score_of_decisions(segments: Sequence[SegmentScores], heads: np.ndarray, inner: np.ndarray) -> float:
    """The logarithm of the summed exponentiated scores of all decisions that give a document this tree.

    Args:
        segments: of the document.
        heads: ``[n]`` positions, a root's being its own.
        inner: positions where no sentence may begin, rising.

    Returns:
        the logarithm; -inf where no decision gives this tree.
    """
    if _has_cycle(heads):
        return -np.inf
    tokens = np.arange(len(heads))
    segment, place = np.full(len(heads), -1), np.zeros(len(heads), dtype=np.int64)
    for number, part in enumerate(segments):
        segment[part.words], place[part.words] = number, np.arange(1, len(part.words) + 1)
    decided = np.where((segment >= 0) & (segment[heads] != segment), tokens, heads)
    if not np.array_equal(join_trees(decided, inner), heads):
        return -np.inf
    place_of_head = np.where(decided == tokens, 0, place[decided])
    total = 0.0
    for part in segments:
        chosen = place_of_head[part.words]
        if not _is_possible(part.trees, chosen):
            return -np.inf
        of_arcs = part.arcs[np.arange(1, len(chosen) + 1), chosen]
        if not len(inner) or not part.trees.multi_root:
            total += of_arcs.sum()
            continue
        own_root = part.arcs[1:, 0]
        for words, free in _families(part, chosen, decided, heads, inner):
            sums = [of_arcs[words].sum()]
            for first in range(len(words) - 1, free - 1, -1):
                sums.append(of_arcs[words[:first]].sum() + own_root[words[first:]].sum())
            total += np.logaddexp.reduce(sums)
    return float(total)


def _families(
    part: SegmentScores, chosen: np.ndarray, decided: np.ndarray, heads: np.ndarray, inner: np.ndarray
) -> Iterator[tuple[np.ndarray, int]]:
    """Words of a segment, all of them once, in groups whose scores multiply: of each group, the last ones
    from any place on, but not before the place that is given, may have been roots.

    Where arcs may cross, any word that hangs on a root is a group. Where they may not, those to the right of
    one root are one: while the arc to a word stands, no word below it can be a root.
    """

    def joined(word: int) -> bool:
        cut = decided.copy()
        cut[part.words[word]] = part.words[word]
        return np.array_equal(join_trees(cut, inner), heads)

    is_root = (chosen == 0) & (heads[part.words] == part.words)
    on_root = np.flatnonzero((chosen > 0) & is_root[chosen - 1])
    yield np.setdiff1d(np.arange(len(chosen)), on_root), len(chosen)
    if not part.trees.projective:
        for word in on_root:
            yield np.array([word]), 0 if joined(word) else 1
        return
    to_left = on_root[chosen[on_root] - 1 > on_root]
    yield to_left, len(to_left)
    for root in np.unique(chosen[np.setdiff1d(on_root, to_left)]):
        words = on_root[(chosen[on_root] == root) & (on_root > root - 1)]
        free = len(words)
        while free and joined(words[free - 1]):
            free -= 1
        yield words, free


def _has_cycle(heads: np.ndarray) -> bool:
    above = heads
    for _ in range(len(heads).bit_length()):
        above = above[above]
    return not np.array_equal(above, heads[above])


def _is_possible(trees: TreeKind, heads: np.ndarray) -> bool:
    """Whether a tree, ``heads [N]`` (0 = root), is one of these."""
    if not trees.multi_root and (heads == 0).sum() != 1:
        return False
    if not trees.projective:
        return True
    word = np.arange(1, len(heads) + 1)
    left, right = np.minimum(word, heads), np.maximum(word, heads)
    begins_inside = (left[:, None] < left) & (left < right[:, None])
    return not (begins_inside & (right[:, None] < right)).any()
