"""Marginals, log-partitions and their derivatives against enumeration, finite differences and each other."""

import pytest
import torch
from score_families import ragged, random_scores
from tree_enumeration import all_trees, enumerated_marginals, score_all

from diffdecode.structure import nonprojective_marginals, projective_marginals
from diffdecode.structure.kernels import use_backend

MARGINALS = {True: projective_marginals, False: nonprojective_marginals}
FAMILIES = ("normal", "ties", "forbidden", "tiny", "offset", "peaked", "mixed")

both_kinds = pytest.mark.parametrize("projective", [True, False])
both_roots = pytest.mark.parametrize("multi_root", [False, True])
backends = pytest.mark.parametrize("backend", ["reference", "numba"])


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1)


def feasible(scores, n, projective, multi_root):
    return scores[score_all(scores, n, projective, multi_root).amax(1) > -torch.inf]


@backends
@both_kinds
@both_roots
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_enumeration(family, projective, multi_root, backend, generator):
    """Values, and the gradient of both outputs, on sentences padded with NaN."""
    for n in range(1, 6):
        scores = random_scores(family, 60, n, generator)
        scores = feasible(scores, n, projective, multi_root)
        exact = scores.double().requires_grad_()
        marginals, log_partition = enumerated_marginals(exact, n, projective, multi_root)
        weights = torch.randn(scores.shape, generator=generator)
        weights_of_partitions = torch.randn(len(scores), generator=generator)
        objective = (marginals * weights).sum() + (log_partition * weights_of_partitions).sum()
        (gradient,) = torch.autograd.grad(objective, exact)
        gradient = gradient.masked_fill(scores == -torch.inf, 0)

        padded = ragged(scores).requires_grad_()
        lengths = torch.full((len(scores),), n)
        with use_backend(backend):
            ours, our_partition = MARGINALS[projective](padded, lengths, multi_root=multi_root)
            inner = ours[:, : n + 1, : n + 1]
            objective = (inner * weights).sum() + (our_partition * weights_of_partitions).sum()
            (our_gradient,) = torch.autograd.grad(objective, padded)
        assert ours.dtype == our_partition.dtype == torch.float32
        torch.testing.assert_close(inner.double(), marginals, atol=3e-7, rtol=0)
        assert ours.sum().item() == pytest.approx(inner.sum().item())
        torch.testing.assert_close(our_partition.double(), log_partition, atol=1e-6, rtol=3e-7)
        torch.testing.assert_close(our_gradient[:, : n + 1, : n + 1].double(), gradient, atol=3e-6, rtol=1e-6)
        assert our_gradient.isfinite().all()


@both_kinds
@both_roots
@pytest.mark.parametrize("scale", [30.0, 100.0, 300.0, 3000.0])
def test_exact_at_any_scale(projective, multi_root, scale, generator):
    """Where LU factorisations and float32 log-sums lose all digits, in float64, forbidden arcs or not."""
    for forbidden in (False, True):
        scores = torch.randn(300, 6, 6, generator=generator, dtype=torch.float64) * scale
        if forbidden:
            scores = scores.masked_fill(torch.rand(scores.shape, generator=generator) < 0.4, -torch.inf)
        scores = feasible(scores, 5, projective, multi_root)
        expected, expected_partition = enumerated_marginals(scores, 5, projective, multi_root)
        marginals, log_partition = MARGINALS[projective](scores, multi_root=multi_root)
        torch.testing.assert_close(marginals, expected, atol=1e-9, rtol=0)
        torch.testing.assert_close(log_partition, expected_partition)


@both_kinds
@both_roots
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_numba_equals_reference_on_longer_sentences(projective, multi_root, scale, generator):
    scores = torch.randn(6, 15, 15, generator=generator, dtype=torch.float64) * scale
    scores[:, :, 3:6] = scores[:, :, 3:6].masked_fill(
        torch.rand(6, 15, 3, generator=generator) < 0.5, -torch.inf
    )
    lengths = torch.tensor([14, 13, 9, 7, 2, 1])
    vector = torch.randn(scores.shape, generator=generator, dtype=torch.float64)
    results = []
    for backend in ("numba", "reference"):
        leaf = scores.clone().requires_grad_()
        with use_backend(backend):
            marginals, log_partition = MARGINALS[projective](leaf, lengths, multi_root=multi_root)
            (gradient,) = torch.autograd.grad((marginals * vector).sum(), leaf)
        results.append((marginals, log_partition, gradient))
    for ours, reference in zip(*results):
        torch.testing.assert_close(ours, reference, atol=1e-8, rtol=1e-8)


@both_kinds
@both_roots
def test_gradients_against_finite_differences(projective, multi_root, generator):
    scores = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    lengths = torch.tensor([3, 2])

    def outputs(scores):
        return MARGINALS[projective](scores, lengths, multi_root=multi_root)

    assert torch.autograd.gradcheck(outputs, scores)
    assert torch.autograd.gradgradcheck(outputs, scores)


@both_kinds
def test_gradient_is_zero_where_nothing_is_read(projective, generator):
    scores = torch.randn(2, 6, 6, generator=generator)
    scores[0, 2, 3] = -torch.inf
    scores.requires_grad_()
    marginals, log_partition = MARGINALS[projective](scores, [5, 3])
    upstream = torch.randn(marginals.shape, generator=generator)
    upstream[0, 2, 3] = torch.nan  # of an arc that cannot be
    (gradient,) = torch.autograd.grad((marginals, log_partition), scores, (upstream, torch.ones(2)))
    assert gradient.isfinite().all()
    assert gradient[0, 2, 3] == 0 and (gradient[:, 0] == 0).all()
    assert (gradient[1, 4:] == 0).all() and (gradient[1, :, 4:] == 0).all()


@both_kinds
@both_roots
def test_are_probabilities(projective, multi_root, generator):
    scores = torch.randn(10, 31, 31, generator=generator) * 5
    lengths = torch.randint(1, 31, (10,), generator=generator)
    marginals, _ = MARGINALS[projective](scores, lengths, multi_root=multi_root)
    word = torch.arange(1, 31) <= lengths[:, None]
    torch.testing.assert_close(marginals[:, 1:].sum(2), word.float())
    assert (marginals >= -1e-6).all()
    if not multi_root:
        torch.testing.assert_close(marginals[:, :, 0].sum(1), torch.ones(10))


@both_kinds
def test_log_partition_counts_trees(projective):
    """Equal scores of 0: the log of the number of trees, Cayley's formula for all of them."""
    for n in range(1, 6):
        for multi_root in (False, True):
            _, log_partition = MARGINALS[projective](torch.zeros(1, n + 1, n + 1), multi_root=multi_root)
            count = len(all_trees(n, projective, multi_root))
            assert log_partition.exp().item() == pytest.approx(count, rel=1e-5)
    _, log_partition = nonprojective_marginals(torch.zeros(1, 41, 41, dtype=torch.float64), multi_root=True)
    torch.testing.assert_close(log_partition, 39 * torch.tensor([41.0], dtype=torch.float64).log())


@both_kinds
def test_very_long_sentence(projective):
    """The number of projective trees over 400 words exceeds float64's range."""
    size = 401 if projective else 201
    marginals, log_partition = MARGINALS[projective](torch.zeros(1, size, size))
    assert log_partition.isfinite().all()
    torch.testing.assert_close(marginals[0, 1:].sum(1), torch.ones(size - 1))


@both_kinds
def test_labels(projective, generator):
    """A labelled arc counts once for every label: enumerate with the labels summed out by hand."""
    scores = torch.randn(8, 4, 4, 3, generator=generator, dtype=torch.float64)
    scores[0, 1, 2] = -torch.inf  # no label possible
    scores[1, 2, 1, 0] = -torch.inf
    scores.requires_grad_()
    marginals, log_partition = MARGINALS[projective](scores)
    arcs = scores.logsumexp(-1)
    expected, expected_partition = enumerated_marginals(arcs, 3, projective, False)
    torch.testing.assert_close(log_partition, expected_partition)
    torch.testing.assert_close(marginals.sum(-1), expected)
    (gradient,) = torch.autograd.grad(log_partition.sum(), scores, retain_graph=True)
    torch.testing.assert_close(gradient, marginals)
    (second,) = torch.autograd.grad(marginals.square().sum(), scores)
    assert second.isfinite().all() and (second[0, 1, 2] == 0).all()


@both_kinds
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_float32_with_gradient_in_half(projective, dtype, generator):
    scores = torch.randn(3, 5, 5, generator=generator).to(dtype).requires_grad_()
    marginals, log_partition = MARGINALS[projective](scores)
    assert marginals.dtype == log_partition.dtype == torch.float32
    expected, _ = MARGINALS[projective](scores.detach().float())
    torch.testing.assert_close(marginals, expected)
    (gradient,) = torch.autograd.grad(marginals.square().sum() + log_partition.sum(), scores)
    assert gradient.dtype == dtype


@both_kinds
def test_bad_input(projective):
    marginals = MARGINALS[projective]
    scores = torch.zeros(3, 4, 4)
    not_a_score, impossible = scores.clone(), scores.clone()
    not_a_score[1, 2, 1] = torch.nan
    impossible[2, 1] = -torch.inf
    for backend in ("numba", "reference"):
        with use_backend(backend):
            with pytest.raises(ValueError, match="batch row 1 hold NaN"):
                marginals(not_a_score)
            with pytest.raises(ValueError, match="batch row 2 has no possible single-root"):
                marginals(impossible)
    with pytest.raises(ValueError, match="length 4 of batch row 0"):
        marginals(scores, [4, 3, 3])


@both_kinds
def test_non_contiguous(projective, generator):
    scores = torch.randn(5, 7, 7, generator=generator)
    strided = scores.permute(2, 1, 0).contiguous().permute(2, 1, 0).requires_grad_()
    marginals, _ = MARGINALS[projective](strided)
    torch.testing.assert_close(marginals, MARGINALS[projective](scores)[0])
    (gradient,) = torch.autograd.grad(marginals.square().sum(), strided)
    assert gradient.shape == scores.shape


@both_kinds
@both_roots
@pytest.mark.parametrize("scale", [1e6, 1e8, 1e10])
def test_ties_at_huge_scales_in_the_reference(projective, multi_root, scale, generator):
    """It adds up logarithms of the scores' size, and is exact to their rounding."""
    scores = torch.randint(0, 3, (60, 7, 7), generator=generator).double() * scale
    found = []
    for backend in ("numba", "reference"):
        with use_backend(backend):
            found.append(MARGINALS[projective](scores, multi_root=multi_root)[0])
    assert torch.allclose(*found, rtol=0, atol=1e-15 * scale)
    assert torch.allclose(found[0][:, 1:].sum(2), torch.ones(60, 6).double(), atol=1e-12)
