"""Which trees: the one object that says so, and everything that is done with a set of trees."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.kernels import TreeAlgorithms, backend
from diffdecode.structure.trees import marginals as distributions
from diffdecode.structure.trees.best_tree import best_labelled_tree, best_tree
from diffdecode.structure.trees.entropy import marginals_and_entropy
from diffdecode.structure.trees.k_best import k_best
from diffdecode.structure.trees.projection import TreeProjection, project
from diffdecode.structure.trees.sampling import sample_labelled_trees, sample_trees
from diffdecode.structure.trees.tensors import Lengths, check_inputs


@dataclass(frozen=True)
class TreeKind:
    """A set of dependency trees over each sentence's words.

    Every method raises ``ValueError``, naming the batch row, for NaN, +inf, a sentence without such a tree,
    or an impossible length. More is written at the functions by name, which these methods are behind.

    Attributes:
        projective: no two arcs cross, those of the root before the first word included.
        multi_root: several words may hang on the root.
    """

    projective: bool = True
    multi_root: bool = False

    def __str__(self) -> str:
        return f"{'' if self.multi_root else 'single-root '}{'projective ' if self.projective else ''}tree"

    def algorithms(self, device: torch.device) -> TreeAlgorithms:
        """The kernels for these trees on ``device``."""
        chosen = backend(device)
        return chosen.projective if self.projective else chosen.nonprojective

    def best(self, scores: Tensor, lengths: Lengths = None, *, cost: Tensor | None = None) -> Tensor:
        """The best trees; see :func:`~diffdecode.structure.projective_tree`.

        Args:
            scores: ``[B, N+1, N+1]`` (dependent, head), or ``[B, N+1, N+1, L]`` with labels; -inf forbids.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).
            cost: added to the scores.

        Returns:
            heads ``[B, N]``, 0 for the root and -1 beyond the length.
        """
        return best_tree(self, scores, lengths, cost)

    def best_labelled(
        self, scores: Tensor, lengths: Lengths = None, *, cost: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The best trees with their labels.

        Args:
            scores: ``[B, N+1, N+1, L]``; -inf forbids.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).
            cost: added to the scores.

        Returns:
            heads and labels, both ``[B, N]``.
        """
        return best_labelled_tree(self, scores, lengths, cost)

    def marginals(self, scores: Tensor, lengths: Lengths = None) -> tuple[Tensor, Tensor]:
        """Probabilities of the arcs; see :func:`~diffdecode.structure.projective_marginals`.

        Args:
            scores: ``[B, N+1, N+1]``, or with labels ``[B, N+1, N+1, L]``.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).

        Returns:
            marginals, shaped as ``scores``, and log-partition ``[B]``, both differentiable.
        """
        return distributions.tree_marginals(self, scores, lengths)

    def log_partition(self, scores: Tensor, lengths: Lengths = None) -> Tensor:
        """The logarithm of the summed exponentiated scores of all trees.

        Args:
            scores: ``[B, N+1, N+1]``, or with labels ``[B, N+1, N+1, L]``.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).

        Returns:
            ``[B]``, differentiable.
        """
        return self.marginals(scores, lengths)[1]

    def entropy(self, scores: Tensor, lengths: Lengths = None) -> Tensor:
        """Entropy of the trees' distribution; see :func:`~diffdecode.structure.tree_entropy`.

        Args:
            scores: ``[B, N+1, N+1]``, or with labels ``[B, N+1, N+1, L]``.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).

        Returns:
            ``[B]`` in nats, differentiable.
        """
        return self.marginals_and_entropy(scores, lengths)[1]

    def marginals_and_entropy(self, scores: Tensor, lengths: Lengths = None) -> tuple[Tensor, Tensor]:
        """Both of them at the cost of one.

        Args:
            scores: ``[B, N+1, N+1]``, or with labels ``[B, N+1, N+1, L]``.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).

        Returns:
            marginals, shaped as ``scores``, and entropies ``[B]`` in nats, both differentiable.
        """
        return marginals_and_entropy(self, scores, lengths)

    def covariance_product(self, scores: Tensor, lengths: Lengths, vector: Tensor) -> Tensor:
        """The arcs' covariance times a vector: the Jacobian of the marginals, applied.

        Args:
            scores: ``[B, N+1, N+1]``.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).
            vector: ``[B, N+1, N+1]``.

        Returns:
            ``[B, N+1, N+1]``, differentiable.

        Raises:
            ValueError: wrong shape or lengths. Sentences without a tree are not looked for.
        """
        scores, lengths = check_inputs(scores, lengths)
        return distributions.covariance_product(self, scores, lengths, vector)

    def sample(
        self,
        scores: Tensor,
        lengths: Lengths = None,
        samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent samples; see :func:`~diffdecode.structure.sample_projective_trees`.

        Args:
            scores: ``[B, N+1, N+1]``, or with labels ``[B, N+1, N+1, L]``.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).
            samples: ``S``, how many a sentence.
            generator: of the random numbers, on either device.

        Returns:
            heads ``[S, B, N]``.
        """
        return sample_trees(self, scores, lengths, samples, generator)

    def sample_labelled(
        self,
        scores: Tensor,
        lengths: Lengths = None,
        samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Independent samples with their labels.

        Args:
            scores: ``[B, N+1, N+1, L]``.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).
            samples: ``S``, how many a sentence.
            generator: of the random numbers, on either device.

        Returns:
            heads and labels, both ``[S, B, N]``.
        """
        return sample_labelled_trees(self, scores, lengths, samples, generator)

    def k_best(self, scores: Tensor, lengths: Lengths = None, k: int = 10) -> tuple[Tensor, Tensor]:
        """The best trees, best first; see :func:`~diffdecode.structure.k_best_trees`.

        Args:
            scores: ``[B, N+1, N+1]``.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).
            k: how many trees.

        Returns:
            heads ``[K, B, N]`` and the trees' scores ``[K, B]`` in float64.
        """
        return k_best(self, scores, lengths, k)

    def project(
        self,
        point: Tensor,
        lengths: Lengths = None,
        *,
        start: Tensor | None = None,
        tolerance: float = 1e-6,
        max_steps: int | None = None,
    ) -> TreeProjection:
        """The nearest point of the hull of the trees; see :func:`~diffdecode.structure.project_trees`.

        Args:
            point: ``[B, N+1, N+1]``.
            lengths: ``[B]`` words per sentence (``None``: all ``N``).
            start: ``[B, N]`` heads of trees that are likely to be near.
            tolerance: stop when the distance to the exact projection is at most this.
            max_steps: stop after so many steps in any case.

        Returns:
            the projection ``[B, N+1, N+1]``, with a bound on its error.
        """
        return project(self, point, lengths, start, tolerance, max_steps)
