"""The Triton kernels in Triton's own CPU interpreter; run by test_triton.py with TRITON_INTERPRET=1."""

import pytest
import torch
import triton.runtime.interpreter

from diffdecode.structure import heads_to_arcs
from diffdecode.structure.kernels import backend, reference
from diffdecode.structure.kernels.triton import backend as triton_backend
from diffdecode.structure.kernels.triton import eisner as triton_eisner
from diffdecode.structure.kernels.triton import inside_outside as triton_inside_outside
from diffdecode.structure.kernels.triton import projections as triton_projections
from diffdecode.structure.trees import NO_TREE, tree_scores

patch_tensors = triton.runtime.interpreter._patch_lang_tensor


def patch_tensors_for_numpy(tensor, *scope):
    """Triton 3.6 makes Python's numbers of arrays with one number each, which numpy 2.5 refuses."""
    patch_tensors(tensor, *scope)
    to_number = lambda value: value.handle.data.item()  # noqa: E731
    scope[0].set_attr(tensor, "__index__", to_number) if scope else setattr(tensor, "__index__", to_number)


triton.runtime.interpreter._patch_lang_tensor = patch_tensors_for_numpy

FAMILIES = ["normal", "ties", "huge", "forbidden"]


def scores_of(family, batch, n, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch, n + 1, n + 1, generator=generator, dtype=torch.float64)
    if family == "ties":
        scores = torch.randint(0, 3, scores.shape, generator=generator).double()
    if family == "huge":
        scores *= 1e6
    if family == "forbidden":
        scores[torch.rand(scores.shape, generator=generator) < 0.4] = -torch.inf
    return scores.to(dtype)


def assert_same_decisions(algorithm, scores, lengths, multi_root, family):
    expected, status = getattr(reference, algorithm)(scores, lengths, multi_root)
    heads, found = getattr(triton_backend, algorithm)(scores, lengths, multi_root)
    assert torch.equal(found, status)
    possible = status == 0
    assert torch.equal(heads[possible], expected[possible])
    assert family == "forbidden" or possible.all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4, 9])
def test_eisner_makes_the_same_decisions(n, multi_root, family):
    scores = scores_of(family, 3, n, seed=n)
    lengths = torch.tensor([n, max(1, n // 2), max(1, n - 1)])
    assert_same_decisions("eisner", scores, lengths, multi_root, family)


def small_tiles(multi_root, usual=triton_eisner.tile_shape):
    """So that a short sentence has several blocks of spans and several tiles of split points."""
    return {**usual(multi_root), "SPANS": 4, "SPLITS": 2}


def test_eisner_in_double_precision_and_in_several_tiles(monkeypatch):
    monkeypatch.setattr(triton_eisner, "tile_shape", small_tiles)
    scores = scores_of("ties", 2, 13, seed=1, dtype=torch.float64)
    lengths = torch.tensor([13, 9])
    for multi_root in (False, True):
        expected, _ = reference.eisner(scores, lengths, multi_root)
        heads, _ = triton_backend.eisner(scores, lengths, multi_root)
        assert torch.equal(heads, expected)
        assert torch.equal(tree_scores(scores, heads), tree_scores(scores, expected))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4, 9])
def test_edmonds_makes_the_same_decisions(n, multi_root, family):
    scores = scores_of(family, 4, n, seed=n, dtype=torch.float64 if n == 4 else torch.float32)
    lengths = torch.tensor([n, n, max(1, n // 2), max(1, n - 1)])
    assert_same_decisions("arborescence", scores, lengths, multi_root, family)


def test_decisions_report_sentences_without_a_tree():
    scores = scores_of("normal", 3, 3, seed=0)
    scores[1, :, 0] = -torch.inf
    scores[2, 1, 2] = torch.nan
    for decide in (triton_backend.eisner, triton_backend.arborescence):
        _, status = decide(scores, torch.tensor([3, 3, 3]), False)
        assert status.tolist() == [0, NO_TREE, 1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("n", [1, 4, 7])
def test_inside_outside(n, multi_root, family, monkeypatch):
    if n == 7:
        monkeypatch.setattr(triton_inside_outside, "tile_shape", small_tiles)
    scores = scores_of(family, 3, n, seed=n)
    if family == "huge":
        scores /= 1e3  # so that several trees have some probability
    lengths = torch.tensor([n, max(1, n // 2), max(1, n - 1)])
    expected, log_partition, status = reference.inside_outside(scores, lengths, multi_root)
    marginals, found, found_status = triton_backend.inside_outside(scores, lengths, multi_root)
    assert torch.equal(found_status, status)
    possible = status == 0
    assert torch.allclose(found[possible], log_partition[possible], rtol=1e-12, atol=1e-10)
    assert torch.allclose(marginals[possible], expected[possible].double(), atol=1e-6)
    assert torch.allclose(marginals[possible].sum((1, 2)), lengths[possible].double(), rtol=1e-9)


@pytest.mark.parametrize("dtype, accuracy", [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("family", FAMILIES)
def test_projections(family, dtype, accuracy):
    point = scores_of(family, 3, 6, seed=2, dtype=dtype)
    point[:, :, 0] = point[:, :, 0].clamp(min=-1)
    lengths = torch.tensor([6, 1, 4])
    found, expected = triton_projections.p_dep(point, lengths), backend(point.device).p_dep(point, lengths)
    assert torch.allclose(found, expected, atol=accuracy, equal_nan=True)
    rows = point.flatten(0, 1)
    found, expected = triton_projections.simplex(rows), backend(rows.device).simplex(rows)
    assert torch.allclose(found, expected, atol=accuracy, equal_nan=True)


def test_projections_show_what_cannot_be_projected():
    rows = torch.tensor([[0.0, torch.nan, 1.0], [-torch.inf] * 3, [torch.inf, 0.0, 0.0], [1.0, 0.0, 3.0]])
    found = triton_projections.simplex(rows)
    assert found.isnan().any(1).tolist() == [True, True, True, False]
    assert triton_projections.simplex(rows[:0]).shape == (0, 3)


def test_spigot_on_the_kernels():
    """Forward and backward of SPIGOT from the two kernels alone, as on a GPU."""
    scores, g = scores_of("normal", 2, 7, seed=3), scores_of("normal", 2, 7, seed=4)
    lengths = torch.tensor([7, 5])
    heads, _ = triton_backend.eisner(scores, lengths, False)
    z = heads_to_arcs(heads)
    gradient = z - triton_projections.p_dep(z - g, lengths)
    expected = z - reference.p_dep(z - g, lengths)
    assert torch.allclose(gradient, expected, atol=1e-6)
