"""Exact samples of ``p(tree) ∝ exp(sum of arc scores)``."""

import torch
from torch import Tensor

from diffdecode.structure.kernels.reference import log_sum
from diffdecode.structure.trees.checked import checked_kernel
from diffdecode.structure.trees.tensors import PADDING, check_inputs


def sample_projective_trees(
    scores: Tensor,
    lengths=None,
    samples: int = 1,
    *,
    multi_root: bool = False,
    generator: torch.Generator | None = None,
):
    """Independent projective trees from their distribution, top-down through the inside sums.

    Args:
        scores, lengths, multi_root: as in :func:`diffdecode.structure.projective_tree`. samples: how many
        trees per sentence, ``S``. generator: of the random numbers (on the CPU); the same one gives the
        same trees, on any number of threads.

    Returns:
        heads ``[S, B, N]`` int64, 0 for the root and -1 beyond the length; with labelled scores, the pair
        ``(heads, labels)``, both ``[S, B, N]``.

    Raises:
        ValueError: as in :func:`diffdecode.structure.projective_tree`.
    """
    return _sample("sample_projective", scores, lengths, samples, multi_root, generator)


def sample_nonprojective_trees(
    scores: Tensor,
    lengths=None,
    samples: int = 1,
    *,
    multi_root: bool = False,
    generator: torch.Generator | None = None,
):
    """Independent trees, projective or not, from their distribution (Wilson 1996).

    Arguments, result and errors are those of :func:`sample_projective_trees`.
    """
    return _sample("sample_arborescence", scores, lengths, samples, multi_root, generator)


@torch.no_grad()
def _sample(algorithm, scores, lengths, samples, multi_root, generator):
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    scores, lengths = check_inputs(scores, lengths)
    arc_scores = (scores if scores.dim() == 3 else log_sum(scores, 3)).contiguous()
    seeds = torch.randint(-(2**63), 2**63 - 1, (samples, len(scores)), generator=generator)
    (heads,) = checked_kernel(algorithm, arc_scores, lengths, multi_root, seeds)
    return heads if scores.dim() == 3 else (heads, _sample_labels(scores, heads, generator))


def _sample_labels(scores: Tensor, heads: Tensor, generator) -> Tensor:
    """Labels ``[S, B, N]`` from ``p(label | arc)``, one for each arc in ``heads``."""
    index = heads.clamp(min=0)[..., None, None].expand(-1, -1, -1, 1, scores.shape[3])
    of_arcs = scores[None, :, 1:].expand(len(heads), -1, -1, -1, -1).gather(3, index).squeeze(3)
    of_arcs = of_arcs.masked_fill(heads[..., None] < 0, 0)
    probabilities = of_arcs.softmax(-1).flatten(0, -2).cpu()
    labels = torch.multinomial(probabilities, 1, generator=generator).view(heads.shape).to(heads.device)
    return labels.masked_fill(heads < 0, PADDING)
