"""Gold heads that are no tree are refused by every loss; trees, partly annotated or not, are taken."""

import itertools

import pytest
import torch
from tree_enumeration import is_projective, is_tree

from diffdecode.structure import (
    GraphParts,
    SemanticGraph,
    TreeKind,
    graph_hinge_loss,
    graph_negative_log_likelihood,
    tree_hinge_loss,
    tree_negative_log_likelihood,
)

LOSSES = {tree_hinge_loss: True, tree_negative_log_likelihood: False}
"""Whether a gold tree with crossing arcs has a meaning among projective trees."""

kinds = pytest.mark.parametrize("projective, multi_root", list(itertools.product([True, False], repeat=2)))
losses = pytest.mark.parametrize("loss", LOSSES)


def refuses(loss, scores, gold, **kind):
    """Whether the middle one of three sentences is refused, and named."""
    plain = [0, *range(1, len(gold))]
    rows = torch.tensor([plain, gold, plain])
    try:
        loss(scores.expand(3, -1, -1), rows, **kind)
    except ValueError as error:
        assert "gold heads of batch row 1" in str(error)
        return True
    return False


@losses
@kinds
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_exactly_the_trees_are_taken(n, projective, multi_root, loss):
    """All assignments of heads, self-heads and cycles and several roots among them."""
    scores = torch.randn(1, n + 1, n + 1, generator=torch.Generator().manual_seed(n))
    for heads in itertools.product(range(n + 1), repeat=n):
        allowed = is_tree(heads) and (multi_root or heads.count(0) == 1)
        if projective and not LOSSES[loss]:
            allowed = allowed and is_projective(heads)
        refused = refuses(loss, scores, list(heads), projective=projective, multi_root=multi_root)
        assert refused == (not allowed), heads


@losses
@kinds
def test_exactly_what_a_tree_can_have_is_taken_as_a_part_of_one(projective, multi_root, loss):
    n = 3
    scores = torch.randn(1, n + 1, n + 1, generator=torch.Generator().manual_seed(0))
    trees = [
        heads
        for heads in itertools.product(range(n + 1), repeat=n)
        if is_tree(heads) and (multi_root or heads.count(0) == 1) and (not projective or is_projective(heads))
    ]
    for heads in itertools.product(range(-1, n + 1), repeat=n):
        if -1 in heads:
            allowed = any(all(h in (-1, t) for h, t in zip(heads, tree)) for tree in trees)
            refused = refuses(loss, scores, list(heads), projective=projective, multi_root=multi_root)
            assert refused == (not allowed), heads


@losses
def test_long_cycles_and_padding(loss):
    n = 37
    scores = torch.randn(2, n + 1, n + 1)
    chain = torch.arange(n)[None].repeat(2, 1)
    chain[1, 20:] = 35  # nothing beyond the length is read
    assert loss(scores, chain, [n, 20]).isfinite().all()
    chain[1, :20] = torch.tensor([20, *range(1, 20)])
    with pytest.raises(ValueError, match="row 1 are no tree: some words hang on each other in a cycle"):
        loss(scores, chain, [n, 20])


@losses
def test_messages(loss):
    scores = torch.zeros(1, 4, 4)
    for heads, message in [
        ([0, 2, 1], "a word is its own head"),
        ([0, 3, 2], "hang on each other in a cycle"),
        ([0, 0, 1], r"several words hang on the root \(multi_root=True"),
        ([0, 4, 1], "outside the sentence"),
        ([-1, 3, 2], "hang on each other in a cycle"),
    ]:
        with pytest.raises(ValueError, match=f"row 0 are .*{message}"):
            loss(scores, torch.tensor([heads]))
    scores[0, 2, [0, 1]] = -torch.inf
    with pytest.raises(ValueError, match="row 0 are part of no possible single-root projective tree"):
        loss(scores, torch.tensor([[-1, -1, 2]]))


def test_crossing_arcs():
    scores = torch.randn(1, 5, 5)
    crossing = torch.tensor([[0, 4, 1, 1]])
    with pytest.raises(ValueError, match="row 0 are no projective tree: arcs cross"):
        tree_negative_log_likelihood(scores, crossing)
    assert tree_negative_log_likelihood(scores, crossing, projective=False) > 0
    guess = TreeKind().best(scores, cost=(torch.arange(5) != 0).float()[None])
    assert tree_hinge_loss(scores, crossing).isfinite() and guess.shape == (1, 4)


@pytest.mark.parametrize("loss", [graph_hinge_loss, graph_negative_log_likelihood])
def test_graphs(loss):
    scores = GraphParts(torch.zeros(2, 3), torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, 2))
    parts = scores.arcs, scores.labels, scores.predicates
    gold = SemanticGraph(torch.full((2, 3, 3), -1), torch.zeros(2, 3, dtype=torch.bool))
    assert loss(*parts, gold).isfinite().all()
    gold.labels[1, 1, 2] = 0
    with pytest.raises(ValueError, match="batch row 1 has an arc whose head is no predicate"):
        loss(*parts, gold)
    assert loss(scores.arcs, scores.labels, None, gold).isfinite().all()
    gold.predicates[1, 2] = True
    assert loss(*parts, gold).isfinite().all()
    for label in (2, -2):
        gold.labels[1, 1, 2] = label
        with pytest.raises(ValueError, match=r"batch row 1 has a label outside 0\.\.1"):
            loss(*parts, gold)
