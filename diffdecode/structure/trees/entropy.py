"""Entropy of a distribution over trees, exact however large the scores are.

The entropy is the log-partition less the expected score. Measured from the best tree's, scores of likely arcs
are small nearly always, and so is the rounding of that difference. But trees that are nearly equally good may
have large scores that cancel; then an error of 1e-16 S in a probability, times a score of size S, is far too
much. There, the entropy is added up from the choices of which a tree consists, by a semiring (as Hwa 2000 and
Li and Eisner 2009 do for trees and hypergraphs) whose numbers never hold an expected score.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffdecode.checks import found, looks_once
from diffdecode.structure.kernels import reference
from diffdecode.structure.trees.marginals import tree_marginals
from diffdecode.structure.trees.tensors import Lengths, arc_scores_of, check_inputs, only_possible

if TYPE_CHECKING:
    from diffdecode.structure.trees.kind import TreeKind

TRUSTED = 1e-9
"""Nats; a difference with more rounding than that is not taken."""


@looks_once
def marginals_and_entropy(trees: "TreeKind", scores: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
    """Marginals, shaped as ``scores``, and ``[B]`` nats; see :func:`diffdecode.structure.tree_entropy`."""
    scores, lengths = check_inputs(scores, lengths)
    exact = only_possible(scores.double(), lengths)
    marginals, entropy, rounding = _by_difference(trees, exact, lengths)
    if found(lambda: (rounding > TRUSTED).any()):
        rows = (rounding > TRUSTED).nonzero().squeeze(1)
        entropy = entropy.index_copy(0, rows, _by_choices(trees, exact[rows], lengths[rows]))
    return marginals.to(scores.dtype), entropy.clamp(min=0).to(scores.dtype)


def _by_difference(trees: "TreeKind", scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Marginals; log-partition less expected score ``[B]``; what rounding may make of that, ``[B]``.

    Every score is measured from that of its word's arc in the best tree, which changes no probability.
    """
    by_arc = scores.detach() if scores.dim() == 3 else scores.detach().amax(3)
    shift = pad(arc_scores_of(by_arc, trees.best(by_arc, lengths)), (1, 0))
    beside_best = scores - shift.view(*shift.shape, *[1] * (scores.dim() - 2))
    marginals, log_partition = tree_marginals(trees, beside_best, lengths)
    read = beside_best.where(marginals != 0, 0)
    expected = (marginals * read).flatten(1).sum(1)
    # All probabilities are off by the rounding of the largest score, but for those far below the best tree's.
    sizes = torch.maximum(read.abs(), beside_best).detach().flatten(1)
    rounding = torch.finfo(torch.float64).eps * sizes.amax(1)
    rounding = rounding * (1 + (marginals.detach().flatten(1) * sizes).sum(1))
    return marginals, log_partition - expected, rounding


def _by_choices(trees: "TreeKind", scores: Tensor, lengths: Tensor) -> Tensor:
    """``[B]`` from float64 scores, in the semiring of :func:`_chosen_among`."""
    arcs = torch.cat([scores, torch.zeros_like(scores), torch.zeros_like(scores)])
    if scores.dim() == 4:
        arcs = _chosen_among(list(arcs.unbind(3)))
    three_times = lengths.repeat(3)
    if trees.projective:
        charts = reference.inside_charts(arcs, three_times, trees.multi_root, _chosen_among)
        total = charts["total"]
    else:
        _, order, _ = reference.matrix_tree_weights(arcs[: len(scores)], lengths, trees.multi_root)
        arcs = reference.in_order(arcs, order.repeat(3, 1))
        total = reference.eliminate(arcs, three_times, trees.multi_root, _chosen_among)
    return total.chunk(3)[2]


def _chosen_among(alternatives: list[Tensor]) -> Tensor:
    """Sum of summed weights ``W``, each with the entropy of the choice among what it is the sum of.

    A number is three, one after another in the first dimension, and products add them up: the best score;
    ``log W`` less that, the logarithm of a number of trees, which a score of 1e12 would swallow; the entropy.
    An alternative is chosen with its share of the sum, and what is chosen next adds its own entropy.
    Quotients subtract all three: no more than ``N log N`` is lost and gained.

    Args:
        alternatives: ``[3 B, ...]`` each.
    """
    peaks, rests, entropies = torch.stack(alternatives).chunk(3, 1)
    peak = peaks.detach().amax(0)
    smallest = torch.finfo(peak.dtype).min
    sizes = peaks - peak.clamp(min=smallest) + rests
    rest = reference.log_sum(sizes, 0)
    log_p = sizes - rest.clamp(min=smallest)
    p = log_p.exp()
    entropy = (p * (entropies - log_p).where(p > 0, 0)).sum(0)
    return torch.cat([peak, rest, entropy])
