"""All dependency trees, projective or not: the best tree, and the marginals of their distribution."""

from torch import Tensor

from diffdecode.structure.trees.best_tree import best_tree
from diffdecode.structure.trees.marginals import tree_marginals


def nonprojective_tree(scores: Tensor, lengths=None, *, multi_root: bool = False, cost: Tensor | None = None):
    """Best tree of every sentence, crossing arcs allowed (Chu and Liu 1965; Edmonds 1967), without gradient.

    Arguments, result and errors are those of :func:`diffdecode.structure.projective_tree`.
    """
    return best_tree("arborescence", scores, lengths, multi_root, cost)


def nonprojective_marginals(
    scores: Tensor, lengths=None, *, multi_root: bool = False
) -> tuple[Tensor, Tensor]:
    """Arc marginals and log-partition of all trees by the matrix-tree theorem (Koo et al. 2007).

    Arguments, result and errors are those of :func:`diffdecode.structure.projective_marginals`.
    """
    return tree_marginals("matrix_tree", scores, lengths, multi_root)
