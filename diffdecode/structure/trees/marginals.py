"""Marginals and log-partition as differentiable functions, whatever kernel computes them.

For ``p(tree) ∝ exp(scores . tree)``: the gradient of the log-partition is the marginals ``mu``, and the
Jacobian of the marginals is the covariance ``Sigma`` of the arcs. So the backward pass of one is the other,
and the backward pass of ``mu`` is one covariance product ``Sigma v``, which kernels compute directly.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffdecode.structure.kernels import kernel, reference
from diffdecode.structure.trees.checked import checked_kernel
from diffdecode.structure.trees.tensors import check_inputs

LOG_PARTITIONS = {
    "inside_outside": reference.inside_log_partition,
    "matrix_tree": reference.matrix_tree_log_partition,
}


def tree_marginals(algorithm: str, scores: Tensor, lengths, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Marginals and log-partition by the named kernel; see :func:`projective_marginals`."""
    scores, lengths = check_inputs(scores, lengths)
    if scores.dim() == 3:
        return _TreeMarginals.apply(scores, lengths, multi_root, algorithm)
    arc_scores = reference.log_sum(scores, 3)
    marginals, log_partition = _TreeMarginals.apply(arc_scores, lengths, multi_root, algorithm)
    return marginals.unsqueeze(-1) * _label_probabilities(scores, arc_scores), log_partition


def tree_entropy(
    scores: Tensor, lengths=None, *, projective: bool = True, multi_root: bool = False
) -> Tensor:
    """Entropy in nats of ``p(tree) ∝ exp(sum of arc scores)``: the log-partition less the expected score.

    Args:
        scores, lengths, multi_root: as in :func:`diffdecode.structure.projective_marginals`.
        projective: whether only projective trees count.

    Returns:
        ``[B]``, differentiable; computed in float64, since two large numbers are subtracted.
    """
    algorithm = "inside_outside" if projective else "matrix_tree"
    marginals, log_partition = tree_marginals(algorithm, scores.double(), lengths, multi_root)
    read = marginals != 0
    expected = torch.where(read, marginals * scores.double().where(read, 0), 0)
    entropy = log_partition - expected.flatten(1).sum(1)
    return entropy.to(torch.promote_types(scores.dtype, torch.float32))


def _label_probabilities(scores: Tensor, arc_scores: Tensor) -> Tensor:
    """``p(label | arc)``, 0 for an arc with no possible label."""
    possible = (arc_scores > -torch.inf).unsqueeze(-1) & (scores > -torch.inf)
    shifted = scores.masked_fill(~possible, 0) - arc_scores.masked_fill(
        arc_scores == -torch.inf, 0
    ).unsqueeze(-1)
    return shifted.masked_fill(~possible, -torch.inf).exp()


class _TreeMarginals(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, lengths, multi_root, algorithm):
        scores = scores.contiguous()
        marginals, log_partition = checked_kernel(algorithm, scores, lengths, multi_root)
        marginals = marginals.to(scores.dtype)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(scores, lengths, marginals)
        ctx.multi_root, ctx.algorithm = multi_root, algorithm
        return marginals, log_partition.to(scores.dtype)

    @staticmethod
    def backward(ctx, by_marginals, by_log_partition):
        scores, lengths, marginals = ctx.saved_tensors
        gradient = None
        if by_log_partition is not None:
            gradient = by_log_partition[:, None, None] * marginals
        if by_marginals is not None:
            product = _CovarianceProduct.apply(scores, by_marginals, lengths, ctx.multi_root, ctx.algorithm)
            gradient = product if gradient is None else gradient + product
        return gradient, None, None, None


class _CovarianceProduct(torch.autograd.Function):
    """``Sigma(scores) v``, linear in ``v``; its gradient in ``scores`` comes from the reference."""

    @staticmethod
    def forward(ctx, scores, vector, lengths, multi_root, algorithm):
        ctx.save_for_backward(scores, vector, lengths)
        ctx.multi_root, ctx.algorithm = multi_root, algorithm
        vector = vector.to(scores.dtype).contiguous()
        product = kernel(algorithm + "_covariance_product", scores.device)
        return product(scores, lengths, multi_root, vector).to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        scores, vector, lengths = ctx.saved_tensors
        by_scores = by_vector = None
        if ctx.needs_input_grad[1]:
            with torch.no_grad():
                by_vector = _CovarianceProduct.apply(scores, gradient, lengths, ctx.multi_root, ctx.algorithm)
        if ctx.needs_input_grad[0]:
            with torch.enable_grad():
                leaf = scores.detach().requires_grad_()
                total = LOG_PARTITIONS[ctx.algorithm](leaf, lengths, ctx.multi_root).sum()
                product = reference.covariance_product(total, leaf, vector.detach(), create_graph=True)
                (by_scores,) = torch.autograd.grad(product, leaf, gradient)
        return by_scores, by_vector, None, None, None
