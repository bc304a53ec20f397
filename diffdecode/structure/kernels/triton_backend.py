"""The functions of :mod:`diffdecode.structure.reference` that run on the GPU by Triton."""

import torch
from torch import Tensor

from diffdecode.structure.kernels import triton_eisner
from diffdecode.structure.trees import NO_TREE, status_of_scores


def eisner(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Best projective trees; see :func:`diffdecode.structure.reference.eisner`."""
    status = status_of_scores(scores, lengths)
    # NaN would send the walk down out of its charts.
    scores = scores.detach().masked_fill((status != 0)[:, None, None], 0).contiguous()
    heads, totals = triton_eisner.best_trees(scores, lengths, multi_root)
    no_tree = (status == 0) & ~(totals > -torch.inf)
    return heads, torch.where(no_tree, NO_TREE, status).to(torch.int8)
