"""Projective dependency trees: the best tree, and the marginals of their distribution."""

from torch import Tensor

from diffdecode.structure.trees.best_tree import best_tree
from diffdecode.structure.trees.marginals import tree_marginals


def projective_tree(scores: Tensor, lengths=None, *, multi_root: bool = False, cost: Tensor | None = None):
    """Best projective tree of every sentence (Eisner 2000), without gradient.

    Args:
        scores: ``[B, N+1, N+1]``, ``scores[b, dependent, head]`` with position 0 the root and ``-inf`` for
            forbidden arcs; or ``[B, N+1, N+1, L]`` with labels. Any device and floating dtype.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).
        multi_root: whether several words may hang on the root.
        cost: added to the scores, for cost-augmented decoding, for instance ``1 - heads_to_arcs(gold)``.

    Returns:
        heads ``[B, N]`` int64, 0 for the root and -1 beyond the length; with labelled scores, the pair
        ``(heads, labels)``, both ``[B, N]``. Ties: see :mod:`diffdecode.structure.kernels.reference`.

    Raises:
        ValueError: naming the batch row, for NaN, +inf, a sentence without a tree, or an impossible length.
    """
    return best_tree("eisner", scores, lengths, multi_root, cost)


def projective_marginals(scores: Tensor, lengths=None, *, multi_root: bool = False) -> tuple[Tensor, Tensor]:
    """Arc marginals and log-partition of the distribution ``p(tree) ∝ exp(sum of arc scores)``.

    Inside-outside (Baker 1979 over Eisner's items). Differentiable twice: the gradient of the log-partition
    is the marginals, and the vector-Jacobian product of the marginals is the covariance product ``Sigma
    v``.

    Args:
        scores, lengths, multi_root: as in :func:`projective_tree`.

    Returns:
        marginals, of the shape of ``scores`` (0 outside the sentence), and log-partition ``[B]``.

    Raises:
        ValueError: as in :func:`projective_tree`.
    """
    return tree_marginals("inside_outside", scores, lengths, multi_root)
