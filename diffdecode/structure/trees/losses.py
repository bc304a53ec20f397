"""Losses that train a parser on annotated trees: structured hinge and log-likelihood.

Both are per sentence, ``[B]``; sum or average them as the model needs. A gradient never reaches padding or
forbidden arcs.
"""

from torch import Tensor
from torch.nn.functional import pad

from diffdecode.checks import looks_once
from diffdecode.moves import moved
from diffdecode.structure.trees.gold import (
    annotated_arcs,
    check_gold_heads,
    complete_gold,
    only_gold,
    partly_annotated,
    refuse_crossing,
)
from diffdecode.structure.trees.kind import TreeKind
from diffdecode.structure.trees.tensors import (
    Lengths,
    arc_scores_of,
    check_inputs,
    check_lengths,
    heads_to_arcs,
)


@looks_once
def tree_hinge_loss(
    scores: Tensor,
    gold_heads: Tensor,
    lengths: Lengths = None,
    *,
    projective: bool = True,
    multi_root: bool = False,
    cost: float = 1.0,
) -> Tensor:
    """Structured hinge, ``max_y [s(y) + cost(y)] - s(gold)`` (Taskar, Guestrin and Koller 2003).

    Args:
        scores: ``[B, N+1, N+1]``, ``scores[b, dependent, head]``; -inf forbids an arc.
        gold_heads: ``[B, N]``, -1 beyond the length and where the head is not annotated. What is not
            annotated costs nothing, and the gold tree is then the best one with the annotated arcs.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).
        projective, multi_root: which trees.
        cost: of every word with a wrong head. 1 is the cost of Peng et al.'s released code, which counts 0.5
            for the wrong arc and 0.5 for the missing one.

    Returns:
        ``[B]``, at least 0. A gold tree whose arcs cross may score higher than all projective trees; it is
        compared with them all the same, and the loss is then 0.

    Raises:
        ValueError: naming the batch row, for NaN, +inf, no possible tree, gold heads that are no tree (a
            cycle, a word that is its own head, several root words unless ``multi_root``), a gold arc that is
            forbidden, or annotated heads that no tree has together.
    """
    trees = TreeKind(projective, multi_root)
    scores, words = check_inputs(scores, lengths)
    gold, partly = _checked_gold(trees, scores, gold_heads, lengths, words)
    costs = cost * (annotated_arcs(gold, words).to(scores) - heads_to_arcs(gold, dtype=scores.dtype))
    guess = trees.best(scores, words, cost=costs)
    gold = complete_gold(trees, scores, gold, words, partly)
    exact = scores.double()
    gained = arc_scores_of(exact, guess) - arc_scores_of(exact, gold) + arc_scores_of(costs, guess)
    return gained.sum(1).clamp(min=0).to(scores.dtype)


@looks_once
def tree_negative_log_likelihood(
    scores: Tensor,
    gold_heads: Tensor,
    lengths: Lengths = None,
    *,
    projective: bool = True,
    multi_root: bool = False,
) -> Tensor:
    """``-log p(gold)`` under ``p(tree) ∝ exp s(tree)``; heads that are not annotated are summed out.

    Every score is measured from that of its word's gold arc, in float64. The gold tree then scores 0 and the
    log-partition is the loss: no two large numbers are subtracted, and it is never negative.

    Args:
        scores, gold_heads, lengths, projective, multi_root: as for :func:`tree_hinge_loss`.

    Returns:
        ``[B]``, at least 0.

    Raises:
        ValueError: as :func:`tree_hinge_loss`; and if ``projective``, naming the batch row, for gold heads
            with crossing arcs, whose probability is 0.
    """
    trees = TreeKind(projective, multi_root)
    scores, words = check_inputs(scores, lengths)
    gold, partly = _checked_gold(trees, scores, gold_heads, lengths, words, crossing=not projective)
    complete = complete_gold(trees, scores, gold, words, partly)
    exact = scores.double()
    beside_gold = exact - pad(arc_scores_of(exact, complete), (1, 0)).unsqueeze(2)
    loss = trees.log_partition(beside_gold, words)
    if len(partly):
        with_gold = only_gold(beside_gold, gold, words)[partly]
        of_gold = trees.log_partition(with_gold, words[partly])
        loss = loss.index_add(0, partly, of_gold, alpha=-1)
    return loss.clamp(min=0).to(scores.dtype)


def _checked_gold(
    trees: TreeKind,
    scores: Tensor,
    gold_heads: Tensor,
    lengths: Lengths,
    words: Tensor,
    crossing: bool = True,
) -> tuple[Tensor, Tensor]:
    """Gold heads ``[B, N]``, and the rows that are partly annotated, on the device of the scores.

    They are checked where they are: on the CPU that takes no look at a GPU.

    Args:
        lengths: as they were given. words: the same, ``[B]`` on the device of the scores.
        crossing: whether arcs may cross.
    """
    longest, place = scores.shape[1] - 1, gold_heads.device
    there = words if place == scores.device else check_lengths(lengths, len(scores), longest, place)
    gold = check_gold_heads(gold_heads, there, longest, multi_root=trees.multi_root)
    if not crossing:
        refuse_crossing(gold)
    partly = partly_annotated(gold, there)
    return moved(gold, scores.device), moved(partly, scores.device)
