"""Projections onto tree polytopes, by their optimality conditions over every tree."""

import numpy as np
import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from tree_enumeration import all_trees

from diffdecode.structure import (
    heads_to_arcs,
    nonprojective_tree,
    project_dep,
    project_trees,
    projective_tree,
)
from diffdecode.structure.kernels.active_set import project_onto_hull

KINDS = [(projective, multi_root) for projective in (True, False) for multi_root in (True, False)]


def vertices_of(n, projective, multi_root):
    return heads_to_arcs(all_trees(n, projective, multi_root), dtype=torch.float64).flatten(1).numpy()


def quadratic_program(point, vertices):
    """Nearest point of the hull as non-negative least squares; a heavy row makes the weights sum to 1."""
    weights, _ = nnls(np.vstack([vertices.T, np.full(len(vertices), 1e4)]), np.append(point, 1e4))
    return weights @ vertices


@pytest.mark.parametrize("projective, multi_root", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_is_the_quadratic_program_over_all_trees(n, projective, multi_root):
    rng = np.random.default_rng(n)
    vertices = vertices_of(n, projective, multi_root)
    for scale in (0.3, 1.0, 3.0):
        point = torch.from_numpy(rng.standard_normal((4, n + 1, n + 1)) * scale)
        found = project_trees(point, projective=projective, multi_root=multi_root)
        for b in range(4):
            projection = found.point[b].flatten().numpy()
            expected = quadratic_program(point[b].flatten().numpy(), vertices)
            assert np.abs(projection - expected).max() < 1e-6
            # The nearest point of a convex set is the one from which no vertex lies further along.
            residual = point[b].flatten().numpy() - projection
            assert ((vertices - projection) @ residual).max() < 1e-12
            assert nnls(vertices.T, projection)[1] < 1e-9  # and it is inside the hull


@settings(max_examples=cases(20, 160), deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(KINDS), st.sampled_from(["ties", "forbidden", "offset", "huge"])
)
def test_optimal_on_hard_points(seed, kind, family):
    rng = np.random.default_rng(seed)
    n = 4
    point = rng.standard_normal((1, n + 1, n + 1))
    if family == "ties":
        point = rng.integers(-1, 2, point.shape).astype(float)
    if family == "forbidden":
        point[rng.uniform(size=point.shape) < 0.3] = -np.inf
        for word in range(1, n + 1):
            point[:, word, word - 1] = 0.5  # a chain stays possible
    if family == "offset":
        point += 1e4 * rng.standard_normal((1, n + 1, 1))
    if family == "huge":
        point *= 1e8
    found = project_trees(torch.from_numpy(point), projective=kind[0], multi_root=kind[1])
    projection, point = found.point.numpy().ravel(), point.ravel()
    vertices = vertices_of(n, *kind)
    vertices = vertices[~(vertices[:, point == -np.inf] > 0).any(1)]
    residual = np.where(point > -np.inf, point - projection, 0.0)
    scale = 1 + np.abs(residual).max()
    assert ((vertices - projection) @ residual).max() < 1e-11 * scale
    assert nnls(vertices.T, projection)[1] < 1e-9
    assert (projection[point == -np.inf] == 0).all()


@pytest.mark.parametrize("projective, multi_root", KINDS)
def test_the_compiled_kernel_follows_the_definition(projective, multi_root):
    decide = projective_tree if projective else nonprojective_tree
    shape = (1, 9, 9)

    def argmax(scores):
        heads = decide(torch.from_numpy(scores).view(shape), multi_root=multi_root)
        return heads_to_arcs(heads, dtype=torch.float64).flatten().numpy()

    for seed in range(5):
        point = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))
        found = project_trees(point, projective=projective, multi_root=multi_root)
        flat = point.flatten().numpy()
        projection, gap, steps = project_onto_hull(flat, argmax, argmax(flat))
        assert np.abs(found.point.flatten().numpy() - projection).max() < 1e-9
        assert gap < 1e-12 and abs(int(found.steps) - steps) <= 3


@pytest.mark.parametrize("projective, multi_root", KINDS)
def test_degenerate_points(projective, multi_root):
    """Small integers: faces of many trees, weights that vanish exactly, argmaxes that tie."""
    generator = torch.Generator().manual_seed(0)
    vertices = torch.from_numpy(vertices_of(4, projective, multi_root))
    for spread in (1.0, 0.5):
        point = torch.randint(-1, 2, (3000, 5, 5), generator=generator) * spread
        found = project_trees(point.double(), projective=projective, multi_root=multi_root)
        projection = found.point.flatten(1)
        residual = point.flatten(1) - projection
        beyond = (residual @ vertices.T).amax(1) - (residual * projection).sum(1)
        assert beyond.max() < 1e-11


def test_a_long_sentence_converges():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 41, 41, generator=generator)
    heads = projective_tree(scores, [40, 25])
    point = heads_to_arcs(heads) - torch.randn(2, 41, 41, generator=generator)
    found = project_trees(point, [40, 25], start=heads)
    assert (found.gap <= 1e-12).all() and (found.steps < 150).all()
    assert torch.allclose(found.point.sum(2)[0, 1:], torch.ones(40))
    assert found.point[1, 26:].abs().sum() == 0 and found.point[1, :, 26:].abs().sum() == 0
    anywhere = project_trees(point, [40, 25])
    assert (found.point - anywhere.point).abs().max() < 2e-6
    # The polytope lies inside the relaxation of equation 5, so its nearest point is further away.
    relaxed = project_dep(point, [40, 25])
    assert (found.point[0] - point[0])[1:].norm() > (relaxed[0] - point[0])[1:].norm()


def test_the_gap_bounds_the_distance():
    generator = torch.Generator().manual_seed(1)
    point = torch.randn(6, 13, 13, generator=generator, dtype=torch.float64)
    exact = project_trees(point)
    for steps in (0, 3, 10):
        early = project_trees(point, max_steps=steps)
        squared = (early.point - exact.point).pow(2).flatten(1).sum(1)
        assert (squared <= early.gap + 1e-12).all() and (early.steps <= steps).all()
    assert (exact.gap <= 1e-12).all()


def test_a_tree_projects_onto_itself():
    trees = heads_to_arcs(all_trees(4, True, False))
    found = project_trees(trees)
    assert torch.equal(found.point, trees) and (found.steps == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_layout_and_grad(dtype):
    point = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = project_trees(point.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_())
    assert found.point.dtype == dtype and not found.point.requires_grad
    assert torch.equal(found.point, project_trees(point.double()).point.to(dtype))


def test_errors_name_the_row():
    point = torch.zeros(2, 3, 3)
    point[1, 1, 2] = torch.nan
    with pytest.raises(ValueError, match="row 1"):
        project_trees(point)
    with pytest.raises(ValueError, match="row 1"):
        project_trees(point, start=torch.tensor([[0, 1], [0, 1]]))
    point[1, 1] = -torch.inf
    with pytest.raises(ValueError, match="row 1"):
        project_trees(point)
    with pytest.raises(ValueError, match="row 0"):
        project_trees(torch.zeros(1, 3, 3), [3])
    forbidden = torch.zeros(1, 3, 3)
    forbidden[0, 1, 0] = -torch.inf
    with pytest.raises(ValueError, match="start"):
        project_trees(forbidden, start=torch.tensor([[0, 1]]))
