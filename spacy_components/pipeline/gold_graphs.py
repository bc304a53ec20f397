"""Gold graphs on the tokens of the predicted documents, with what is not annotated marked as such."""

from collections.abc import Sequence

import numpy as np
from spacy.training import Example

from spacy_components.ml.segments import SegmentBatch
from spacy_components.sdp_graph import DEFAULT_KEY, aligned_graph

ROOT = -1


def aligned_arcs(
    examples: Sequence[Example], labels: Sequence[str], key: str = DEFAULT_KEY
) -> tuple[np.ndarray, np.ndarray]:
    """The arcs of the references' graphs as positions in all predicted documents.

    Of several arcs between the same two words the one with the smallest label counts.

    Args:
        examples: the examples.
        labels: all labels; the last one is that of the arcs from the root to the tops.
        key: the key of the graphs.

    Returns:
        ``[arcs, 3]`` head (``ROOT`` for tops), dependent, label's number; and ``[T]`` bool: tokens about
        which the reference's graph says something.
    """
    number = {label: i for i, label in enumerate(labels)}
    start, arcs, known = 0, {}, []
    for example in examples:
        graph = aligned_graph(example, key)
        size = len(example.predicted)
        known.append(np.zeros(size, dtype=bool) if graph is None else graph.known)
        if graph is not None:
            for head, dep, label in graph.arcs:
                if label in number:
                    arcs.setdefault((head + start, dep + start), number[label])
            arcs.update(((ROOT, top + start), len(labels) - 1) for top in graph.top)
        start += size
    rows = [(head, dep, label) for (head, dep), label in arcs.items()]
    return np.array(rows, dtype=np.int64).reshape(-1, 3), np.concatenate(known)


def gold_batch(batch: SegmentBatch, arcs: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gold graphs of a batch of segments.

    Args:
        batch: the segments.
        arcs: ``[arcs, 3]`` as ``aligned_arcs`` returns; those that leave a segment do not count.
        known: ``[T]`` bool.

    Returns:
        Labels ``[B, N+1, N+1]`` (argument, predicate), -1 for no arc; and a mask of the same shape of the
        pairs that are annotated.
    """
    row, column = np.nonzero(batch.is_word)
    words = batch.tokens[row, column]
    segment, place = np.full(len(known) + 1, -1), np.zeros(len(known) + 1, dtype=np.int64)
    segment[words], place[words] = row, column + 1
    shape = (len(batch.tokens), batch.tokens.shape[1] + 1)
    labels = np.full((*shape, shape[1]), -1)
    head, dependent, label = arcs.T
    of_root = head == ROOT
    inside = (segment[dependent] >= 0) & (of_root | (segment[head] == segment[dependent]))
    head, dependent, label, of_root = head[inside], dependent[inside], label[inside], of_root[inside]
    labels[segment[dependent], place[dependent], np.where(of_root, 0, place[head])] = label
    annotated = np.zeros(shape, dtype=bool)
    annotated[row, column + 1] = known[words]
    annotated[:, 0] = annotated.any(1)
    return labels, annotated[:, :, None] & annotated[:, None, :]
