"""The Triton kernels in Triton's own CPU interpreter; run by test_triton.py with TRITON_INTERPRET=1."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from diffdecode.structure import heads_to_arcs
from diffdecode.structure.kernels import backend, reference
from diffdecode.structure.kernels.numba import backend as numba_backend
from diffdecode.structure.kernels.status import LARGEST_SUMMABLE, NO_TREE, status_of_scores
from diffdecode.structure.kernels.triton import backend as triton_backend
from diffdecode.structure.kernels.triton import eisner as triton_eisner
from diffdecode.structure.kernels.triton import inside_outside as triton_inside_outside
from diffdecode.structure.kernels.triton import matrix_tree as triton_matrix_tree
from diffdecode.structure.kernels.triton import projections as triton_projections
from diffdecode.structure.kernels.triton import scores as triton_scores
from diffdecode.structure.kernels.triton import spans as triton_spans

patch_tensors = interpreter._patch_lang_tensor


def patch_tensors_for_numpy(tensor, *scope):
    """Triton 3.6 makes Python's numbers of arrays with one number each, which numpy 2.5 refuses."""
    patch_tensors(tensor, *scope)
    to_number = lambda value: value.handle.data.item()  # noqa: E731
    scope[0].set_attr(tensor, "__index__", to_number) if scope else setattr(tensor, "__index__", to_number)


interpreter._patch_lang_tensor = patch_tensors_for_numpy

call = interpreter.InterpretedFunction.__call__


def call_without_patching(function, *arguments, **options):
    """The interpreter patches the language at each call of a function, which takes longer than the call."""
    patched = not tl.core.is_builtin(tl.core.arange)  # by the first call of one of Triton's own, for good
    return (function.rewrite() if patched else partial(call, function))(*arguments, **options)


interpreter.InterpretedFunction.__call__ = call_without_patching


def reduce_slice_by_slice(reduction, operands):
    """The interpreter calls what reduces for each two numbers, where whole slices can be given."""
    arrays = [operand.handle.data for operand in operands]

    def slices(place):
        taken = [array.take(place, reduction.axis) for array in arrays]
        return [reduction.to_tensor(part, operand.dtype) for part, operand in zip(taken, operands)]

    result = slices(0)
    for place in range(1, arrays[0].shape[reduction.axis]):
        result = reduction.combine_fn.fn(*result, *slices(place))
    return tuple(result)


interpreter.ReduceOps.generic_reduce = reduce_slice_by_slice

# A quarter of the time would go into looking whether indices overflow, which those of a few words never do.
builder = interpreter.interpreter_builder
builder.options = replace(builder.options, sanitize_overflow=False)

FAMILIES = ["normal", "ties", "huge", "forbidden"]
BOTH = pytest.mark.parametrize("multi_root", [False, True])


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


def sentences(n, seed, dtype=torch.float32):
    """Two of each family, shorter ones among them, in one batch: launches and long sentences take time."""
    scores = torch.cat([scores_of(family, 2, n, seed, dtype) for family in FAMILIES])
    return scores, torch.tensor([n, 1, n, n - 1, n - 1, 2, n, n - 2])


def assert_same_decisions(algorithm, scores, lengths, multi_root):
    expected, status = getattr(reference, algorithm)(scores, lengths, multi_root)
    heads, found = getattr(triton_backend, algorithm)(scores, lengths, multi_root)
    assert torch.equal(found, status)
    possible = status == 0
    assert torch.equal(heads[possible], expected[possible])
    assert possible[:6].all() and possible[6:].any()


def small_tiles(multi_root, usual=triton_spans.tile_shape):
    """So that a short sentence has several blocks of spans and several tiles of split points."""
    return {**usual(multi_root), "SPANS": 2, "SPLITS": 2}


def small_tiles_of_best(size, multi_root, usual=triton_eisner.tile_options):
    """And the words several pieces."""
    return {**usual(size, multi_root), "SPANS": 2, "SPLITS": 2, "SLOTS": 4}


@BOTH
def test_eisner_makes_the_same_decisions(multi_root, monkeypatch):
    monkeypatch.setattr(triton_eisner, "tile_options", small_tiles_of_best)
    monkeypatch.setattr(triton_scores, "LOOK", {"ROWS": 2, "COLUMNS": 2})
    assert_same_decisions("eisner", *sentences(5, 2, torch.float64), multi_root)


def test_eisner_in_single_precision_and_in_one_tile():
    scores, lengths = sentences(4, 4)
    assert_same_decisions("eisner", scores, lengths, False)


@BOTH
@pytest.mark.parametrize("n, dtype", [(7, torch.float32), (4, torch.float64)])
def test_edmonds_makes_the_same_decisions(n, dtype, multi_root):
    assert_same_decisions("arborescence", *sentences(n, n, dtype), multi_root)


def test_sentences_without_a_tree_are_reported():
    scores = scores_of("normal", 3, 2, seed=0)
    scores[1, :, 0] = -torch.inf
    scores[2, 1, 2] = torch.nan
    lengths = torch.tensor([2, 2, 2])
    for function in (triton_backend.eisner, triton_backend.arborescence, triton_backend.inside_outside):
        *_, status = found = function(scores, lengths, False)
        assert status.tolist() == [0, NO_TREE, 1]
    expected = reference.inside_outside(scores, lengths, False)
    assert all(torch.allclose(x[0].double(), y[0].double(), atol=1e-6) for x, y in zip(found, expected))
    product = triton_backend.inside_outside_covariance_product(scores, lengths, False, scores)
    assert product[0].any() and not product[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_known_of_scores_before_a_decision(dtype, monkeypatch):
    monkeypatch.setattr(triton_scores, "LOOK", {"ROWS": 2, "COLUMNS": 2})
    scores = torch.zeros(6, 5, 5, dtype=dtype)
    scores[:, 0] = scores[1, 4] = scores[:, 2, 2] = torch.nan  # not read: root, beyond the length, diagonal
    scores[2, 4, 3] = torch.inf
    scores[3, 1, 0] = 2 * LARGEST_SUMMABLE[dtype]
    scores[4, 4, 1:] = -torch.inf
    scores[5, 3, 1], scores[5, 1, 4] = torch.nan, 2 * LARGEST_SUMMABLE[dtype]
    lengths = torch.tensor([4, 3, 4, 1, 4, 4])
    status = triton_scores.looked_at(scores, lengths)
    assert status.tolist() == status_of_scores(scores, lengths).tolist() == [0, 0, 1, 3, 0, 1]
    assert torch.equal(triton_scores.possible(scores, lengths), reference.possible(scores, lengths))


@BOTH
def test_bad_sentences_harm_no_other(multi_root):
    scores = scores_of("normal", 4, 3, seed=0)
    scores[0] = torch.nan
    scores[2] = torch.inf
    expected, _ = reference.eisner(scores, torch.tensor([1, 3, 2, 2]), multi_root)
    for function in (triton_backend.eisner, triton_backend.arborescence):
        heads, status = function(scores, torch.tensor([1, 3, 2, 2]), multi_root)
        assert status.tolist() == [1, 0, 1, 0]
        if function is triton_backend.eisner:
            assert torch.equal(heads[[1, 3]], expected[[1, 3]])


def assert_same_numbers(scores, lengths, multi_root):
    """Marginals, log-partition and covariance product are the CPU's, where equal trees tie at any scale."""
    vector = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    on_cpu = backend(scores.device).projective
    marginals, log_partition, status = on_cpu.marginals(scores, lengths, multi_root)
    assert not status.any()
    product = on_cpu.covariance_product(scores, lengths, multi_root, vector)
    vector.diagonal(0, 1, 2).fill_(torch.nan)  # is not read
    found = triton_inside_outside.inside_outside(scores, lengths, multi_root, vector)
    assert torch.allclose(found[0], marginals, rtol=0, atol=1e-9)
    assert torch.allclose(found[1], log_partition, rtol=1e-14, atol=1e-12)
    assert torch.allclose(found[2], product, rtol=0, atol=1e-8)


@BOTH
def test_inside_outside_and_covariance(multi_root, monkeypatch):
    monkeypatch.setattr(triton_inside_outside, "tile_shape", small_tiles)
    scores, lengths = sentences(4 if multi_root else 5, 7, torch.float64)  # several tiles of larger items
    scores[3] *= 1e12  # ties
    scores[6:, :, 0] = scores[6:, :, 0].clamp(min=-1)
    assert_same_numbers(scores[[0, 1, 3, 4, 6]], lengths[[0, 1, 3, 4, 6]], multi_root)


def test_inside_outside_with_peaks_in_every_sentence(monkeypatch):
    """And totals that are never left beside a peak, as in very long sentences."""
    monkeypatch.setattr(triton_inside_outside, "SMALLEST", tl.constexpr(1e300))
    monkeypatch.setattr(triton_inside_outside, "LARGEST_TOTAL", tl.constexpr(1.5))
    scores, lengths = sentences(4, 7, torch.float64)
    assert_same_numbers(scores[[0, 2]], lengths[[0, 2]], False)


@pytest.mark.parametrize("multi_root, family", [(False, "ties"), (True, "huge"), (False, "forbidden")])
def test_matrix_tree_and_its_covariance_product(multi_root, family, monkeypatch):
    for module in (triton_matrix_tree, triton_matrix_tree.in_logs):
        monkeypatch.setattr(module, "TILE", {"WORDS": 2, "HEADS": 4})
    scores = scores_of(family, 3, 4, seed=4, dtype=torch.float64)
    vector = scores_of("normal", 3, 4, seed=9, dtype=torch.float64)
    vector = vector.masked_fill(scores == -torch.inf, torch.nan)
    lengths = torch.tensor([4, 1, 3])
    expected, log_partition, status = numba_backend.matrix_tree(scores, lengths, multi_root)
    marginals, found, found_status = triton_backend.matrix_tree(scores, lengths, multi_root)
    assert torch.equal(found_status, status)
    possible = status == 0
    assert possible.any()
    assert torch.allclose(found[possible], log_partition[possible], rtol=1e-14, atol=1e-12)
    # Logarithms of scores of 1e6 are exact to 1e-10.
    accuracy = 1e-9 if family == "huge" else 1e-13
    assert torch.allclose(marginals[possible], expected[possible], rtol=0, atol=accuracy)
    product = triton_backend.matrix_tree_covariance_product(scores, lengths, multi_root, vector)
    expected = numba_backend.matrix_tree_covariance_product(scores, lengths, multi_root, vector)
    assert torch.allclose(product[possible], expected[possible], rtol=0, atol=20 * accuracy)


def test_matrix_tree_where_one_word_must_be_the_root_word():
    """The likeliest one is another, so that the sentences are done again, in another order."""
    scores = scores_of("normal", 2, 3, seed=5, dtype=torch.float64)
    scores[0, 2, 1:] = scores[1, 3, 1:] = -torch.inf
    scores[:, 1, 0] = 5
    lengths = torch.tensor([3, 3])
    expected = numba_backend.matrix_tree(scores, lengths, False)
    found = triton_backend.matrix_tree(scores, lengths, False)
    assert all(torch.allclose(x, y, rtol=0, atol=1e-13) for x, y in zip(found[:2], expected[:2]))
    assert not found[2].any()
    vector = scores_of("normal", 2, 3, seed=6, dtype=torch.float64)
    expected = numba_backend.matrix_tree_covariance_product(scores, lengths, False, vector)
    found = triton_backend.matrix_tree_covariance_product(scores, lengths, False, vector)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_matrix_tree_of_bad_sentences():
    scores = scores_of("normal", 3, 2, seed=0)
    scores[1, :, 0] = -torch.inf
    scores[2, 1, 2] = torch.nan
    lengths = torch.tensor([2, 2, 2])
    marginals, log_partition, status = triton_backend.matrix_tree(scores, lengths, False)
    assert status.tolist() == [0, NO_TREE, 1]
    assert not marginals[1:].any() and (log_partition[1:] == -torch.inf).all()
    product = triton_backend.matrix_tree_covariance_product(scores, lengths, False, scores)
    assert product[0].any() and not product[1:].any()


@pytest.mark.parametrize("multi_root, scale", [(False, 1.0), (True, 1e4)])
@pytest.mark.parametrize("algorithm", ["sample_projective", "sample_arborescence"])
def test_samples_are_those_of_the_reference(algorithm, multi_root, scale):
    scores = scores_of("forbidden", 3, 4, seed=1) * scale
    scores[1:, :, 0] = 0
    scores[0, 3] = -torch.inf
    lengths = torch.tensor([4, 3, 4])
    seeds = torch.randint(-(2**63), 2**63 - 1, (1, 3), generator=torch.Generator().manual_seed(0))
    expected, status = getattr(reference, algorithm)(scores, lengths, multi_root, seeds)
    heads, found = getattr(triton_backend, algorithm)(scores, lengths, multi_root, seeds)
    assert torch.equal(found, status) and (status == 0).any()
    assert torch.equal(heads[:, status == 0], expected[:, status == 0])


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
