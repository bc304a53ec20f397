"""Exact samples of ``p(tree) ∝ exp(sum of arc scores)``."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffdecode.checks import looks_once
from diffdecode.moves import moved
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
    heads = sample_trees(trees, scores, lengths, samples, generator)
    return heads, _sample_labels(scores, heads, generator)


@looks_once
@torch.no_grad()
def sample_trees(
    trees: "TreeKind", scores: Tensor, lengths: Lengths, samples: int, generator: torch.Generator | None
) -> Tensor:
    """Heads ``[S, B, N]``; see :func:`diffdecode.structure.sample_projective_trees`."""
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    scores, lengths = check_inputs(scores, lengths)
    arc_scores = (scores if scores.dim() == 3 else log_sum(scores, 3)).contiguous()
    source = "cpu" if generator is None else generator.device
    shape = samples, len(scores)
    seeds = torch.randint(-(2**63), 2**63 - 1, shape, generator=generator, device=source)
    draw = trees.algorithms(scores.device).sample
    (heads,) = checked(draw, trees, arc_scores, lengths, seeds)
    return heads


def _sample_labels(scores: Tensor, heads: Tensor, generator: torch.Generator | None) -> Tensor:
    """Labels ``[S, B, N]`` from ``p(label | arc)``, one for each arc in ``heads``."""
    index = heads.clamp(min=0)[..., None, None].expand(-1, -1, -1, 1, scores.shape[3])
    of_arcs = scores[None, :, 1:].expand(len(heads), -1, -1, -1, -1).gather(3, index).squeeze(3)
    of_arcs = of_arcs.masked_fill(heads[..., None] < 0, 0)
    # The exponential race that torch.multinomial runs on a CPU: the same labels for the same seed.
    source = torch.device("cpu") if generator is None else generator.device
    waiting = torch.empty(of_arcs.shape, dtype=of_arcs.dtype, device=source)
    waiting = moved(waiting.exponential_(generator=generator), of_arcs.device)
    labels = (of_arcs.softmax(-1) / waiting).argmax(-1)
    return labels.masked_fill(heads < 0, PADDING)
