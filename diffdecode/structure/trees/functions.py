"""What is done with dependency trees, by name: each function is a method of :class:`.kind.TreeKind`."""

import torch
from torch import Tensor

from diffdecode.structure.trees.kind import TreeKind
from diffdecode.structure.trees.projection import TreeProjection
from diffdecode.structure.trees.tensors import Lengths


def projective_tree(
    scores: Tensor, lengths: Lengths = None, *, multi_root: bool = False, cost: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
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
    return _best(TreeKind(True, multi_root), scores, lengths, cost)


def nonprojective_tree(
    scores: Tensor, lengths: Lengths = None, *, multi_root: bool = False, cost: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Best tree of every sentence, crossing arcs allowed (Chu and Liu 1965; Edmonds 1967), without gradient.

    Args:
        scores, lengths, multi_root, cost: as in :func:`projective_tree`.

    Returns:
        heads ``[B, N]``, or the pair ``(heads, labels)``, as there.

    Raises:
        ValueError: as there.
    """
    return _best(TreeKind(False, multi_root), scores, lengths, cost)


def projective_marginals(
    scores: Tensor, lengths: Lengths = None, *, multi_root: bool = False
) -> tuple[Tensor, Tensor]:
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
    return TreeKind(True, multi_root).marginals(scores, lengths)


def nonprojective_marginals(
    scores: Tensor, lengths: Lengths = None, *, multi_root: bool = False
) -> tuple[Tensor, Tensor]:
    """Arc marginals and log-partition of all trees by the matrix-tree theorem (Koo et al. 2007).

    Args:
        scores, lengths, multi_root: as in :func:`projective_tree`.

    Returns:
        marginals and log-partition ``[B]``, as :func:`projective_marginals`, differentiable likewise.

    Raises:
        ValueError: as in :func:`projective_tree`.
    """
    return TreeKind(False, multi_root).marginals(scores, lengths)


def tree_entropy(
    scores: Tensor, lengths: Lengths = None, *, projective: bool = True, multi_root: bool = False
) -> Tensor:
    """Entropy in nats of ``p(tree) ∝ exp(sum of arc scores)``.

    Args:
        scores, lengths, multi_root: as in :func:`projective_marginals`.
        projective: whether only projective trees count.

    Returns:
        ``[B]``, at least 0, differentiable; computed in float64. Exact to 1e-9 and, for larger scores, to the
        rounding of their sums, about ``1e-16 N S`` for N words and scores of size S: trees without labels
        that are equally good are so at any size. Sentences of many nearly equally good trees with scores
        above some 1e3 take plain torch, and the memory of the reference.

    Raises:
        ValueError: as in :func:`projective_tree`.
    """
    return TreeKind(projective, multi_root).entropy(scores, lengths)


def sample_projective_trees(
    scores: Tensor,
    lengths: Lengths = None,
    samples: int = 1,
    *,
    multi_root: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Independent projective trees from their distribution, top-down through the inside sums.

    Args:
        scores, lengths, multi_root: as in :func:`projective_tree`. samples: how many trees per sentence,
            ``S``.
        generator: of the random numbers, on either device (``None``: that of the scores). The same one
            gives the same trees, on any number of threads and on any device.

    Returns:
        heads ``[S, B, N]`` int64, 0 for the root and -1 beyond the length; with labelled scores, the pair
        ``(heads, labels)``, both ``[S, B, N]``.

    Raises:
        ValueError: as in :func:`projective_tree`.
    """
    return _sample(TreeKind(True, multi_root), scores, lengths, samples, generator)


def sample_nonprojective_trees(
    scores: Tensor,
    lengths: Lengths = None,
    samples: int = 1,
    *,
    multi_root: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Independent trees, projective or not, from their distribution, by the matrix-tree elimination.

    Args:
        scores, lengths, samples, multi_root, generator: as in :func:`sample_projective_trees`.

    Returns:
        heads ``[S, B, N]``, or the pair ``(heads, labels)``, as there.

    Raises:
        ValueError: as in :func:`projective_tree`.
    """
    return _sample(TreeKind(False, multi_root), scores, lengths, samples, generator)


def k_best_trees(
    scores: Tensor,
    lengths: Lengths = None,
    k: int = 10,
    *,
    projective: bool = True,
    multi_root: bool = False,
) -> tuple[Tensor, Tensor]:
    """The ``k`` trees with the highest scores, best first (Lawler 1972).

    Args:
        scores: ``[B, N+1, N+1]``. lengths, multi_root: as in :func:`projective_tree`.
        k: how many trees, ``K``.
        projective: whether only projective trees count.

    Returns:
        heads ``[K, B, N]`` and the trees' scores ``[K, B]`` in float64; heads -1 and score -inf where a
        sentence has fewer than ``k`` trees. No tree comes twice; which of several equally good ones come,
        and in which order, is not specified.

    Raises:
        ValueError: as in :func:`projective_tree`; for labelled scores, or ``k < 1``.
    """
    return TreeKind(projective, multi_root).k_best(scores, lengths, k)


def project_trees(
    point: Tensor,
    lengths: Lengths = None,
    *,
    projective: bool = True,
    multi_root: bool = False,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    max_steps: int | None = None,
) -> TreeProjection:
    """The nearest point of the tree polytope, without gradient. Computed in float64 on the CPU.

    Args:
        point: ``[B, N+1, N+1]``, ``point[b, dependent, head]``; -inf forbids an arc.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).
        projective, multi_root: which trees.
        start: ``[B, N]`` heads of a tree that is likely to be near, as SPIGOT's decision is; ``None`` starts
            from the tree that scores best under ``point``.
        tolerance: stop when the distance to the exact projection is at most this.
        max_steps: stop after so many steps in any case; ``None`` means 20 N + 50.

    Returns:
        the projection ``[B, N+1, N+1]``, with a bound on its error.

    Raises:
        ValueError: naming the batch row, for NaN, +inf, a sentence without a tree, or an impossible length.
    """
    kind = TreeKind(projective, multi_root)
    return kind.project(point, lengths, start=start, tolerance=tolerance, max_steps=max_steps)


def _best(
    trees: TreeKind, scores: Tensor, lengths: Lengths, cost: Tensor | None
) -> Tensor | tuple[Tensor, Tensor]:
    decide = trees.best_labelled if scores.dim() == 4 else trees.best
    return decide(scores, lengths, cost=cost)


def _sample(
    trees: TreeKind, scores: Tensor, lengths: Lengths, samples: int, generator: torch.Generator | None
) -> Tensor | tuple[Tensor, Tensor]:
    draw = trees.sample_labelled if scores.dim() == 4 else trees.sample
    return draw(scores, lengths, samples, generator=generator)
