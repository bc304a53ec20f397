"""How far a parser has moved from what it was: distances between two parsers' scores of the same words.

All are sums over the words, differentiable in the present scores; the original's take no gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from diffdecode.structure import TreeKind, possible_arcs
from spacy_components.ml.trees.scorers import TreeScores

ArcDrift = Callable[[Tensor, Tensor, Tensor, TreeKind], Tensor]
"""Present and original ``arcs [B, N+1, N+1]``, ``lengths [B]``, which trees there are -> a scalar."""


@dataclass(frozen=True)
class Drift:
    """A penalty for scores that are not those of before. In a config: ``@misc = "diffdecode.drift.v1"``.

    Attributes:
        kind: ``kl`` (of each decision by itself) or ``l2`` (of the scores); of trees also ``tree_kl``.
        weight: what the penalty, a sum over all words, is multiplied with.
    """

    kind: str = "kl"
    weight: float = 1.0

    def __post_init__(self):
        if not self.weight >= 0:
            raise ValueError(f"the weight of a drift must be 0 or more, got {self.weight!r}")


def drift(kind: str, now: TreeScores, original: TreeScores, trees: TreeKind) -> Tensor:
    """Drift of the arcs, and of the labels that the two parsers would give to the original's heads.

    Args:
        kind: a name in ``DRIFTS``.
        now: the parser's scores.
        original: the original's scores of the same segments.
        trees: which trees there are.

    Returns:
        a scalar.
    """
    of_arcs, of_labels = DRIFTS[kind]
    arcs = original.arcs.detach()
    heads = arcs[:, 1:].masked_fill(~_possible(arcs, now.lengths), -torch.inf).argmax(2)
    words = torch.arange(heads.shape[1], device=heads.device) < now.lengths[:, None]
    labels = now.label_scores(heads)[words], original.label_scores(heads)[words].detach()
    return of_arcs(now.arcs, arcs, now.lengths, trees) + of_labels(*labels)


def kl_of_heads(arcs: Tensor, original: Tensor, lengths: Tensor, trees: TreeKind) -> Tensor:
    """``sum_j KL(p_original(head of j) || p_now(head of j))``, each head by itself."""
    possible = _possible(original, lengths)
    rows = possible.any(2)
    now, before = (scores[:, 1:].masked_fill(~possible, -torch.inf)[rows] for scores in (arcs, original))
    return kl_of_rows(now, before)


def kl_of_trees(arcs: Tensor, original: Tensor, lengths: Tensor, trees: TreeKind) -> Tensor:
    """``KL(p_original(tree) || p_now(tree)) = log Z_now - log Z_original - <mu, s_now - s_original>``

    with ``p(tree) ∝ exp s(tree)`` and the original's marginals ``mu``.
    """
    mu, log_z_original = trees.marginals(original, lengths)
    log_z = trees.log_partition(arcs, lengths)
    moved = (mu > 0) & torch.isfinite(original)
    difference = torch.where(moved, arcs - original, 0.0)
    return (log_z - log_z_original - (mu * difference).sum((1, 2))).sum()


def l2_of_scores(arcs: Tensor, original: Tensor, lengths: Tensor, trees: TreeKind) -> Tensor:
    """``sum_j mean_i (s_now(i -> j) - s_original(i -> j))^2 / 2`` over the possible heads ``i`` of ``j``."""
    possible = _possible(original, lengths)
    difference = torch.where(possible, arcs[:, 1:] - original[:, 1:], 0.0)
    return ((difference**2).sum(2) / possible.sum(2).clamp(min=1)).sum() / 2


def kl_of_rows(now: Tensor, original: Tensor) -> Tensor:
    """KL of the softmax of each row ``[R, C]``; -inf is impossible in both."""
    before, after = log_softmax(original, 1), log_softmax(now, 1)
    return torch.where(torch.isfinite(before), before.exp() * (before - after), 0.0).sum()


def l2_of_rows(now: Tensor, original: Tensor) -> Tensor:
    """Half the mean squared difference in each row ``[R, C]``, summed over the rows."""
    return ((now - original) ** 2).mean(1).sum() / 2


DRIFTS: dict[str, tuple[ArcDrift, Callable[[Tensor, Tensor], Tensor]]] = {
    "kl": (kl_of_heads, kl_of_rows),
    "tree_kl": (kl_of_trees, kl_of_rows),
    "l2": (l2_of_scores, l2_of_rows),
}


def _possible(original: Tensor, lengths: Tensor) -> Tensor:
    """``[B, N, N+1]``: arcs within the sentence that the original does not forbid."""
    return possible_arcs(lengths, original.shape[1])[:, 1:] & torch.isfinite(original[:, 1:])
