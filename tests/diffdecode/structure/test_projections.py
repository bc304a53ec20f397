"""Projections against quadratic programs, their optimality conditions, and each other."""

import numpy as np
import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from diffdecode.structure import project_dep, project_sdp, project_sdp_sequential, project_simplex
from diffdecode.structure.kernels import backend as kernels_for
from diffdecode.structure.kernels import reference, use_backend

SEEDS = st.integers(0, 10**6)
SCALES = st.sampled_from([0.1, 1.0, 30.0, 1e6])


def quadratic_program(point, equality):
    """argmin |x - point| with 0 <= x <= 1 and ``equality @ x = b``, by a general solver."""
    matrix, b = equality
    found = minimize(
        lambda x: 0.5 * ((x - point) ** 2).sum(),
        np.full(len(point), 0.5),
        jac=lambda x: x - point,
        bounds=[(0, 1)] * len(point),
        constraints={"type": "eq", "fun": lambda x: matrix @ x - b, "jac": lambda x: matrix},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_simplex_is_the_quadratic_program(size):
    rng = np.random.default_rng(size)
    for scale in (0.2, 1.0, 4.0):
        point = rng.standard_normal(size) * scale
        expected = quadratic_program(point, (np.ones((1, size)), np.ones(1)))
        assert np.abs(project_simplex(torch.from_numpy(point)).numpy() - expected).max() < 1e-6


def test_p_dep_is_the_quadratic_program():
    """Equation 5 as it is printed: one constraint a word over all its incoming arcs, self arcs excluded."""
    rng = np.random.default_rng(0)
    words = 3
    arcs = [(m, h) for m in range(1, words + 1) for h in range(words + 1) if h != m]
    heads = np.array([[float(m == word) for m, _ in arcs] for word in range(1, words + 1)])
    for scale in (0.3, 1.0, 3.0):
        point = rng.standard_normal((words + 1, words + 1)) * scale
        got = project_dep(torch.from_numpy(point)[None])[0].numpy()
        index = tuple(np.array(arcs).T)
        expected = quadratic_program(point[index], (heads, np.ones(words)))
        assert np.abs(got[index] - expected).max() < 1e-6
        assert got[0].sum() == 0 and np.trace(got) == 0


def test_p_sdp_is_the_quadratic_program():
    """Equation 6 with the [0, 1] bounds; the released heuristic is feasible but further away."""
    rng = np.random.default_rng(1)
    further = 0
    for _ in range(120):
        labels = int(rng.integers(1, 6))
        scale = rng.choice([0.2, 1.0, 3.0])
        arc, label = rng.standard_normal() * scale + 0.5, rng.standard_normal(labels) * scale
        matrix = np.append(np.ones(labels), -1.0)[None]
        expected = quadratic_program(np.append(label, arc), (matrix, np.zeros(1)))
        arguments = torch.tensor(arc, dtype=torch.float64), torch.from_numpy(label)
        got = np.append(project_sdp(*arguments)[1], project_sdp(*arguments)[0])
        assert np.abs(got - expected).max() < 1e-6
        fitted = np.append(project_sdp_sequential(*arguments)[1], project_sdp_sequential(*arguments)[0])
        assert abs(fitted[:-1].sum() - fitted[-1]) < 1e-12 and (fitted >= 0).all() and (fitted <= 1).all()
        target = np.append(label, arc)
        excess = np.linalg.norm(fitted - target) - np.linalg.norm(got - target)
        assert excess > -1e-12
        further += excess > 1e-6
    assert further > 30


@settings(max_examples=cases(50, 400), deadline=None)
@given(SEEDS, st.integers(1, 12), SCALES, st.sampled_from(["normal", "ties", "forbidden"]))
def test_two_simplex_algorithms_agree_and_are_optimal(seed, size, scale, kind):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((5, size)) * scale
    if kind == "ties":
        rows = rng.integers(-2, 3, rows.shape) * scale
    if kind == "forbidden":
        rows[:, 1:][rng.uniform(size=(5, size - 1)) < 0.5] = -np.inf
    rows = torch.from_numpy(rows)
    michelot = kernels_for(rows.device).simplex(rows)
    assert (michelot - reference.simplex(rows)).abs().max() < 1e-9 * max(1, scale * 1e-4)
    assert (michelot >= 0).all() and (michelot[rows == -torch.inf] == 0).all()
    assert (michelot.sum(-1) - 1).abs().max() < 1e-9 * max(1, scale * 1e-4)
    # Optimal iff no vertex lies further along the residual than the point itself.
    residual = torch.where(rows > -torch.inf, rows - michelot, -torch.inf)
    along = torch.where(michelot > 0, residual * michelot, 0).sum(-1)
    assert (residual.amax(-1) - along).max() < 1e-9 * scale + 1e-12


@pytest.mark.parametrize("dtype, accuracy", [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_p_dep_of_a_padded_batch(dtype, accuracy, backend):
    generator = torch.Generator().manual_seed(0)
    point = torch.randn(6, 9, 9, generator=generator, dtype=torch.float64)
    point[point < -1.2] = -torch.inf
    point[:, :, 0] = point[:, :, 0].clamp(min=-1)
    lengths = torch.tensor([8, 1, 5, 3, 7, 2])
    with use_backend(backend):
        got = project_dep(point.to(dtype), lengths)
    assert got.dtype == dtype
    for b, n in enumerate(lengths.tolist()):
        for word in range(1, n + 1):
            heads = [h for h in range(n + 1) if h != word]
            expected = reference.simplex(point[b, word, heads][None])[0]
            assert (got[b, word, heads] - expected).abs().max() < accuracy
        got[b, 1 : n + 1, : n + 1] = 0
    assert (got == 0).all()


@pytest.mark.parametrize("size", [1, 4])
def test_gradients_are_the_jacobians(size):
    torch.manual_seed(size)
    point = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: project_dep(x, [3, 1]), point)
    assert torch.autograd.gradcheck(lambda x: project_simplex(x, dim=1), point)
    arcs = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(3, 2, size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project_sdp, (arcs, labels))
    assert torch.autograd.gradcheck(project_sdp_sequential, (arcs, labels))


def test_forbidden_parts_get_no_gradient():
    point = torch.zeros(1, 3, 3, requires_grad=True)
    forbidden = point.masked_fill(
        torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.bool), -torch.inf
    )
    (project_dep(forbidden) * torch.randn(3, 3)).sum().backward()
    assert point.grad[0, 1].abs().sum() == 0  # its only head is the root
    assert torch.isfinite(point.grad).all()
    arcs = torch.tensor([0.7, -torch.inf, 0.7])
    labels = torch.tensor([[0.2, 0.1], [3.0, 3.0], [-torch.inf, 0.4]])
    projected = project_sdp(arcs, labels)
    assert projected[0][1] == 0 and (projected[1][1] == 0).all() and projected[1][2, 0] == 0
    assert torch.allclose(projected[0], projected[1].sum(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_dtype_layout_and_dimension(dtype):
    generator = torch.Generator().manual_seed(0)
    point = torch.randn(4, 5, 3, generator=generator).to(dtype)
    along_first = project_simplex(point, dim=0)
    assert along_first.dtype == dtype and along_first.shape == point.shape
    expected = project_simplex(point.to(torch.promote_types(dtype, torch.float32)).permute(1, 2, 0)).permute(
        2, 0, 1
    )
    assert torch.equal(along_first, expected.to(dtype))
    strided = point[:, :3].transpose(1, 2).requires_grad_()
    projected = project_dep(strided)
    projected.sum().backward()
    assert projected.dtype == strided.grad.dtype == dtype


def test_huge_points_lose_nothing():
    point = torch.tensor([[1e30, 1e30, -1e30], [-3e38, 3e38, 0.0]])
    assert project_simplex(point).tolist() == [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_errors_name_the_row(backend):
    with use_backend(backend):
        for value in (torch.nan, torch.inf):
            point = torch.zeros(3, 4, 4)
            point[2, 1, 3] = value
            with pytest.raises(ValueError, match="batch row 2"):
                project_dep(point)
            assert torch.isfinite(project_dep(point, [3, 3, 1])).all()  # padding is not read
        impossible = torch.zeros(2, 3, 3)
        impossible[1, 2] = -torch.inf
        with pytest.raises(ValueError, match="batch row 1"):
            project_dep(impossible)
        with pytest.raises(ValueError, match="batch row 1"):
            project_simplex(impossible[:, 2])
    with pytest.raises(ValueError, match="batch row 1"):
        project_dep(torch.zeros(2, 3, 3), [2, 4])
    with pytest.raises(ValueError, match="need arcs of shape"):
        project_sdp(torch.zeros(3), torch.zeros(2, 4))
