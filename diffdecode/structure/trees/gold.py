"""Annotated heads: whether they are a tree, and the tree that fills up what is not annotated."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffdecode.checks import found
from diffdecode.structure.kernels.status import NO_TREE, PADDING, possible_arcs
from diffdecode.structure.trees.kind import TreeKind
from diffdecode.structure.trees.tensors import Lengths, arc_scores_of, check_inputs, heads_to_arcs


def check_gold_heads(gold_heads: Tensor, lengths: Tensor, longest: int, *, multi_root: bool = True) -> Tensor:
    """Gold heads ``[B, N]`` on the device of ``lengths [B]``, with :data:`PADDING` beyond these.

    Crossing arcs are not looked at here; see :func:`refuse_crossing`.

    Args:
        gold_heads: ``[B, N]``, 0 = root, -1 where the head is not annotated. longest: ``N``.
        multi_root: whether several words may hang on the root.

    Raises:
        ValueError: the shape is wrong; or, naming the batch row, a head is outside the sentence, a word is
            its own head, words hang on each other in a cycle, or several words hang on the root.
    """
    if gold_heads.shape != (len(lengths), longest):
        raise ValueError(f"gold_heads must be {[len(lengths), longest]}, got {list(gold_heads.shape)}")
    word = torch.arange(1, longest + 1, device=lengths.device)
    inside = word <= lengths[:, None]
    gold = gold_heads.to(lengths.device).masked_fill(~inside, PADDING)
    outside = (gold > lengths[:, None]) | (gold < PADDING)
    _refuse(outside.any(1), "outside the sentence")
    gold = gold.masked_fill(outside, PADDING)  # whoever does not look yet stays within the sentence
    above = pad(gold.clamp(min=0), (1, 0))  # of the root and of words that are not annotated: the root
    for _ in range(longest.bit_length()):  # twice as many steps towards the root each time
        above = above.gather(1, above)
    several = ((gold == 0).sum(1) > 1) & (not multi_root)
    faults = {
        "no tree: a word is its own head": (gold == word).any(1),
        "no tree: some words hang on each other in a cycle": (above > 0).any(1),
        "no single-root tree: several words hang on the root (multi_root=True allows that)": several,
    }
    if found(lambda: torch.stack(list(faults.values())).any()):
        for fault, rows in faults.items():
            _refuse(rows, fault)
    return gold


def refuse_crossing(gold: Tensor) -> None:
    """``ValueError`` naming the first batch row whose annotated arcs ``gold [B, N]`` cross."""
    word = torch.arange(1, gold.shape[1] + 1, device=gold.device)
    left, right = torch.minimum(gold, word), torch.maximum(gold, word)
    annotated = gold >= 0
    starts_inside = (left[:, :, None] < left[:, None]) & (left[:, None] < right[:, :, None])
    crossing = starts_inside & (right[:, :, None] < right[:, None])
    crossing &= annotated[:, :, None] & annotated[:, None]
    _refuse(crossing.flatten(1).any(1), "no projective tree: arcs cross")


def annotated_arcs(gold: Tensor, lengths: Tensor) -> Tensor:
    """``[B, N+1, N+1]`` bool: all arcs that could enter the words of ``gold [B, N]`` with a head."""
    annotated = pad(gold >= 0, (1, 0)).unsqueeze(-1)
    return annotated & possible_arcs(lengths, gold.shape[1] + 1)


def only_gold(scores: Tensor, gold: Tensor, lengths: Tensor) -> Tensor:
    """Scores ``[B, N+1, N+1]`` that forbid all heads but the gold one of every annotated word."""
    other = annotated_arcs(gold, lengths) & (heads_to_arcs(gold, dtype=scores.dtype) == 0)
    return scores.masked_fill(other, -torch.inf)


def partly_annotated(gold: Tensor, lengths: Tensor) -> Tensor:
    """Rows ``[P]`` of the batch where ``gold [B, N]`` lacks the head of a word; ``lengths [B]``."""
    return ((gold >= 0).sum(1) < lengths).nonzero().squeeze(1)


@torch.no_grad()
def complete_gold(trees: TreeKind, scores: Tensor, gold: Tensor, lengths: Lengths, partly: Tensor) -> Tensor:
    """Gold heads ``[B, N]``; those of the sentences ``partly [P]`` annotated, filled up to the best tree.

    Raises:
        ValueError: naming the batch row, for NaN, +inf, a gold arc that is forbidden, or annotated heads that
            no tree has together.
    """
    scores, lengths = check_inputs(scores, lengths)
    if len(partly):
        chosen = only_gold(scores, gold, lengths)[partly].contiguous()
        best, status = trees.algorithms(scores.device).best(chosen, lengths[partly], trees.multi_root)
        without = torch.zeros_like(lengths, dtype=torch.bool).index_copy(0, partly, status == NO_TREE)
        _refuse(without, f"part of no possible {trees}")
        if found(lambda: status.any()):  # NaN, or scores that only float64 can add
            best = trees.best(chosen, lengths[partly])
        gold = gold.index_copy(0, partly, best)
    refuse_forbidden_gold(arc_scores_of(scores, gold).sum(1))
    return gold


def refuse_forbidden_gold(gold_score: Tensor) -> None:
    """``ValueError`` naming the first batch row whose gold structure scores -inf. ``gold_score [B]``."""
    wrong = gold_score == -torch.inf
    if found(lambda: wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(f"the gold structure of batch row {row} uses a forbidden part (-inf)")


def _refuse(wrong: Tensor, fault: str) -> None:
    if found(lambda: wrong.any()):
        raise ValueError(f"gold heads of batch row {int(wrong.nonzero()[0])} are {fault}")
