"""The best semantic graph, against the enumeration of every graph."""

import itertools

import numpy as np
import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdecode.structure.graphs import (
    GraphParts,
    SemanticGraph,
    check_graph,
    graph_parts,
    graph_scores,
    semantic_graph,
    uses_a_label_twice,
)


def best_by_enumeration(predicate, gains, deterministic):
    """Highest value of one predicate with ``gains [arguments, L]``, in exact float64 arithmetic."""
    words, labels = gains.shape
    best = 0.0
    for choice in itertools.product(range(-1, labels), repeat=words):
        named = [label for label in choice if label >= 0 and deterministic[label]]
        if len(named) == len(set(named)):
            value = predicate + sum(gains[j, label] for j, label in enumerate(choice) if label >= 0)
            best = max(best, value)
    return best


def random_scores(rng, batch, size, labels, kind):
    shapes = (batch, size), (batch, size, size), (batch, size, size, labels)
    if kind == "ties":
        parts = [rng.integers(-2, 3, shape).astype(float) for shape in shapes]
    else:
        parts = [rng.standard_normal(shape) for shape in shapes]
    if kind == "forbidden":
        for part in parts:
            part[rng.uniform(size=part.shape) < 0.3] = -np.inf
    if kind == "huge":
        parts = [part * 1e12 for part in parts]
    return GraphParts(*map(torch.from_numpy, parts))


KINDS = ["normal", "ties", "forbidden", "huge"]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_enumeration(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    for _ in range(250):
        words, labels = int(rng.integers(1, 4)), int(rng.integers(1, 5))
        scores = random_scores(rng, 2, words + 1, labels, kind)
        deterministic = torch.from_numpy(rng.uniform(size=labels) < 0.6)
        lengths = torch.tensor([words, int(rng.integers(1, words + 1))])
        graph = semantic_graph(
            scores.arcs, scores.labels, scores.predicates, lengths, deterministic=deterministic
        )
        assert not uses_a_label_twice(graph.labels, deterministic).any()
        assert ((graph.labels >= 0).any(1) <= graph.predicates).all()
        got = graph_scores(scores, graph)
        for b, n in enumerate(lengths.tolist()):
            best = 0.0
            for p in range(n + 1):
                arguments = [j for j in range(1, n + 1) if j != p]
                gains = (scores.arcs[b, arguments, p, None] + scores.labels[b, arguments, p]).numpy()
                best += best_by_enumeration(float(scores.predicates[b, p]), gains, deterministic)
            assert float(got[b]) == pytest.approx(best, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_local_decisions(kind):
    """Without predicates and determinism: the best label of every arc, if its arc is worth having."""
    rng = np.random.default_rng(7)
    scores = random_scores(rng, 20, 6, 3, kind)
    graph = semantic_graph(scores.arcs, scores.labels)
    for b, j, p in itertools.product(range(20), range(6), range(6)):
        gains = scores.arcs[b, j, p] + scores.labels[b, j, p]
        if j in (0, p) or gains.max() <= 0:
            assert graph.labels[b, j, p] == -1
        else:
            assert graph.labels[b, j, p] == int((gains == gains.max()).nonzero()[0])
    assert torch.equal(graph.predicates, (graph.labels >= 0).any(1))


def test_relaxed_program_would_be_fractional():
    """A predicate at -3 with two arguments worth 2 under one deterministic role: best is nothing at all."""
    arcs = torch.zeros(1, 4, 4)
    labels = torch.full((1, 4, 4, 1), -torch.inf)
    labels[0, 2:, 1] = 2.0
    predicates = torch.tensor([[0.0, -3.0, 0.0, 0.0]])
    free = semantic_graph(arcs, labels, predicates)
    assert free.labels[0, 2:, 1].tolist() == [0, 0]
    assert free.predicates[0].tolist() == [False, True, False, False]
    constrained = semantic_graph(arcs, labels, predicates, deterministic=[0])
    assert not constrained.predicates.any() and (constrained.labels == -1).all()


def test_a_predicate_needs_no_argument():
    arcs = torch.full((1, 3, 3), -torch.inf)
    graph = semantic_graph(arcs, torch.zeros(1, 3, 3, 2), torch.tensor([[-1.0, 2.0, 0.0]]))
    assert graph.predicates.tolist() == [[False, True, False]]
    assert (graph.labels == -1).all()


@settings(max_examples=cases(15, 120), deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3))
def test_padding_changes_nothing(seed, words, more):
    rng = np.random.default_rng(seed)
    small = random_scores(rng, 1, words + 1, 3, "ties")
    large = random_scores(rng, 1, words + 1 + more, 3, "normal")
    n = words + 1
    large.arcs[:, :n, :n], large.labels[:, :n, :n] = small.arcs, small.labels
    large.predicates[:, :n] = small.predicates
    large.arcs[:, n:] = torch.nan  # never read
    alone = semantic_graph(small.arcs, small.labels, small.predicates, deterministic=[0, 2])
    padded = semantic_graph(large.arcs, large.labels, large.predicates, [words], deterministic=[0, 2])
    assert torch.equal(padded.labels[:, :n, :n], alone.labels)
    assert torch.equal(padded.predicates[:, :n], alone.predicates)
    assert (padded.labels[:, n:] == -1).all() and (padded.labels[:, :, n:] == -1).all()
    assert not padded.predicates[:, n:].any()


@settings(max_examples=cases(15, 120), deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_cost_is_added_to_the_labels(seed, deterministic):
    rng = np.random.default_rng(seed)
    scores = random_scores(rng, 2, 5, 3, "normal")
    cost = torch.from_numpy(rng.standard_normal(scores.labels.shape))
    roles = [1] if deterministic else []
    augmented = semantic_graph(*_ordered(scores), deterministic=roles, cost=cost)
    added = semantic_graph(scores.arcs, scores.labels + cost, scores.predicates, deterministic=roles)
    assert torch.equal(augmented.labels, added.labels)


def _ordered(scores):
    return scores.arcs, scores.labels, scores.predicates


def test_inputs_are_left_alone_and_may_have_any_layout():
    rng = np.random.default_rng(3)
    scores = random_scores(rng, 2, 5, 4, "forbidden")
    before = [part.clone() for part in scores]
    graph = semantic_graph(*_ordered(scores), deterministic=[0, 1])
    assert all(torch.equal(a, b) for a, b in zip(before, scores))
    strided = scores.labels.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0).requires_grad_()
    again = semantic_graph(scores.arcs, strided, scores.predicates, deterministic=[0, 1])
    assert torch.equal(graph.labels, again.labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decided_in_float32(dtype):
    rng = np.random.default_rng(4)
    half = GraphParts(*(part.to(dtype) for part in random_scores(rng, 3, 6, 4, "normal")))
    full = GraphParts(*(part.float() for part in half))
    a, b = (semantic_graph(*_ordered(scores), deterministic=[0, 1, 2]) for scores in (half, full))
    assert torch.equal(a.labels, b.labels)


def test_indicators():
    graph = SemanticGraph(torch.tensor([[[-1, -1], [2, -1]]]), torch.tensor([[True, False]]))
    parts = graph_parts(graph, 3)
    assert parts.arcs.tolist() == [[[0, 0], [1, 0]]]
    assert parts.labels[0, 1, 0].tolist() == [0, 0, 1] and parts.labels.sum() == 1
    assert parts.predicates.tolist() == [[1, 0]]
    scores = GraphParts(torch.tensor([[1.0, 9.0]]), torch.ones(1, 2, 2), torch.arange(12.0).view(1, 2, 2, 3))
    assert graph_scores(scores, graph).item() == 1 + 1 + 8


def test_errors_name_the_row():
    arcs, labels = torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, 2)
    for value in (torch.nan, torch.inf):
        wrong = labels.clone()
        wrong[1, 2, 1, 0] = value
        with pytest.raises(ValueError, match="batch row 1"):
            semantic_graph(arcs, wrong)
    with pytest.raises(ValueError, match="batch row 0"):
        semantic_graph(arcs, labels, torch.tensor([[torch.nan, 0, 0], [0, 0, 0]]))
    with pytest.raises(ValueError, match="row 1"):
        semantic_graph(arcs, labels, lengths=[2, 3])
    with pytest.raises(ValueError, match="label_scores"):
        semantic_graph(arcs, labels[:, :2])
    with pytest.raises(ValueError, match="predicate_scores"):
        semantic_graph(arcs, labels, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="deterministic label 2"):
        semantic_graph(arcs, labels, deterministic=[2])
    with pytest.raises(ValueError, match="mask of 2"):
        semantic_graph(arcs, labels, deterministic=torch.tensor([True]))


def test_predicates_beyond_the_length_are_impossible():
    scores, lengths = check_graph(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, 1), torch.ones(1, 4), [2])
    assert scores.predicates.tolist() == [[1, 1, 1, -torch.inf]]
    assert lengths.tolist() == [2]
