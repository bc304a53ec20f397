"""Every dependency tree over a few words, and what follows from having them all."""

import functools
import itertools

import torch


@functools.cache
def all_trees(n: int, projective: bool, multi_root: bool) -> torch.Tensor:
    """``[T, n]`` heads of all trees over ``n`` words (0 = root)."""
    trees = [
        heads
        for heads in itertools.product(range(n + 1), repeat=n)
        if is_tree(heads) and (multi_root or heads.count(0) == 1) and (not projective or is_projective(heads))
    ]
    return torch.tensor(trees)


def is_tree(heads) -> bool:
    """Whether every word reaches the root."""
    for word in range(1, len(heads) + 1):
        steps = 0
        while word != 0:
            word, steps = heads[word - 1], steps + 1
            if steps > len(heads):
                return False
    return True


def is_projective(heads) -> bool:
    """Whether no two arcs cross."""
    arcs = [sorted((word, head)) for word, head in enumerate(heads, 1)]
    return not any(a < c < b < d for a, b in arcs for c, d in arcs)


def score_all(scores: torch.Tensor, n: int, projective: bool, multi_root: bool) -> torch.Tensor:
    """``[B, T]`` float64 scores of all trees under ``scores [B, M, M]`` with ``M > n``."""
    trees = all_trees(n, projective, multi_root)
    return scores.double()[:, torch.arange(1, n + 1), trees].sum(-1)


def enumerated_marginals(scores: torch.Tensor, n: int, projective: bool, multi_root: bool):
    """Marginals ``[B, M, M]`` and log-partition ``[B]`` in float64, differentiable."""
    trees = all_trees(n, projective, multi_root)
    tree_scores = score_all(scores, n, projective, multi_root)
    arcs = torch.zeros(len(trees), *scores.shape[1:], dtype=torch.float64)
    arcs[torch.arange(len(trees))[:, None], torch.arange(1, n + 1), trees] = 1
    marginals = torch.einsum("bt,tij->bij", tree_scores.softmax(1), arcs)
    return marginals, tree_scores.logsumexp(1)
