"""Marginals and entropy of the trees, or graphs, of a list of documents."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from diffdecode.structure import SemanticGraph, TreeKind
from spacy_components.confidence.annotations import ARC_PROBS, GRAPH_ENTROPY, HEAD_PROBS, TREE_ENTROPY
from spacy_components.confidence.graph_distribution import entropy, marginals
from spacy_components.ml.segments import SegmentBatch
from spacy_components.ml.trees.models import DocScores
from spacy_components.ml.trees.sentences import trees_of


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
            those with this arc; 1 for white space, whose head is given), and the entropy of the document's
            trees in nats, the sum of that of its segments, which are independent.
        scores: the scores.
        trees: which trees there are.
        chosen: for each batch of segments the heads ``[B, N]`` (0 = root) that are asked about.
        temperature: what the scores are divided by.

    Returns:
        by these names a value for each document: a list, one probability a token; and a number.
    """
    if not names:
        return {}
    probs = np.ones(scores.segments.size)
    entropies = np.zeros(len(scores.segments.doc_lengths))
    for part, heads in zip(scores.scores, chosen):
        heads = heads.clamp(min=0)[:, :, None]
        arcs = _beside_chosen(part.arcs, heads, temperature)
        of_arcs, log_partition = trees_of(part.batch, trees).marginals(arcs, part.lengths)
        if HEAD_PROBS in names:
            of_heads, is_word = of_arcs[:, 1:].gather(2, heads).squeeze(2), part.batch.is_word
            probs[part.batch.tokens[is_word]] = of_heads.clamp(0, 1).cpu().numpy()[is_word]
        if TREE_ENTROPY in names:
            arcs.masked_fill_(of_arcs == 0, 0)
            expected = torch.linalg.vecdot(of_arcs.flatten(1), arcs.flatten(1))
            _add_up(entropies, part.batch, scores, log_partition - expected)
    by_name = {
        HEAD_PROBS: [values.tolist() for values in scores.segments.by_doc(probs)],
        TREE_ENTROPY: entropies.tolist(),
    }
    return {name: by_name[name] for name in names}


def _beside_chosen(arcs: Tensor, heads: Tensor, temperature: float) -> Tensor:
    """Scores measured from that of each word's chosen arc, of ``heads [B, N, 1]``, in float64.

    That changes no probability, and the log-partition and the expected score are small numbers then, whose
    difference is exact.
    """
    arcs = arcs.to(torch.float64, copy=True)
    if temperature != 1:
        arcs /= temperature
    arcs[:, 1:] -= arcs[:, 1:].gather(2, heads)
    return arcs


def _add_up(totals: np.ndarray, batch: SegmentBatch, scores: DocScores, of_segments: Tensor) -> None:
    """Add numbers that are not negative, ``[B]`` of segments, to those of their documents."""
    ends = np.cumsum(scores.segments.doc_lengths)
    doc = np.searchsorted(ends, batch.tokens[:, 0], side="right")
    np.add.at(totals, doc, of_segments.clamp(min=0).cpu().numpy())


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
        of_arcs = [p[graph.labels >= 0].clamp(0, 1).cpu().numpy() for p, graph in zip(probs, chosen)]
        found[ARC_PROBS] = np.concatenate([np.zeros(0), *of_arcs])
    if GRAPH_ENTROPY in names:
        entropies = np.zeros(len(scores.segments.doc_lengths))
        for part in scores.scores:
            _add_up(entropies, part.batch, scores, entropy(part, temperature))
        found[GRAPH_ENTROPY] = entropies.tolist()
    return found
