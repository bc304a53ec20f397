"""Structured losses against enumeration, and their gradients."""

import itertools

import pytest
import torch
from tree_enumeration import all_trees, score_all

from diffdecode.structure import (
    GraphParts,
    SemanticGraph,
    graph_hinge_loss,
    graph_negative_log_likelihood,
    graph_scores,
    tree_hinge_loss,
    tree_negative_log_likelihood,
)

KINDS = [(projective, multi_root) for projective in (True, False) for multi_root in (True, False)]
kinds = pytest.mark.parametrize("projective, multi_root", KINDS)


def tree_problem(n, projective, multi_root, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, n + 1, n + 1, generator=generator, dtype=torch.float64)
    trees = all_trees(n, projective, multi_root)
    gold = trees[torch.randint(len(trees), (1,), generator=generator)]
    return scores, trees, gold


@kinds
@pytest.mark.parametrize("cost", [0.0, 0.5, 1.0])
def test_tree_hinge(cost, projective, multi_root):
    kind = {"projective": projective, "multi_root": multi_root}
    for seed in range(8):
        scores, trees, gold = tree_problem(4, projective, multi_root, seed)
        values = score_all(scores, 4, projective, multi_root)[0]
        wrong = (trees != gold).sum(1)
        gold_value = values[wrong == 0]
        expected = (values + cost * wrong).max() - gold_value
        assert torch.allclose(tree_hinge_loss(scores, gold, cost=cost, **kind), expected)
        # With half of the heads unknown, they cost nothing and the best completion is the gold tree.
        partly = gold.clone()
        partly[:, ::2] = -1
        wrong = ((trees != partly) & (partly >= 0)).sum(1)
        expected = (values + cost * wrong).max() - values[wrong == 0].max()
        assert torch.allclose(tree_hinge_loss(scores, partly, cost=cost, **kind), expected[None])


@kinds
def test_tree_likelihood(projective, multi_root):
    kind = {"projective": projective, "multi_root": multi_root}
    scores, trees, gold = tree_problem(4, projective, multi_root)
    log_p = score_all(scores, 4, projective, multi_root)[0].log_softmax(0)
    found = tree_negative_log_likelihood(scores, gold, **kind)
    assert torch.allclose(found, -log_p[(trees == gold).all(1)], atol=1e-9)
    partly = gold.clone()
    partly[:, 1:3] = -1
    matching = ((trees == partly) | (partly < 0)).all(1)
    found = tree_negative_log_likelihood(scores, partly, **kind)
    assert torch.allclose(found, -log_p[matching].logsumexp(0)[None], atol=1e-9)
    nothing = tree_negative_log_likelihood(scores, torch.full_like(gold, -1), **kind)
    assert nothing.abs().max() < 1e-9


@pytest.mark.parametrize("loss", [tree_hinge_loss, tree_negative_log_likelihood])
@pytest.mark.parametrize("partly", [False, True])
def test_tree_gradients(loss, partly):
    scores, _, gold = tree_problem(4, True, False)
    if partly:
        gold = gold.clone()
        gold[:, 0] = -1
    assert torch.autograd.gradcheck(lambda s: loss(s, gold), scores.requires_grad_(), atol=1e-4)


def test_padding_and_forbidden_arcs_get_no_gradient():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 5, 5, generator=generator)
    gold = torch.tensor([[0, 1, 2, 3], [0, 1, -1, -1]])
    scores[0, 4, 1] = -torch.inf
    scores[1, 3:] = torch.nan
    scores[1, :, 3:] = torch.nan
    for loss in (tree_hinge_loss, tree_negative_log_likelihood):
        leaf = scores.clone().requires_grad_()
        values = loss(leaf, gold, [4, 2])
        values.sum().backward()
        assert (values > 0).all() and torch.isfinite(leaf.grad).all()
        assert leaf.grad[0, 4, 1] == 0 and (leaf.grad[1, 3:] == 0).all() and (leaf.grad[1, :, 3:] == 0).all()
        alone = loss(scores[1:, :3, :3], gold[1:, :2])
        assert torch.allclose(values[1], alone[0])


def test_a_gold_tree_outside_the_set_costs_nothing_less_than_0():
    crossing = torch.tensor([[0, 4, 1, 1]])
    scores = torch.zeros(1, 5, 5)
    scores[0, torch.arange(1, 5), crossing[0]] = 10.0
    assert tree_hinge_loss(scores, crossing).item() == 0.0


def test_tree_errors():
    scores = torch.zeros(2, 3, 3)
    with pytest.raises(ValueError, match="row 1"):
        tree_hinge_loss(scores, torch.tensor([[0, 1], [0, 3]]))
    with pytest.raises(ValueError, match="gold_heads must be"):
        tree_hinge_loss(scores, torch.tensor([[0, 1, 2]]))
    scores[1, 2, 1] = -torch.inf
    for loss in (tree_hinge_loss, tree_negative_log_likelihood):
        with pytest.raises(ValueError, match="gold structure of batch row 1"):
            loss(scores, torch.tensor([[0, 1], [0, 1]]))
        with pytest.raises(ValueError, match="row 0"):
            loss(scores * torch.nan, torch.tensor([[0, 1], [0, 1]]))


# ------------------------------------------------------------------------------ graphs


def graph_problem(words=2, labels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = words + 1
    shapes = (1, size), (1, size, size), (1, size, size, labels)
    scores = GraphParts(*(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes))
    return scores, every_graph(words, labels)


def every_graph(words, labels):
    """All graphs with predicates at least where there are arcs, as one batch."""
    size = words + 1
    arcs = [(j, p) for p in range(size) for j in range(1, size) if j != p]
    choices = torch.tensor(list(itertools.product(range(-1, labels), repeat=len(arcs))))
    graphs = torch.full((len(choices), size, size), -1)
    graphs[:, [j for j, _ in arcs], [p for _, p in arcs]] = choices
    used = (graphs >= 0).any(1)
    flags = torch.tensor(list(itertools.product([False, True], repeat=size)))
    allowed = (flags[None] >= used[:, None]).all(-1)
    graph, flag = allowed.nonzero().unbind(1)
    return SemanticGraph(graphs[graph], flags[flag])


def pick(graphs, index):
    return SemanticGraph(graphs.labels[index : index + 1], graphs.predicates[index : index + 1])


def repeated(scores, count):
    return GraphParts(*(part.expand(count, *part.shape[1:]) for part in scores))


@pytest.mark.parametrize("costs", [(0.4, 0.6), (1.0, 0.0)])
def test_graph_hinge(costs):
    for seed in range(6):
        scores, graphs = graph_problem(seed=seed)
        values = graph_scores(repeated(scores, len(graphs.labels)), graphs)
        for index in range(0, len(values), 97):
            gold = pick(graphs, index)
            differ = graphs.labels != gold.labels
            false_positive = (differ & (graphs.labels >= 0)).sum((1, 2))
            false_negative = (differ & (gold.labels >= 0)).sum((1, 2))
            expected = (values + costs[0] * false_positive + costs[1] * false_negative).max() - values[index]
            found = graph_hinge_loss(
                scores.arcs, scores.labels, scores.predicates, gold,
                false_positive=costs[0], false_negative=costs[1],
            )  # fmt: skip
            assert torch.allclose(found, expected[None])


def test_graph_hinge_with_determinism_can_only_be_lower():
    gold = SemanticGraph(torch.full((1, 3, 3), -1), torch.zeros(1, 3, dtype=torch.bool))
    lower = 0
    for seed in range(10):
        scores, graphs = graph_problem(seed=seed)
        parts = scores.arcs, scores.labels, scores.predicates
        free = graph_hinge_loss(*parts, gold)
        bound = graph_hinge_loss(*parts, gold, deterministic=[0, 1])
        values = graph_scores(repeated(scores, len(graphs.labels)), graphs)
        once = torch.stack([(graphs.labels == role).sum(1).amax(1) <= 1 for role in (0, 1)]).all(0)
        cost = 0.4 * (graphs.labels >= 0).sum((1, 2))
        assert torch.allclose(bound, (values + cost)[once].max()[None]) and bound <= free
        lower += bool(bound < free)
    assert lower > 0


def test_graph_likelihood():
    scores, graphs = graph_problem()
    values = graph_scores(repeated(scores, len(graphs.labels)), graphs)
    log_p = values.log_softmax(0)
    for index in (0, 100, len(values) - 1):
        found = graph_negative_log_likelihood(
            scores.arcs, scores.labels, scores.predicates, pick(graphs, index)
        )
        assert torch.allclose(found, -log_p[index : index + 1])


def test_graph_likelihood_of_independent_arcs():
    """Without predicates: binary cross-entropy of every arc, and cross-entropy of its label."""
    scores, graphs = graph_problem(seed=1)
    gold = pick(graphs, 150)
    found = graph_negative_log_likelihood(scores.arcs, scores.labels, None, gold)
    total = torch.zeros(1, dtype=torch.float64)
    for j, p in itertools.product(range(1, 3), range(3)):
        if j != p:
            options = torch.cat([torch.zeros(1).double(), scores.arcs[0, j, p] + scores.labels[0, j, p]])
            total -= options.log_softmax(0)[gold.labels[0, j, p] + 1]
    assert torch.allclose(found, total)


@pytest.mark.parametrize("loss", [graph_hinge_loss, graph_negative_log_likelihood])
def test_graph_gradients_padding_and_errors(loss):
    scores, graphs = graph_problem(seed=2)
    gold = pick(graphs, 150)
    leaves = [part.clone().requires_grad_() for part in (scores.arcs, scores.labels, scores.predicates)]
    assert torch.autograd.gradcheck(lambda *parts: loss(*parts, gold), leaves)
    one_more = [(0, 1, 0, 1), (0, 0, 0, 1, 0, 1), (0, 1)]
    parts = scores.arcs, scores.labels, scores.predicates
    padded = [torch.nn.functional.pad(part, by, value=torch.nan) for part, by in zip(parts, one_more)]
    longer = SemanticGraph(
        torch.nn.functional.pad(gold.labels, (0, 1, 0, 1), value=1),
        torch.nn.functional.pad(gold.predicates, (0, 1), value=True),
    )
    arcs, labels, predicates = (part.requires_grad_() for part in padded)
    value = loss(*padded, longer, [2])
    value.sum().backward()
    assert torch.allclose(value, loss(*leaves, gold))
    assert all(torch.isfinite(part.grad).all() for part in padded)
    assert (labels.grad[:, 3] == 0).all() and (labels.grad[:, :, 3] == 0).all()
    assert (arcs.grad[:, 3] == 0).all() and (predicates.grad[:, 3] == 0).all()
    forbidden = scores.labels.masked_fill(torch.ones(2, dtype=torch.bool), -torch.inf)
    some = SemanticGraph(torch.full((1, 3, 3), -1), torch.ones(1, 3, dtype=torch.bool))
    some.labels[0, 1, 2] = 0
    with pytest.raises(ValueError, match="gold structure of batch row 0"):
        loss(scores.arcs, forbidden, scores.predicates, some)
    with pytest.raises(ValueError, match="gold graphs must have"):
        loss(*parts, pick(graphs, len(graphs.labels)))
    with pytest.raises(ValueError, match="batch row 0"):
        loss(scores.arcs * torch.nan, scores.labels, scores.predicates, gold)
