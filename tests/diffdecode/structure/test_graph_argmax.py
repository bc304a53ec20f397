"""Surrogate gradients of semantic graphs, against formulas and the enumeration of all graphs."""

import itertools
import math

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdecode.structure import (
    graph_argmax,
    graph_parts,
    project_sdp,
    project_sdp_sequential,
    semantic_graph,
)
from diffdecode.structure.graphs import GraphParts, Graphs, SemanticGraph
from diffdecode.structure.surrogates import SURROGATES, make_surrogate

NAMES = sorted(set(SURROGATES) - {"block_reinmax"})


def problem(words=3, labels=2, seed=0, batch=1, dtype=torch.float64):
    """Random scores, and random gradients of the parts."""
    generator = torch.Generator().manual_seed(seed)
    size = words + 1
    shapes = (batch, size), (batch, size, size), (batch, size, size, labels)
    return [GraphParts(*(torch.randn(s, generator=generator).to(dtype) for s in shapes)) for _ in range(2)]


def backward(scores, g, lengths=None, predicates=True, **arguments):
    """The parts that go forward, and the gradients of the scores, for ``dL/dparts = g``."""
    leaves = GraphParts(*(part.clone().requires_grad_() for part in scores))
    z = graph_argmax(
        leaves.arcs, leaves.labels, leaves.predicates if predicates else None, lengths, **arguments
    )
    used = list(zip(z, g))[0 if predicates else 1 :]
    torch.autograd.backward([part for part, _ in used], [by for _, by in used])
    return GraphParts(*(part.detach() for part in z)), GraphParts(*(leaf.grad for leaf in leaves))


def existing(part):
    """``part`` without the root's row and the diagonal."""
    size = part.shape[1]
    mask = 1 - torch.eye(size, dtype=part.dtype)
    mask[0] = 0
    return part * (mask.unsqueeze(-1) if part.dim() == 4 else mask)


def every_graph(words, labels, with_predicates):
    """Packed indicators ``[G, D]`` of all graphs."""
    size = words + 1
    arcs = [(j, p) for p in range(size) for j in range(1, size) if j != p]
    choices = torch.tensor(list(itertools.product(range(-1, labels), repeat=len(arcs))))
    graphs = torch.full((len(choices), size, size), -1)
    graphs[:, [j for j, _ in arcs], [p for _, p in arcs]] = choices
    used = (graphs >= 0).any(1)
    if with_predicates:
        flags = torch.tensor(list(itertools.product([False, True], repeat=size)))
        graph, flag = (flags[None] >= used[:, None]).all(-1).nonzero().unbind(1)
        graphs, used = graphs[graph], flags[flag]
    parts = graph_parts(SemanticGraph(graphs, used), labels, torch.float64)
    return structure_of(words, labels, with_predicates).pack(parts)


def structure_of(words, labels, with_predicates, deterministic=()):
    mask = torch.zeros(labels, dtype=torch.bool)
    mask[list(deterministic)] = True
    return Graphs(torch.tensor([words]), (words + 1, words + 1, labels), with_predicates, mask)


# ------------------------------------------------------------------------------ forward


@pytest.mark.parametrize("deterministic", [[], [0]])
def test_the_best_graph_goes_forward(deterministic):
    scores, _ = problem(5, 3, batch=4)
    parts = graph_argmax(*_ordered(scores), [5, 4, 1, 2], deterministic=deterministic)
    graph = semantic_graph(*_ordered(scores), [5, 4, 1, 2], deterministic=deterministic)
    expected = graph_parts(graph, 3, torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(parts, expected))
    local = graph_argmax(scores.arcs, scores.labels)
    assert torch.equal(local.labels.sum(-1), local.arcs)
    assert torch.equal(local.predicates, local.arcs.amax(1)) and not local.predicates.requires_grad


def _ordered(scores):
    return scores.arcs, scores.labels, scores.predicates


# ------------------------------------------------------------------------------ equation 6


def test_spigot_by_hand():
    """One arc 0 -> 1 with two labels; all numbers can be followed on paper."""
    arcs = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    labels = torch.zeros(1, 2, 2, 2)
    labels[0, 1, 0] = torch.tensor([2.0, -1.0])
    g = GraphParts(torch.zeros(1, 2), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, 2))
    g.labels[0, 1, 0] = torch.tensor([0.3, -0.3])
    g.arcs[0, 1, 0] = 0.6
    scores = GraphParts(torch.zeros(1, 2), arcs, labels)
    z, gradient = backward(scores, g, predicates=False)
    assert z.arcs[0, 1, 0] == 1 and z.labels[0, 1, 0].tolist() == [1, 0]
    # labels (1, 0) - (.3, -.3) = (.7, .3), no arc 1 - (1 - .6) = .6; sum 1.6, so .2 off each: (.5, .1, .4)
    assert gradient.labels[0, 1, 0].tolist() == pytest.approx([0.5, -0.1], abs=1e-6)
    assert gradient.arcs[0, 1, 0].item() == pytest.approx(0.4, abs=1e-6)


@settings(max_examples=cases(15, 120), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 1.0, 10.0]), st.booleans(), st.booleans())
def test_spigot_is_equations_4_and_6(seed, eta, with_predicates, sequential):
    scores, g = problem(3, 2, seed, batch=2)
    polytope, onto = ("sequential", project_sdp_sequential) if sequential else ("relaxed", project_sdp)
    z, gradient = backward(scores, g, predicates=with_predicates, eta=eta, polytope=polytope)
    arcs, labels = onto(z.arcs - eta * g.arcs, z.labels - eta * g.labels)
    assert (gradient.arcs - existing(z.arcs - arcs)).abs().max() < 1e-9 * max(1, eta)
    assert (gradient.labels - existing(z.labels - labels)).abs().max() < 1e-9 * max(1, eta)
    if with_predicates:
        clipped = (z.predicates - eta * g.predicates).clamp(0, 1)
        assert (gradient.predicates - (z.predicates - clipped)).abs().max() < 1e-12
    else:
        assert gradient.predicates is None


def test_an_update_inside_the_polytope_is_the_gradient():
    scores, _ = problem(3, 2)
    z, _ = backward(scores, GraphParts(*map(torch.zeros_like, scores)))
    inside_arcs = existing(torch.full_like(z.arcs, 0.5))
    inside = GraphParts(
        torch.full_like(z.predicates, 0.5), inside_arcs, inside_arcs.unsqueeze(-1) * 0.5 + 0 * z.labels
    )
    g = GraphParts(*(a - b for a, b in zip(z, inside)))
    _, gradient = backward(scores, g, eta=0.4)
    assert all((a - 0.4 * b).abs().max() < 1e-9 for a, b in zip(gradient, g))


@pytest.mark.parametrize("with_predicates", [True, False])
@pytest.mark.parametrize("deterministic", [[], [0, 1]])
def test_exact_spigot_projects_onto_the_hull_of_graphs(with_predicates, deterministic):
    vertices = every_graph(2, 2, with_predicates)
    structure = structure_of(2, 2, with_predicates, deterministic)
    for role in deterministic:
        roles = structure.unpack(vertices).labels[..., role]
        vertices = vertices[(roles.sum(1) <= 1).all(1)]
    for seed in range(10):
        scores, g = problem(2, 2, seed)
        z, gradient = backward(
            scores, g, predicates=with_predicates, deterministic=deterministic, surrogate="spigot_exact"
        )
        zero = torch.zeros_like(z.predicates)
        packed = [
            structure.pack(GraphParts(p if with_predicates else zero, existing(a), existing(b)))[0]
            for p, a, b in (z, (gradient.predicates, gradient.arcs, gradient.labels), g)
        ]
        projected = packed[0] - packed[1]
        residual = packed[0] - packed[2] - projected
        assert ((vertices - projected) @ residual).max() < 1e-9


def test_clip_takes_the_norm_over_all_parts_of_a_sentence():
    scores, g = problem(3, 2, batch=2)
    _, gradient = backward(scores, g, eta="clip", max_norm=0.5)
    for b in range(2):
        own = GraphParts(*(part[b : b + 1] for part in scores)), GraphParts(*(p[b : b + 1] for p in g))
        parts = own[1].predicates, existing(own[1].arcs), existing(own[1].labels)
        norm = math.sqrt(sum((part**2).sum().item() for part in parts))
        _, expected = backward(*own, eta=min(1.0, 0.5 / norm))
        assert all((a[b] - e[0]).abs().max() < 1e-12 for a, e in zip(gradient, expected))


# ------------------------------------------------------------------------------ distributions


@pytest.mark.parametrize("with_predicates", [True, False])
def test_marginals_and_covariance_are_those_of_all_graphs(with_predicates):
    vertices = every_graph(2, 2, with_predicates)
    structure = structure_of(2, 2, with_predicates)
    scores, g = problem(2, 2, seed=1)
    packed, vector = structure.pack(scores), structure.pack(g) * structure.possible(structure.pack(scores))
    p = (vertices @ packed[0]).softmax(0)
    mean = p @ vertices
    assert (structure.marginals(packed) * structure.possible(packed) - mean).abs().max() < 1e-12
    centred = vertices - mean
    expected = (p * (centred @ vector[0])) @ centred
    for name in ("marginals", "structured_st"):
        surrogate = make_surrogate(name)
        found = surrogate.gradient(structure, packed, vertices[:1], vector) * structure.possible(packed)
        assert (found - expected).abs().max() < 1e-12
    z = graph_argmax(*_ordered(scores)[: 3 if with_predicates else 2], surrogate="marginals")
    assert (structure.pack(z) - mean).abs().max() < 1e-12


@pytest.mark.parametrize("with_predicates", [True, False])
def test_structured_reinmax_is_exact_on_quadratics(with_predicates):
    vertices = every_graph(2, 1, with_predicates)
    structure = structure_of(2, 1, with_predicates)
    scores, _ = problem(2, 1, seed=2)
    packed = structure.pack(scores)
    possible = structure.possible(packed)
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(packed.shape[1], packed.shape[1], generator=generator, dtype=torch.float64)
    matrix = matrix + matrix.T
    p = (vertices @ packed[0]).softmax(0)
    values = ((vertices @ matrix) * vertices).sum(1)
    truth = (p * (values - p @ values)) @ vertices
    surrogate, total = make_surrogate("structured_reinmax"), 0
    for z, probability in zip(vertices, p):
        g = 2 * (z @ matrix)[None] * possible
        total = total + probability * surrogate.gradient(structure, packed, z[None], g) * possible
    assert (total[0] - truth).norm() < 1e-10 * truth.norm()


@pytest.mark.parametrize("with_predicates", [True, False])
def test_samples_follow_the_distribution(with_predicates):
    vertices = every_graph(2, 2, with_predicates)
    scores, _ = problem(2, 2, seed=3)
    count = 6000
    many = [part.expand(count, *part.shape[1:]) for part in _ordered(scores)]
    if not with_predicates:
        many = many[:2]
    generator = torch.Generator().manual_seed(0)
    structure = structure_of(2, 2, with_predicates)
    z = structure.pack(graph_argmax(*many, surrogate="structured_reinmax", generator=generator))
    p = (vertices @ structure.pack(scores)[0]).softmax(0)
    found = (z[:, None] == vertices[None]).all(-1).double().mean(0)
    assert found.sum().item() == pytest.approx(1)
    assert (found - p).abs().max() < 5 * math.sqrt(0.25 / count)


# ------------------------------------------------------------------------------ what all of them promise


@pytest.mark.parametrize("with_predicates", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_padding_and_forbidden_parts_get_nothing(name, with_predicates):
    scores, g = problem(4, 3, batch=2)
    scores.arcs[0, 2, 1] = -torch.inf
    scores.labels[0, 3, 1, 2] = -torch.inf
    scores.labels[0, 4, 1] = -torch.inf
    for part in (scores.arcs, scores.labels, g.arcs, g.labels):
        part[1, 3:] = torch.nan
        part[1, :, 3:] = torch.nan
    scores.predicates[1, 3:] = torch.nan
    g.predicates[1, 3:] = torch.nan
    generator = torch.Generator().manual_seed(0)
    z, gradient = backward(scores, g, [4, 2], with_predicates, surrogate=name, generator=generator)
    for part in (*z[1:], *gradient[1:]):
        assert torch.isfinite(part).all()
        assert (part[1, 3:] == 0).all() and (part[1, :, 3:] == 0).all() and (part[0, 2, 1] == 0).all()
        assert (part[:, 0] == 0).all() and (part.diagonal(0, 1, 2) == 0).all()
    assert z.labels[0, 3, 1, 2] == gradient.labels[0, 3, 1, 2] == 0
    assert (gradient.labels[0, 4, 1] == 0).all()
    if with_predicates:
        assert (gradient.predicates[1, 3:] == 0).all() and (z.predicates[1, 3:] == 0).all()
    if name != "pipeline":
        assert gradient.arcs.abs().sum() > 0 and gradient.labels.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_dtypes(name, dtype):
    scores, g = problem(3, 2, batch=2, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    z, gradient = backward(scores, g, surrogate=name, generator=generator)
    assert all(part.dtype == dtype for part in (*z, *gradient))
    assert all(torch.isfinite(part).all() for part in gradient)
    if name not in ("marginals",):
        assert all(((part == 0) | (part == 1)).all() for part in z)


def test_errors():
    scores, g = problem(3, 2, batch=2)
    with pytest.raises(ValueError, match="deterministic"):
        graph_argmax(*_ordered(scores), surrogate="structured_reinmax", deterministic=[0])
    with pytest.raises(ValueError, match="block"):
        backward(scores, g, surrogate="block_reinmax")
    with pytest.raises(ValueError, match="'sequential'"):
        backward(scores, g, polytope="p_dep")
    scores.labels[1, 2, 1, 0] = torch.nan
    for name in NAMES:
        with pytest.raises(ValueError, match="batch row 1"):
            graph_argmax(*_ordered(scores), surrogate=name)
