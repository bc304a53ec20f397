"""Exact samples of ``p(tree) ∝ exp(sum of arc scores)``."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffdecode.checks import looks_once
from diffdecode.moves import moved
from diffdecode.structure.kernels.randomness import LABEL, number, uniforms
from diffdecode.structure.kernels.reference import log_sum
from diffdecode.structure.kernels.status import PADDING
from diffdecode.structure.trees.checked import checked
from diffdecode.structure.trees.tensors import Lengths, check_inputs

if TYPE_CHECKING:
    from diffdecode.structure.trees.kind import TreeKind


@looks_once
@torch.no_grad()
def sample_labelled_trees(
    trees: "TreeKind", scores: Tensor, lengths: Lengths, samples: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Heads and labels, both ``[S, B, N]``, from scores ``[B, N+1, N+1, L]``."""
    scores, lengths = check_inputs(scores, lengths)
    seeds = _seeds(scores, samples, generator)
    heads = _sample_heads(trees, scores, lengths, seeds)
    return heads, _sample_labels(scores, heads, seeds)


@looks_once
@torch.no_grad()
def sample_trees(
    trees: "TreeKind", scores: Tensor, lengths: Lengths, samples: int, generator: torch.Generator | None
) -> Tensor:
    """Heads ``[S, B, N]``; see :func:`diffdecode.structure.sample_projective_trees`."""
    scores, lengths = check_inputs(scores, lengths)
    return _sample_heads(trees, scores, lengths, _seeds(scores, samples, generator))


def _seeds(scores: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """``[S, B]``, one for each sample of each sentence: all else follows from them, on any device."""
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    source = scores.device if generator is None else generator.device
    shape = samples, len(scores)
    seeds = torch.randint(-(2**63), 2**63 - 1, shape, generator=generator, device=source)
    return moved(seeds, scores.device)


def _sample_heads(trees: "TreeKind", scores: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
    arc_scores = (scores if scores.dim() == 3 else log_sum(scores, 3)).contiguous()
    draw = trees.algorithms(scores.device).sample
    (heads,) = checked(draw, trees, arc_scores, lengths, seeds)
    return heads


def _sample_labels(scores: Tensor, heads: Tensor, seeds: Tensor) -> Tensor:
    """Labels ``[S, B, N]`` from ``p(label | arc)``, one for each arc in ``heads``."""
    index = heads.clamp(min=0)[..., None, None].expand(-1, -1, -1, 1, scores.shape[3])
    of_arcs = scores[None, :, 1:].expand(len(heads), -1, -1, -1, -1).gather(3, index).squeeze(3)
    of_arcs = of_arcs.masked_fill(heads[..., None] < 0, 0)
    word = torch.arange(1, heads.shape[2] + 1, device=heads.device)
    share = uniforms(seeds[:, :, None], number(LABEL, 0, word))
    sums = of_arcs.double().softmax(-1).cumsum(-1)
    labels = (sums <= share[..., None] * sums[..., -1:]).sum(-1)
    return labels.masked_fill(heads < 0, PADDING)
