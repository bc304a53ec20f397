"""The k best dependency trees of every sentence, exactly: the best trees of ever smaller sets of trees."""

import heapq
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffdecode.moves import moved
from diffdecode.structure.kernels.status import OK, PADDING
from diffdecode.structure.trees.checked import checked
from diffdecode.structure.trees.tensors import Lengths, check_inputs, tree_scores

if TYPE_CHECKING:
    from diffdecode.structure.trees.kind import TreeKind


@torch.no_grad()
def k_best(trees: "TreeKind", scores: Tensor, lengths: Lengths, k: int) -> tuple[Tensor, Tensor]:
    """See :func:`diffdecode.structure.k_best_trees`.

    The trees other than the best one fall into sets: those that agree with it on the heads of words ``1 ..
    i-1`` but not on that of word ``i``. The best tree of each set is a candidate, and when it is taken its
    own set falls apart in the same way. So a tree costs ``N`` decisions, which are made in one batch; on the
    CPU, wherever the scores are, since each step depends on the trees of the one before.
    """
    if k < 1 or scores.dim() != 3:
        raise ValueError(f"expected k >= 1 and scores [B, N+1, N+1], got {k} and {list(scores.shape)}")
    device = scores.device
    scores, lengths = check_inputs(scores.detach().to("cpu", torch.float64), _on_cpu(lengths))
    decide = trees.algorithms(scores.device).best
    (best,) = checked(decide, trees, scores.contiguous(), lengths)
    heads = torch.full((k, *best.shape), PADDING, dtype=torch.int64, device=scores.device)
    totals = torch.full((k, len(scores)), -torch.inf, dtype=torch.float64, device=scores.device)
    for b, n in enumerate(lengths.tolist()):
        found = _k_best(decide, scores[b, : n + 1, : n + 1], best[b, :n], k, trees.multi_root)
        for rank, (total, tree) in enumerate(found):
            heads[rank, b, :n], totals[rank, b] = tree, total
    return moved(heads, device), moved(totals, device)


def _on_cpu(lengths: Lengths) -> Lengths:
    return lengths.cpu() if isinstance(lengths, Tensor) else lengths


def _k_best(
    decide: Callable, scores: Tensor, best: Tensor, k: int, multi_root: bool
) -> Iterator[tuple[float, Tensor]]:
    """Up to ``k`` pairs (score, heads ``[n]``) of one sentence, whose best tree is given."""
    number, taken = count(), 0
    total = float(tree_scores(scores[None], best[None]))
    # Candidates: best tree of a set, the set's scores (-inf forbids), how many first words have their head.
    candidates = [(-total, next(number), best, scores, 0)]
    while candidates and taken < k:
        loss, _, tree, of_set, settled = heapq.heappop(candidates)
        yield -loss, tree
        taken += 1
        if taken == k or settled == len(tree):
            continue
        sets = _without(of_set, tree, settled)
        lengths = torch.full((len(sets),), len(tree), device=scores.device)
        found, status = decide(sets, lengths, multi_root)
        for i in (status == OK).nonzero().flatten().tolist():
            total = float(tree_scores(scores[None], found[i : i + 1]))
            heapq.heappush(candidates, (-total, next(number), found[i], sets[i], settled + i))


def _without(of_set: Tensor, tree: Tensor, settled: int) -> Tensor:
    """Scores ``[R, n+1, n+1]`` of the sets that all trees of a set fall into, except for ``tree``."""
    n = len(tree)
    head_of_tree = torch.zeros(n + 1, n + 1, dtype=torch.bool, device=tree.device)
    head_of_tree[1:].scatter_(1, tree[:, None], True)
    first_other = torch.arange(settled, n, device=tree.device)[:, None] + 1
    position = torch.arange(n + 1, device=tree.device)[None]
    agrees, differs = position < first_other, position == first_other
    forbidden = (agrees[:, :, None] & ~head_of_tree) | (differs[:, :, None] & head_of_tree)
    return of_set.masked_fill(forbidden, -torch.inf)
