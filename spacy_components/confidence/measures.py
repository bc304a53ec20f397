"""Marginals and entropy of the trees, or graphs, of a list of documents."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from thinc.api import NumpyOps
from torch import Tensor

from diffdecode.moves import on_cpu
from diffdecode.structure import SemanticGraph, TreeKind, looked_at_once
from spacy_components.confidence.annotations import ARC_PROBS, GRAPH_ENTROPY, HEAD_PROBS, TREE_ENTROPY
from spacy_components.confidence.graph_distribution import entropy, marginals
from spacy_components.ml.segments import SegmentBatch, SegmentedDocs
from spacy_components.ml.trees.models import DocScores
from spacy_components.ml.trees.scorers import TreeScores
from spacy_components.ml.trees.sentences import trees_of
from spacy_components.ml.trees.soft_trees import WordPairs


@torch.no_grad()
def measure(
    names: Collection[str],
    scores: DocScores,
    trees: TreeKind,
    chosen: Sequence[Tensor],
    temperature: float = 1.0,
) -> dict[str, list]:
    """What a parser can write on a document about its confidence; marginals are computed once for all of it.

    Args:
        names: in ``CONFIDENCE``: the marginal probability of each token's head (of all trees of its segment,
            those with this arc; 1 for white space, whose head is given); the entropy of the document's
            trees in nats, the sum of that of its segments, which are independent; and the probabilities of
            all arcs between words of a segment, and of those of white space.
        scores: the scores.
        trees: which trees there are.
        chosen: for each batch of segments the heads ``[B, N]`` (0 = root) that are asked about.
        temperature: what the scores are divided by.

    Returns:
        by these names a value for each document: a list, one probability a token; a number; and the columns
        of a ``SoftTree``, with the number of ``tokens``.
    """
    if not names:
        return {}
    probs = np.ones(scores.segments.size)
    entropies = np.zeros(len(scores.segments.doc_lengths))

    def measured() -> list[tuple[Tensor, Tensor, Tensor | None]]:
        pairs = zip(scores.scores, chosen)
        return [_of_trees(part, trees, heads, temperature, names) for part, heads in pairs]

    found = looked_at_once(measured)
    of_words, of_segments = (on_cpu([of_part[i] for of_part in found]) for i in (0, 1))
    for part, of_heads, of_segment in zip(scores.scores, of_words, of_segments):
        is_word = part.batch.is_word
        probs[part.batch.tokens[is_word]] = of_heads.numpy()[is_word]
        _add_up(entropies, part.batch, scores, of_segment)
    by_name = {
        HEAD_PROBS: [values.tolist() for values in scores.segments.by_doc(probs)],
        TREE_ENTROPY: entropies.tolist(),
    }
    if ARC_PROBS in names:
        by_name[ARC_PROBS] = _arc_probs(scores.segments, [arcs for _, _, arcs in found if arcs is not None])
    return {name: by_name[name] for name in names}


def _arc_probs(segments: SegmentedDocs, marginals: Sequence[Tensor]) -> list[dict[str, Any]]:
    """What ``soft_tree`` gives back, of each document."""
    pairs = WordPairs(segments)
    (probs,) = on_cpu([pairs.probs(marginals)])
    trees = pairs.by_doc(NumpyOps(), probs.numpy())
    return [{"tokens": int(length), **tree._asdict()} for length, tree in zip(segments.doc_lengths, trees)]


def _of_trees(
    part: TreeScores, trees: TreeKind, heads: Tensor, temperature: float, names: Collection[str]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of a batch of segments the probability of each word's head ``[B, N]``, the entropies ``[B]``, and the
    probabilities of all arcs ``[B, N+1, N+1]``, which are kept only where they are written."""
    kind, arcs = trees_of(part.batch, trees), part.arcs.double() / temperature
    measured = kind.marginals_and_entropy if TREE_ENTROPY in names else kind.marginals
    of_arcs, of_segments = measured(arcs, part.lengths)  # what is not wanted is not read
    of_heads = of_arcs[:, 1:].gather(2, heads.clamp(min=0)[:, :, None]).squeeze(2).clamp(0, 1)
    return of_heads, of_segments, of_arcs if ARC_PROBS in names else None


def _add_up(totals: np.ndarray, batch: SegmentBatch, scores: DocScores, of_segments: Tensor) -> None:
    """Add numbers that are not negative, ``[B]`` of segments (on the CPU), to those of their documents."""
    ends = np.cumsum(scores.segments.doc_lengths)
    doc = np.searchsorted(ends, batch.tokens[:, 0], side="right")
    np.add.at(totals, doc, of_segments.clamp(min=0).numpy())


@torch.no_grad()
def measure_graphs(
    names: Collection[str], scores: DocScores, chosen: Sequence[SemanticGraph], temperature: float = 1.0
) -> dict[str, np.ndarray | list]:
    """The same of graphs, determinism left out.

    Args:
        names: in ``GRAPH_CONFIDENCE``: the marginal probability of each labelled arc, and the entropy of the
            document's graphs in nats.
        scores: the scores.
        chosen: for each batch of segments the graphs that are asked about.
        temperature: what the scores are divided by.

    Returns:
        by these names: of all arcs ``[arcs]``, in the order in which ``GraphDecoder.arcs`` has them; and a
        number for each document.
    """
    found: dict[str, np.ndarray | list] = {}
    if ARC_PROBS in names:
        probs = [
            marginals(part, temperature).labels.gather(3, graph.labels.clamp(min=0).unsqueeze(3)).squeeze(3)
            for part, graph in zip(scores.scores, chosen)
        ]
        here = zip(on_cpu(probs), on_cpu([graph.labels for graph in chosen]))
        of_arcs = [p[labels >= 0].clamp(0, 1).numpy() for p, labels in here]
        found[ARC_PROBS] = np.concatenate([np.zeros(0), *of_arcs])
    if GRAPH_ENTROPY in names:
        entropies = np.zeros(len(scores.segments.doc_lengths))
        of_segments = on_cpu([entropy(part, temperature) for part in scores.scores])
        for part, of_part in zip(scores.scores, of_segments):
            _add_up(entropies, part.batch, scores, of_part)
        found[GRAPH_ENTROPY] = entropies.tolist()
    return found
