"""Two semantic graphs over the same words, decided together: parts across formalisms.

Peng, Thomson and Smith (ACL 2017), "Deep Multitask Learning for Semantic Dependency Parsing": beside the
parts of each graph there are parts for two arcs, one of either graph, between the same argument and the same
predicate. As in a single graph, predicates do not interact: each one picks its arguments in both graphs, and
whether it is a predicate in none, one or both of them. So the best pair of graphs is found exactly.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from diffdecode.checks import found as is_found
from diffdecode.checks import looks_once
from diffdecode.structure.graphs.losses import check_gold_graph
from diffdecode.structure.graphs.parts import (
    NO_ARC,
    GraphParts,
    SemanticGraph,
    check_graph,
    graph_scores,
    refuse_not_scores,
)
from diffdecode.structure.kernels.reference import log_sum
from diffdecode.structure.kernels.status import possible_arcs
from diffdecode.structure.trees import Lengths, refuse_forbidden_gold


class JointParts(NamedTuple):
    """Scores of the parts of two graphs with L1 and L2 labels, and of pairs of their arcs."""

    first: GraphParts
    second: GraphParts
    places: Tensor
    """``[P, 3]`` int64: sentence, argument and predicate, each place once, where two arcs have a part. One at
    which there can be no arc counts for nothing."""
    pairs: Tensor
    """``[P, L1, L2]``: what two arcs at a place add, by their labels; anywhere else they add nothing."""


@looks_once
@torch.no_grad()
def joint_semantic_graphs(parts: JointParts, lengths: Lengths = None) -> tuple[SemanticGraph, SemanticGraph]:
    """The two graphs with the highest total score; two empty graphs score 0.

    Every arc has one label and makes its head a predicate of its graph; what has no positive gain is left
    out. No label is deterministic.

    Args:
        parts: the scores; -inf forbids a part of one graph.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).

    Raises:
        ValueError: wrong shapes or lengths; NaN or +inf, naming the batch row.
    """
    parts, lengths = check_joint(parts, lengths)
    size = parts.first.arcs.shape[1]
    possible = possible_arcs(lengths, size)
    gains, labels = zip(*(_best_arcs(one, possible) for one in (parts.first, parts.second)))
    together = [labels[0].clone(), labels[1].clone()]
    of_both, place = gains[0] + gains[1], tuple(parts.places.T)
    table = _checked_table(parts, possible)
    best, which = table.flatten(1).max(1)
    counts = possible[place]
    of_both[place] = torch.where(counts, best.double(), of_both[place])
    for both, label in zip(together, (which // table.shape[2] + NO_ARC, which % table.shape[2] + NO_ARC)):
        both[place] = torch.where(counts, label, both[place])
    values = _four_answers(parts, gains[0].sum(1), gains[1].sum(1), of_both.sum(1))
    choice = values.argmax(-1)  # of equals the first, with fewer predicates
    is_both = (choice == 3).unsqueeze(1)
    graphs = []
    for i in range(2):
        predicates = (choice == 1 + i) | (choice == 3)
        chosen = torch.where(is_both, together[i], labels[i])
        graphs.append(SemanticGraph(torch.where(predicates.unsqueeze(1), chosen, NO_ARC), predicates))
    return graphs[0], graphs[1]


def _best_arcs(parts: GraphParts, possible: Tensor) -> tuple[Tensor, Tensor]:
    """What the best labelled arcs of one graph alone add, in float64, 0 for none; and their labels."""
    gain, labels = parts.labels.max(-1)
    gain = (gain + parts.arcs).masked_fill_(~possible, -torch.inf)
    refuse_not_scores(gain, parts.predicates)
    return gain.clamp(min=0).double(), torch.where(gain > 0, labels, NO_ARC)


def pair_table(parts: JointParts) -> Tensor:
    """``[P, 1 + L1, 1 + L2]`` what each choice at a place adds; the first row and column are for no arc.

    Differentiable in all scores.
    """
    place = tuple(parts.places.T)
    first, second = (one.arcs[place].unsqueeze(1) + one.labels[place] for one in (parts.first, parts.second))
    both = first.unsqueeze(2) + second.unsqueeze(1) + parts.pairs
    with_first = torch.cat([first.unsqueeze(2), both], 2)
    without = torch.cat([second.new_zeros(len(second), 1), second], 1)
    return torch.cat([without.unsqueeze(1), with_first], 1)


def given_the_other(parts: JointParts, which: int, other: SemanticGraph) -> GraphParts:
    """The scores of one graph where the other is known: pairs are parts of single arcs then.

    What is best of them is, of the best two graphs, the one. Differentiable in the scores.

    Args:
        parts: the scores.
        which: 0 for those of the first graph, 1 of the second.
        other: the graph of the other kind.
    """
    place = tuple(parts.places.T)
    own, label = (parts.first, parts.second)[which], other.labels[place]
    index = label.clamp(min=0).view(-1, 1, 1)
    if which == 0:
        added = parts.pairs.gather(2, index.expand(-1, parts.pairs.shape[1], 1)).squeeze(2)
    else:
        added = parts.pairs.gather(1, index.expand(-1, 1, parts.pairs.shape[2])).squeeze(1)
    added = torch.where(label.unsqueeze(1) >= 0, added, 0.0)
    return own._replace(labels=own.labels.index_put(place, added, accumulate=True))


def joint_scores(parts: JointParts, graphs: tuple[SemanticGraph, SemanticGraph]) -> Tensor:
    """Sum of the scores of two graphs' parts, ``[B]``; differentiable in ``parts``."""
    first, second = graphs
    return graph_scores(parts.first, first) + graph_scores(given_the_other(parts, 1, first), second)


@looks_once
def joint_negative_log_likelihood(
    parts: JointParts,
    gold: tuple[SemanticGraph, SemanticGraph],
    known: tuple[Tensor, Tensor] | None = None,
    lengths: Lengths = None,
) -> Tensor:
    """``-log p(gold)`` under ``p(two graphs) ∝ exp s(two graphs)``; what is not known of them is summed out.

    Given in which graphs a word is a predicate, its pairs with all arguments are choices by themselves. So
    the normaliser is, for each word, a sum over the four answers, of products over its arguments.

    Args:
        parts: the scores.
        gold: the annotated graphs.
        known: for each of them ``[B, N+1, N+1]`` bool, the pairs of words of which it says something;
            ``None`` for all. Predicates are known where a sentence has any such pair.
        lengths: ``[B]`` words per sentence (``None``: all ``N``).

    Returns:
        ``[B]``, at least 0.

    Raises:
        ValueError: wrong shapes or lengths; naming the batch row, NaN, +inf, a gold graph with a forbidden
            part, or one that is no graph: a label outside 0..L-1, or an arc whose head is no predicate.
    """
    parts, lengths = check_joint(parts, lengths)
    possible = possible_arcs(lengths, parts.first.arcs.shape[1])
    if known is None:
        known = possible, possible
    for own in (parts.first, parts.second):
        _best_arcs(own, possible)  # which refuses what is no score
    table = _checked_table(parts, possible)
    allowed, predicates = [], []
    for own, graph, annotated in zip((parts.first, parts.second), gold, known):
        annotated = annotated & possible
        fixed = annotated.flatten(1).any(1)
        graph = check_gold_graph(graph, lengths, own.labels, True)
        choices = torch.arange(NO_ARC, own.labels.shape[3], device=lengths.device)
        allowed.append((graph.labels.unsqueeze(3) == choices) | ~annotated.unsqueeze(3))
        is_predicate = graph.predicates.unsqueeze(2) == torch.tensor([False, True], device=lengths.device)
        predicates.append(is_predicate | ~fixed[:, None, None])
    gold_sum = _log_sum_of_pairs(parts, table, lengths, allowed, predicates)
    refuse_forbidden_gold(gold_sum)
    everything = ([torch.ones_like(one) for one in masks] for masks in (allowed, predicates))
    return (
        (_log_sum_of_pairs(parts, table, lengths, *everything) - gold_sum).clamp(min=0).to(parts.first.arcs)
    )


def _log_sum_of_pairs(
    parts: JointParts, table: Tensor, lengths: Tensor, allowed: list[Tensor], predicates: list[Tensor]
) -> Tensor:
    """``log sum exp`` of the scores of all pairs of graphs that are allowed, ``[B]``, in float64.

    Args:
        parts: the scores.
        table: ``[P, 1 + L1, 1 + L2]`` of ``pair_table``.
        lengths: ``[B]``.
        allowed: for each graph ``[B, N+1, N+1, 1 + L]`` bool, the first for no arc.
        predicates: for each graph ``[B, N+1, 2]`` bool: whether a word may be no predicate, or one.
    """
    place, size = tuple(parts.places.T), parts.first.arcs.shape[1]
    possible = possible_arcs(lengths, size)
    with_arcs, without = [], []
    for own, may in zip((parts.first, parts.second), allowed):
        labelled = own.arcs.unsqueeze(3) + own.labels
        choices = torch.cat([labelled.new_zeros(*own.arcs.shape, 1), labelled], 3).double()
        sums = log_sum(choices.masked_fill(~may, -torch.inf), 3)
        with_arcs.append(torch.where(possible, sums, 0.0))
        without.append(torch.zeros_like(sums).masked_fill(possible & ~may[..., 0], -torch.inf).sum(1))
    both = with_arcs[0] + with_arcs[1]
    may = allowed[0][place].unsqueeze(2) & allowed[1][place].unsqueeze(1)
    of_places = log_sum(table.double().masked_fill(~may, -torch.inf).flatten(1), 1)
    both = both.index_put(place, torch.where(possible[place], of_places, 0.0))
    states = _four_answers(
        parts, with_arcs[0].sum(1), with_arcs[1].sum(1), both.sum(1), without[0], without[1]
    )
    may_be = [predicates[0][..., i] & predicates[1][..., j] for j in range(2) for i in range(2)]
    states = states.masked_fill(~torch.stack(may_be, 2), -torch.inf)
    inside = torch.arange(size, device=lengths.device) <= lengths[:, None]
    return torch.where(inside, log_sum(states, 2), 0.0).sum(1)


def check_joint(parts: JointParts, lengths: Lengths) -> tuple[JointParts, Tensor]:
    """Scores of one type, and lengths as a tensor.

    Raises:
        ValueError: the shapes disagree, or a length is outside 1..N.
    """
    (first, lengths_), (second, _) = (
        check_graph(one.arcs, one.labels, one.predicates, lengths) for one in (parts.first, parts.second)
    )
    if first.arcs.shape != second.arcs.shape:
        raise ValueError(f"graphs of other words: {list(first.arcs.shape)} and {list(second.arcs.shape)}")
    count = len(parts.places)
    wanted = [count, first.labels.shape[3], second.labels.shape[3]]
    if parts.places.shape != (count, 3) or list(parts.pairs.shape) != wanted:
        raise ValueError(
            f"expected places [P, 3] and pairs [P, {wanted[1]}, {wanted[2]}], got "
            f"{list(parts.places.shape)} and {list(parts.pairs.shape)}"
        )
    return JointParts(first, second, parts.places, parts.pairs.to(first.arcs)), lengths_


def _checked_table(parts: JointParts, possible: Tensor) -> Tensor:
    """``pair_table``, at -inf where there can be no arc.

    Raises:
        ValueError: NaN or +inf, naming the batch row.
    """
    counts = possible[tuple(parts.places.T)]
    table = pair_table(parts).masked_fill(~counts[:, None, None], -torch.inf)
    wrong = ~(table < torch.inf).flatten(1).all(1)
    if is_found(lambda: wrong.any()):
        row = int(parts.places[wrong.nonzero()[0, 0], 0])
        raise ValueError(f"pairs of batch row {row} hold NaN or +inf, or overflow when added")
    return table


def _four_answers(
    parts: JointParts,
    first: Tensor,
    second: Tensor,
    both: Tensor,
    no_first: Tensor | float = 0.0,
    no_second: Tensor | float = 0.0,
) -> Tensor:
    """``[B, N+1, 4]`` what it adds that a word is a predicate in no graph, the first, the second, or both.

    Args:
        parts: the scores.
        first: ``[B, N+1]`` what arguments add in the first graph alone.
        second: the same in the second.
        both: the same in both.
        no_first: what it adds that there are none in the first.
        no_second: the same in the second.
    """
    alone = [own.predicates.double() for own in (parts.first, parts.second)]
    neither = torch.zeros_like(alone[0]) + no_first + no_second
    one = alone[0] + first + no_second, alone[1] + second + no_first
    return torch.stack([neither, *one, alone[0] + alone[1] + both], -1)
