"""Gold trees on the tokens of the predicted documents, with what is not annotated marked as such."""

from collections.abc import Sequence

import numpy as np
from spacy.attrs import DEP, HEAD
from spacy.pipeline._parser_internals.nonproj import DELIMITER
from spacy.tokens import Doc
from spacy.training import Example

from spacy_components.ml.segments import SegmentBatch

UNKNOWN = -1


def aligned_tree(example: Example, projective: bool) -> tuple[np.ndarray, np.ndarray]:
    """The reference's parse on the predicted tokens.

    A token whose reference has no label has no annotation: spaCy gives it itself as head. With
    ``projective``, crossing arcs are lifted to the nearest head that makes the tree projective.

    Args:
        example: the example.
        projective: whether the tree has to be projective.

    Returns:
        Heads as token positions (a root's is its own; ``UNKNOWN``) and hash values of the labels (0 =
        unknown), ``[n]`` each.
    """
    reference, predicted = example.reference, example.predicted
    if not reference.has_annotation("DEP"):
        return np.full(len(predicted), UNKNOWN), np.zeros(len(predicted), dtype=np.uint64)
    heads, labels = tree_of(reference)
    same_tokens = len(predicted) == len(reference) and np.array_equal(
        predicted.to_array("ORTH"), reference.to_array("ORTH")
    )
    if same_tokens and not (projective and crosses(heads, labels != 0)):
        return np.where(labels != 0, heads, UNKNOWN), labels
    strings = reference.vocab.strings
    heads, deps = example.get_aligned_parse(projectivize=projective)
    known = [head is not None and bool(dep) for head, dep in zip(heads, deps)]
    heads = [head if ok else UNKNOWN for head, ok in zip(heads, known)]
    labels = [strings.add(dep.split(DELIMITER)[0]) if ok else 0 for dep, ok in zip(deps, known)]
    return np.array(heads, dtype=np.int64), np.array(labels, dtype=np.uint64)


def tree_of(doc: Doc) -> tuple[np.ndarray, np.ndarray]:
    """Heads as positions (a root's is its own) and hash values of the labels (0 = not annotated), ``[n]``."""
    columns = doc.to_array([HEAD, DEP]).reshape(len(doc), 2)
    return np.arange(len(doc)) + columns[:, 0].astype(np.int64), columns[:, 1]


def crosses(heads: np.ndarray, known: np.ndarray) -> bool:
    """Whether a tree has crossing arcs; see ``crossing_arcs``."""
    return bool(crossing_arcs(heads, known).any())


def crossing_arcs(heads: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which arcs of a tree cross another, those of the artificial root before the first word included.

    Args:
        heads: ``[n]`` positions, a root's being its own.
        known: ``[n]`` bool, which of them count.

    Returns:
        ``[n]`` bool, for each dependent.
    """
    dependents = np.flatnonzero(known)
    heads = np.where(heads[dependents] == dependents, -1, heads[dependents])
    left, right = np.minimum(dependents, heads), np.maximum(dependents, heads)
    crossed = (left[:, None] < left) & (left < right[:, None]) & (right > right[:, None])
    crossing = np.zeros(len(known), dtype=bool)
    crossing[dependents] = crossed.any(0) | crossed.any(1)
    return crossing


def gold_heads(batch: SegmentBatch, heads: np.ndarray, multi_root: bool) -> np.ndarray:
    """Gold heads of a batch of segments.

    Args:
        batch: the segments.
        heads: ``[T]`` positions in all documents, a root's being its own, or ``UNKNOWN``.
        multi_root: whether a segment may have several roots; otherwise only its first one is known.

    Returns:
        ``[B, N]`` positions in the segment, 0 = root; ``UNKNOWN`` if not annotated, if the head is outside
        the segment, and for padding.
    """
    row, column = np.nonzero(batch.is_word)
    words = batch.tokens[row, column]
    segment, place = np.full(len(heads) + 1, -1), np.zeros(len(heads) + 1, dtype=np.int64)
    segment[words], place[words] = row, column + 1
    of_word = heads[words]
    found = np.where(segment[of_word] == row, place[of_word], UNKNOWN)
    found = np.where(of_word == words, 0, found)
    gold = np.full(batch.tokens.shape, UNKNOWN)
    gold[row, column] = np.where(of_word == UNKNOWN, UNKNOWN, found)
    if not multi_root:
        roots = gold == 0
        gold[roots & (roots.cumsum(axis=1) > 1)] = UNKNOWN
    return gold


def counted_through(heads: Sequence[np.ndarray]) -> np.ndarray:
    """Heads of all documents as one array, their tokens counted through.

    Args:
        heads: of each document ``[n]``, positions in it or ``UNKNOWN``.
    """
    starts = offsets([len(of_doc) for of_doc in heads])
    moved = [np.where(of_doc >= 0, of_doc + start, of_doc) for of_doc, start in zip(heads, starts)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *moved])


def offsets(lengths: Sequence[int]) -> np.ndarray:
    """Where each document begins when their tokens are counted through."""
    lengths = np.asarray(lengths, dtype=np.int64)
    return np.cumsum(lengths) - lengths
