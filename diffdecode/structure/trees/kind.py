"""Which trees: the one object that says so, and everything that is done with a set of trees."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecode.structure.kernels import TreeAlgorithms, backend
from diffdecode.structure.trees import marginals as distributions
from diffdecode.structure.trees.best_tree import best_tree
from diffdecode.structure.trees.k_best import k_best
from diffdecode.structure.trees.projection import TreeProjection, project
from diffdecode.structure.trees.sampling import sample_trees
from diffdecode.structure.trees.tensors import Lengths, check_inputs


@dataclass(frozen=True)
class TreeKind:
    """A set of dependency trees over each sentence's words.

    All methods take ``scores [B, N+1, N+1]`` (``scores[b, dependent, head]``, position 0 the root, -inf
    forbids) and ``lengths [B]`` (``None``: all ``N``). What they return and raise is written at the functions
    of the same purpose in :mod:`diffdecode.structure.trees.functions`.

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

    def best(
        self, scores: Tensor, lengths: Lengths = None, *, cost: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Heads ``[B, N]`` of the best trees, and labels for scores ``[B, N+1, N+1, L]``."""
        return best_tree(self, scores, lengths, cost)

    def marginals(self, scores: Tensor, lengths: Lengths = None) -> tuple[Tensor, Tensor]:
        """Probabilities of the arcs, shaped as ``scores``, and log-partition ``[B]``; differentiable."""
        return distributions.tree_marginals(self, scores, lengths)

    def log_partition(self, scores: Tensor, lengths: Lengths = None) -> Tensor:
        """``[B]``: the logarithm of the summed exponentiated scores of all trees; differentiable."""
        return self.marginals(scores, lengths)[1]

    def entropy(self, scores: Tensor, lengths: Lengths = None) -> Tensor:
        """``[B]``, in nats, of the trees' distribution; differentiable."""
        return distributions.entropy_of(self, scores, lengths)

    def covariance_product(self, scores: Tensor, lengths: Lengths, vector: Tensor) -> Tensor:
        """The arcs' covariance times ``vector [B, N+1, N+1]``: the Jacobian of the marginals, applied."""
        scores, lengths = check_inputs(scores, lengths)
        return distributions.covariance_product(self, scores, lengths, vector)

    def sample(
        self,
        scores: Tensor,
        lengths: Lengths = None,
        samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Heads ``[S, B, N]`` of independent samples, and labels for labelled scores."""
        return sample_trees(self, scores, lengths, samples, generator)

    def k_best(self, scores: Tensor, lengths: Lengths = None, k: int = 10) -> tuple[Tensor, Tensor]:
        """Heads ``[K, B, N]`` of the best trees, best first, and their scores ``[K, B]`` in float64."""
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
        """The nearest point of the hull of the trees."""
        return project(self, point, lengths, start, tolerance, max_steps)
