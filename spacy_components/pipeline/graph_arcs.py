"""Arcs of semantic graphs on their way from a batch of segments to documents."""

from collections.abc import Iterable, Sequence

import numpy as np
from spacy.language import Language

from spacy_components.ml.trees.models import DocScores
from spacy_components.pipeline.gold_trees import offsets
from spacy_components.training.scorers import weights_by_key


def within_docs(arcs: np.ndarray, scores: DocScores) -> tuple[np.ndarray, np.ndarray]:
    """Arcs with positions in their documents, and of each arc the document.

    Args:
        arcs: ``[arcs, 3]``: positions of head (-1: a top) and dependent in all documents, which rise; label.
        scores: what they were decided on.
    """
    lengths = scores.segments.doc_lengths
    doc = np.searchsorted(np.cumsum(lengths), arcs[:, 1], side="right")
    starts = offsets(lengths)[doc]
    heads = np.where(arcs[:, 0] >= 0, arcs[:, 0] - starts, -1)
    return np.stack([heads, arcs[:, 1] - starts, arcs[:, 2]], axis=1), doc


def split_by_doc(rows: np.ndarray, doc: np.ndarray, scores: DocScores) -> list[np.ndarray]:
    """Rows by their documents, whose numbers ``doc`` rise."""
    size = len(scores.segments.doc_lengths)
    return np.split(rows, np.searchsorted(doc, np.arange(1, size))) if size else []


def named_arcs(arcs: Iterable[Sequence[int]], labels: Sequence[str]) -> list[tuple[int, int, str]]:
    """Arcs with their labels; a top has the head -1 and no label."""
    return [(head, dep, labels[label] if head >= 0 else "") for head, dep, label in arcs]


def arcs_and_tops(
    named: Iterable[tuple[int, int, str]],
) -> tuple[list[tuple[int, int, str]], list[int]]:
    """Arcs with the head -1 apart from the others, as ``set_graph`` takes them."""
    named = list(named)
    return [arc for arc in named if arc[0] >= 0], [dep for head, dep, _ in named if head < 0]


def weigh_by_key(nlp: Language | None) -> None:
    """Have the scores of all graphs that a pipeline makes count, and be shown, in training.

    Args:
        nlp: the pipeline, if there is one.
    """
    if nlp is not None:
        makers = [pipe for _, pipe in nlp.components if getattr(pipe, "kind", None) == "graph"]
        keys = [key for pipe in makers for key in pipe.keys]
        weights_by_key(nlp.config["training"]["score_weights"], keys)
