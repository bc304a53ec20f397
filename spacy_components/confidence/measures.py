"""Marginals and entropy of the trees of a list of documents."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from diffdecode.structure import TreeKind
from spacy_components.confidence.annotations import HEAD_PROBS, TREE_ENTROPY
from spacy_components.ml.trees.models import DocScores
from spacy_components.ml.trees.sentences import trees_of


@torch.no_grad()
def head_probs(scores: DocScores, trees: TreeKind, chosen: Sequence[Tensor]) -> list[list[float]]:
    """The marginal probability of each token's head: of all trees of its segment, those with this arc.

    Args:
        scores: the scores.
        trees: which trees there are.
        chosen: for each batch of segments the heads ``[B, N]`` (0 = root) that are asked about.

    Returns:
        for each document a value a token, 1 for white space, whose head is given.
    """
    found = np.ones(scores.segments.size)
    for part, heads in zip(scores.scores, chosen):
        marginals, _ = trees_of(part.batch, trees).marginals(part.arcs, part.lengths)
        of_heads = marginals[:, 1:].gather(2, heads.clamp(min=0)[:, :, None]).squeeze(2).clamp(0, 1)
        is_word = part.batch.is_word
        found[part.batch.tokens[is_word]] = of_heads.cpu().numpy()[is_word]
    return [values.tolist() for values in scores.segments.by_doc(found)]


@torch.no_grad()
def tree_entropy(scores: DocScores, trees: TreeKind, chosen: Sequence[Tensor]) -> list[float]:
    """The entropy of each document's trees, in nats: the sum of that of its segments, which are independent.

    Args:
        scores: the scores.
        trees: which trees there are.
        chosen: not used; every tree counts.

    Returns:
        a value for each document.
    """
    stops = np.cumsum(scores.segments.doc_lengths)
    found = np.zeros(len(stops))
    for part in scores.scores:
        entropy = trees_of(part.batch, trees).entropy(part.arcs, part.lengths)
        doc = np.searchsorted(stops, part.batch.tokens[:, 0], side="right")
        np.add.at(found, doc, entropy.cpu().numpy())
    return found.tolist()


MEASURES: dict[str, Callable[[DocScores, TreeKind, Sequence[Tensor]], list]] = {
    HEAD_PROBS: head_probs,
    TREE_ENTROPY: tree_entropy,
}
"""How what a parser can write on a document is computed."""
