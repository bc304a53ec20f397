"""Marginals and log-partition as differentiable functions, whatever kernel computes them.

For ``p(tree) ∝ exp(scores . tree)``: the gradient of the log-partition is the marginals ``mu``, and the
Jacobian of the marginals is the covariance ``Sigma`` of the arcs. So the backward pass of one is the other,
and the backward pass of ``mu`` is one covariance product ``Sigma v``, which kernels compute directly.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffdecode.checks import Seen, looks_once
from diffdecode.structure.kernels import reference
from diffdecode.structure.trees.checked import checked
from diffdecode.structure.trees.tensors import Lengths, check_inputs, only_possible

if TYPE_CHECKING:
    from diffdecode.structure.trees.kind import TreeKind


@looks_once
def tree_marginals(trees: "TreeKind", scores: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
    """Marginals and log-partition; see :func:`diffdecode.structure.projective_marginals`."""
    scores, lengths = check_inputs(scores, lengths)
    if scores.dim() == 3:
        return _TreeMarginals.apply(scores, lengths, trees)
    scores = only_possible(scores, lengths)
    arc_scores = reference.log_sum(scores, 3)
    marginals, log_partition = _TreeMarginals.apply(arc_scores, lengths, trees)
    return marginals.unsqueeze(-1) * _label_probabilities(scores, arc_scores), log_partition


def _label_probabilities(scores: Tensor, arc_scores: Tensor) -> Tensor:
    """``p(label | arc)``, 0 for an arc with no possible label."""
    possible = (arc_scores > -torch.inf).unsqueeze(-1) & (scores > -torch.inf)
    shifted = scores.masked_fill(~possible, 0) - arc_scores.masked_fill(
        arc_scores == -torch.inf, 0
    ).unsqueeze(-1)
    return shifted.masked_fill(~possible, -torch.inf).exp()


class _TreeMarginals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, lengths: Tensor, trees: "TreeKind") -> tuple[Tensor, Tensor]:
        scores = scores.contiguous()
        compute = trees.algorithms(scores.device).marginals
        marginals, log_partition = checked(compute, trees, scores, lengths)
        marginals = marginals.to(scores.dtype)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(scores, lengths, marginals)
        ctx.trees, ctx.seen = trees, Seen()
        return marginals, log_partition.to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, by_marginals: Tensor | None, by_log_partition: Tensor | None) -> tuple:
        scores, lengths, marginals = ctx.saved_tensors
        gradient = None
        if by_log_partition is not None:
            gradient = by_log_partition[:, None, None] * marginals
        if by_marginals is not None:
            product = ctx.seen.run(covariance_product, ctx.trees, scores, lengths, by_marginals)
            gradient = product if gradient is None else gradient + product
        return gradient, None, None


def covariance_product(trees: "TreeKind", scores: Tensor, lengths: Tensor, vector: Tensor) -> Tensor:
    """``Sigma v`` for scores and ``vector`` ``[B, N+1, N+1]``, differentiable in both."""
    return _CovarianceProduct.apply(scores.contiguous(), vector, lengths, trees)


class _CovarianceProduct(torch.autograd.Function):
    """``Sigma(scores) v``, linear in ``v``; its gradient in ``scores`` comes from the reference."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, vector: Tensor, lengths: Tensor, trees: "TreeKind") -> Tensor:
        ctx.save_for_backward(scores, vector, lengths)
        ctx.trees, ctx.seen = trees, Seen()
        vector = vector.to(scores.dtype).contiguous()
        product = trees.algorithms(scores.device).covariance_product
        return product(scores, lengths, trees.multi_root, vector).to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        scores, vector, lengths = ctx.saved_tensors
        trees = ctx.trees
        by_scores = by_vector = None
        if ctx.needs_input_grad[1]:
            with torch.no_grad():
                by_vector = ctx.seen.run(covariance_product, trees, scores, lengths, gradient)
        if ctx.needs_input_grad[0]:
            with torch.enable_grad():
                leaf = scores.detach().requires_grad_()
                log_partition = trees.algorithms(leaf.device).log_partition
                total = log_partition(leaf, lengths, trees.multi_root).sum()
                product = reference.covariance_product(total, leaf, vector.detach(), create_graph=True)
                (by_scores,) = torch.autograd.grad(product, leaf, gradient)
        return by_scores, by_vector, None, None
