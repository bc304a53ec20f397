"""The functions of :mod:`diffdecode.structure.reference`, compiled by numba, on tensors.

Tensors of another device take a round trip through the CPU.
"""

import numpy as np
import torch
from torch import Tensor

from diffdecode.structure.kernels import (
    numba_edmonds,
    numba_eisner,
    numba_inside_outside,
    numba_matrix_tree,
    numba_sampling,
)
from diffdecode.structure.kernels.numba_checks import LARGEST
from diffdecode.structure.kernels.threads import run_over_batch


def eisner(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Best projective trees; see :func:`diffdecode.structure.reference.eisner`."""
    return _decide(
        numba_eisner.eisner, lambda n: 1e-7 + 2e-8 * n**2 + 7e-11 * n**3, scores, lengths, multi_root
    )


def arborescence(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Best trees; see :func:`diffdecode.structure.reference.arborescence`."""
    return _decide(numba_edmonds.arborescence, lambda n: 1e-7 + 4e-9 * n**2, scores, lengths, multi_root)


def inside_outside(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Projective marginals; see :func:`diffdecode.structure.reference.inside_outside`."""
    return _marginals(
        numba_inside_outside.inside_outside, _inside_outside_seconds, scores, lengths, multi_root
    )


def inside_outside_covariance_product(scores, lengths, multi_root: bool, vector: Tensor) -> Tensor:
    """See :func:`diffdecode.structure.reference.inside_outside_covariance_product`."""
    kernel = numba_inside_outside.covariance_product
    return _product(kernel, lambda n: 4 * _inside_outside_seconds(n), scores, lengths, multi_root, vector)


def matrix_tree(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Marginals of all trees; see :func:`diffdecode.structure.reference.matrix_tree`."""
    return _marginals(numba_matrix_tree.matrix_tree, _matrix_tree_seconds, scores, lengths, multi_root)


def matrix_tree_covariance_product(scores, lengths, multi_root: bool, vector: Tensor) -> Tensor:
    """See :func:`diffdecode.structure.reference.matrix_tree_covariance_product`."""
    kernel = numba_matrix_tree.covariance_product
    return _product(kernel, lambda n: 4 * _matrix_tree_seconds(n), scores, lengths, multi_root, vector)


def _inside_outside_seconds(n):
    return 1e-6 + 1e-8 * n**2 + 3e-10 * n**3


def sample_projective(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`diffdecode.structure.reference.sample_projective`."""
    _, status = eisner(scores, lengths, multi_root)
    seconds = lambda n: 1e-6 + 4e-8 * n**2 + 1e-10 * n**3 + 1e-8 * n**2 * len(seeds)  # noqa: E731
    return _sample(numba_sampling.sample_projective, seconds, scores, lengths, multi_root, seeds, status)


PATIENCE = 300
"""Steps a word that Wilson's algorithm may waste before trees are sampled word by word."""


def sample_arborescence(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor, patience: int = PATIENCE
) -> tuple[Tensor, Tensor]:
    """See :func:`diffdecode.structure.reference.sample_arborescence`, whatever the ``patience``."""
    _, status = arborescence(scores, lengths, multi_root)
    seconds = lambda n: 2 * _matrix_tree_seconds(n) + 5e-7 * n * len(seeds)  # noqa: E731
    kernel = numba_sampling.sample_arborescence
    return _sample(kernel, seconds, scores, lengths, multi_root, seeds, status, patience)


def _matrix_tree_seconds(n):
    return 1e-6 + 1e-8 * n**2 + 2e-10 * n**3


def _decide(kernel, seconds, scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Run a decision kernel whose sentence of ``n`` words takes about ``seconds(n)``."""
    scores_, lengths_ = _array(scores), _array(lengths)
    heads = np.empty((len(scores_), scores_.shape[1] - 1), np.int64)
    status = np.empty(len(scores_), np.int8)
    largest = scores_.dtype.type(LARGEST[scores_.dtype])
    run_over_batch(kernel, seconds(lengths_), scores_, lengths_, multi_root, largest, heads, status)
    return _tensor(heads, scores.device), _tensor(status, scores.device)


def _marginals(kernel, seconds, scores, lengths, multi_root):
    scores_, lengths_ = _array(scores), _array(lengths)
    marginals = np.empty_like(scores_)
    log_partition = np.empty(len(scores_))
    status = np.empty(len(scores_), np.int8)
    largest = scores_.dtype.type(LARGEST[scores_.dtype])
    results = marginals, log_partition, status
    run_over_batch(kernel, seconds(lengths_), scores_, lengths_, multi_root, largest, *results)
    return tuple(_tensor(result, scores.device) for result in results)


def _product(kernel, seconds, scores, lengths, multi_root, vector):
    scores_, lengths_, vector_ = _array(scores), _array(lengths), _array(vector)
    product = np.empty_like(scores_)
    run_over_batch(kernel, seconds(lengths_), scores_, lengths_, multi_root, vector_, product)
    return _tensor(product, scores.device)


def _sample(kernel, seconds, scores, lengths, multi_root, seeds, status, *options):
    """Run a sampling kernel on the sentences that have a tree."""
    scores_, lengths_, seeds_ = _array(scores), _array(lengths), _array(seeds).view(np.uint64)
    heads = np.empty((*seeds.shape, scores_.shape[1] - 1), np.int64)
    if not status.any():
        run_over_batch(kernel, seconds(lengths_), scores_, lengths_, multi_root, *options, seeds_, heads)
    return _tensor(heads, scores.device), status


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().numpy()


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
