"""The functions of :mod:`diffdecode.structure.kernels.reference` that run on the GPU by Triton."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from diffdecode.structure.kernels.base import Backend
from diffdecode.structure.kernels.status import NO_TREE
from diffdecode.structure.kernels.triton import edmonds as triton_edmonds
from diffdecode.structure.kernels.triton import eisner as triton_eisner
from diffdecode.structure.kernels.triton import inside_outside as triton_inside_outside
from diffdecode.structure.kernels.triton import matrix_tree as triton_matrix_tree
from diffdecode.structure.kernels.triton import projections as triton_projections
from diffdecode.structure.kernels.triton import sampling as triton_sampling
from diffdecode.structure.kernels.triton.scores import looked_at, possible


def eisner(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Best projective trees; see :func:`diffdecode.structure.kernels.reference.eisner`."""
    return triton_eisner.best_trees(scores.detach().contiguous(), lengths, multi_root)


def arborescence(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Best trees; see :func:`diffdecode.structure.kernels.reference.arborescence`."""
    return triton_edmonds.best_trees(scores.detach().contiguous(), lengths, multi_root)


def inside_outside(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Arc marginals and log-partition; see :func:`diffdecode.structure.kernels.reference.inside_outside`."""
    status = looked_at(scores.detach().contiguous(), lengths)
    marginals, log_partitions, _ = triton_inside_outside.inside_outside(
        _harmless(scores, status), lengths, multi_root
    )
    return marginals, log_partitions, _without_tree(status, log_partitions)


def inside_outside_covariance_product(
    scores: Tensor, lengths: Tensor, multi_root: bool, vector: Tensor
) -> Tensor:
    """See :func:`diffdecode.structure.kernels.reference.inside_outside_covariance_product`."""
    _, _, product = triton_inside_outside.inside_outside(
        scores.detach(), lengths, multi_root, vector.detach()
    )
    return product


def matrix_tree(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Marginals of all trees; see :func:`diffdecode.structure.kernels.reference.matrix_tree`."""
    return triton_matrix_tree.marginals_and_log_partition(scores.detach().contiguous(), lengths, multi_root)


def matrix_tree_covariance_product(
    scores: Tensor, lengths: Tensor, multi_root: bool, vector: Tensor
) -> Tensor:
    """See :func:`diffdecode.structure.kernels.reference.matrix_tree_covariance_product`."""
    scores, vector = scores.detach().contiguous(), vector.detach().contiguous()
    return triton_matrix_tree.covariance_product(scores, lengths, multi_root, vector)


def sample_projective(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`diffdecode.structure.kernels.reference.sample_projective`."""
    return _samples(triton_sampling.sample_projective, scores, lengths, multi_root, seeds)


def sample_arborescence(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`diffdecode.structure.kernels.reference.sample_arborescence`."""
    return _samples(triton_sampling.sample_arborescence, scores, lengths, multi_root, seeds)


def _samples(
    sample: Callable[..., tuple[Tensor, Tensor]],
    scores: Tensor,
    lengths: Tensor,
    multi_root: bool,
    seeds: Tensor,
) -> tuple[Tensor, Tensor]:
    status = looked_at(scores.detach().contiguous(), lengths)
    heads, log_partitions = sample(_harmless(scores, status).double(), lengths, multi_root, seeds)
    return heads, _without_tree(status, log_partitions)


def _harmless(scores: Tensor, status: Tensor) -> Tensor:
    """Contiguous scores, 0 in bad sentences: NaN would send a walk down out of its charts."""
    return scores.detach().masked_fill((status != 0)[:, None, None], 0).contiguous()


def _without_tree(status: Tensor, totals: Tensor) -> Tensor:
    return torch.where((status == 0) & ~(totals > -torch.inf), NO_TREE, status).to(torch.int8)


def simplex(rows: Tensor) -> Tensor:
    """See :func:`diffdecode.structure.kernels.reference.simplex`."""
    return triton_projections.simplex(rows.contiguous())


def p_dep(point: Tensor, lengths: Tensor) -> Tensor:
    """See :func:`diffdecode.structure.kernels.reference.p_dep`."""
    return triton_projections.p_dep(point.contiguous(), lengths.contiguous())


def over(fallback: Backend) -> Backend:
    """The backend for CUDA: what runs by Triton, and ``fallback`` for all else."""
    return replace(
        fallback,
        name="triton",
        projective=replace(
            fallback.projective,
            best=eisner,
            marginals=inside_outside,
            covariance_product=inside_outside_covariance_product,
            sample=sample_projective,
        ),
        nonprojective=replace(
            fallback.nonprojective,
            best=arborescence,
            marginals=matrix_tree,
            covariance_product=matrix_tree_covariance_product,
            sample=sample_arborescence,
        ),
        simplex=simplex,
        p_dep=p_dep,
        possible=possible,
    )
