"""Samples of trees against the enumerated distribution, and entropies."""

import pytest
import torch
from score_families import ragged
from tree_enumeration import all_trees, is_projective, is_tree, score_all

from diffdecode.structure import (
    nonprojective_marginals,
    projective_marginals,
    sample_nonprojective_trees,
    sample_projective_trees,
    tree_entropy,
)
from diffdecode.structure.kernels import reference, use_backend
from diffdecode.structure.kernels.numba import backend as numba_backend

SAMPLERS = {True: sample_projective_trees, False: sample_nonprojective_trees}

both_kinds = pytest.mark.parametrize("projective", [True, False])
both_roots = pytest.mark.parametrize("multi_root", [False, True])


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(2)


def chi_squared_deviation(
    heads: torch.Tensor, scores: torch.Tensor, projective: bool, multi_root: bool
) -> float:
    """Pearson's statistic of sampled ``heads [S, n]`` under ``scores [M, M]``, in standard deviations."""
    n = heads.shape[1]
    trees = all_trees(n, projective, multi_root)
    expected = score_all(scores[None], n, projective, multi_root)[0].softmax(0) * len(heads)
    code = (n + 1) ** torch.arange(n)
    codes = (trees * code).sum(1)
    counts = torch.bincount((heads * code).sum(1), minlength=int(codes.max()) + 1)
    assert counts[codes].sum() == len(heads), "a sample that is no allowed tree"
    usual = expected > 5
    statistic = ((counts[codes] - expected)[usual].square() / expected[usual]).sum()
    freedom = int(usual.sum()) - 1
    return float((statistic - freedom) / max(2 * freedom, 1) ** 0.5)


@both_kinds
@both_roots
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_follow_the_distribution(projective, multi_root, scale, generator):
    scores = torch.randn(3, 5, 5, generator=generator) * scale
    scores[1, 2, 4] = scores[2, 1, 3] = -torch.inf
    heads = SAMPLERS[projective](
        ragged(scores), [4, 4, 4], 20_000, multi_root=multi_root, generator=generator
    )
    assert (heads[:, :, 4:] == -1).all()
    for b in range(3):
        assert chi_squared_deviation(heads[:, b, :4], scores[b], projective, multi_root) < 5


def test_the_statistic_finds_a_wrong_sampler(generator):
    scores = torch.randn(1, 5, 5, generator=generator)
    heads = sample_nonprojective_trees(scores * 1.1, None, 20_000, generator=generator)
    assert chi_squared_deviation(heads[:, 0], scores[0], False, False) > 5


@both_roots
def test_projective_samples_equal_the_reference(multi_root, generator):
    """The same numbers of the random stream, so the same trees; the log domain (scale 500) included."""
    lengths = [9, 1, 5, 2]
    for scale in (1.0, 500.0):
        scores = torch.randn(4, 10, 10, generator=generator, dtype=torch.float64) * scale
        drawn = []
        for backend in ("numba", "reference"):
            seeded = torch.Generator().manual_seed(5)
            with use_backend(backend):
                drawn.append(
                    sample_projective_trees(scores, lengths, 7, multi_root=multi_root, generator=seeded)
                )
        assert torch.equal(*drawn)


@both_roots
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_word_by_word_equals_the_reference(multi_root, scale, generator):
    """What replaces walks that get lost."""
    scores = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64) * scale
    lengths = torch.tensor([5, 1, 3])
    seeds = torch.randint(2**60, (6, 3), generator=generator)
    heads, _ = numba_backend.sample_arborescence(scores, lengths, multi_root, seeds, patience=0)
    expected, _ = reference.sample_arborescence(scores, lengths, multi_root, seeds)
    assert torch.equal(heads, expected)


@both_roots
def test_giving_up_lost_walks_does_not_bias(multi_root, generator):
    """About half of the walks are given up here."""
    scores = torch.randn(1, 5, 5, generator=generator)
    scores[0, 1, 2] = scores[0, 2, 1] = 3.0
    seeds = torch.randint(2**60, (20_000, 1), generator=generator)
    length = torch.tensor([4])
    heads, _ = numba_backend.sample_arborescence(scores, length, multi_root, seeds, patience=2)
    assert chi_squared_deviation(heads[:, 0], scores[0], False, multi_root) < 5


@both_kinds
@both_roots
def test_never_hangs_on_attracting_words(projective, multi_root, generator):
    """Words 1 and 2 point at each other with a score of 1000: one walk in exp(1000) would leave them."""
    scores = torch.zeros(1, 7, 7)
    scores[0, 1, 2] = scores[0, 2, 1] = 1000
    heads = SAMPLERS[projective](scores, samples=50, multi_root=multi_root, generator=generator)[:, 0]
    assert all(map(is_tree, heads.tolist()))
    assert ((heads[:, 0] == 2) ^ (heads[:, 1] == 1)).all()


@both_kinds
def test_average_to_the_marginals(projective, generator):
    scores = torch.randn(2, 21, 21, generator=generator) * 2
    lengths = torch.tensor([20, 12])
    marginals = (projective_marginals if projective else nonprojective_marginals)(scores, lengths)[0]
    heads = SAMPLERS[projective](scores, lengths, 4000, generator=generator)
    for b, n in enumerate(lengths.tolist()):
        assert all(is_tree(tree) for tree in heads[:50, b, :n].tolist())
        if projective:
            assert all(is_projective(tree) for tree in heads[:50, b, :n].tolist())
        averages = torch.nn.functional.one_hot(heads[:, b, :n], n + 1).float().mean(0)
        torch.testing.assert_close(averages, marginals[b, 1 : n + 1, : n + 1], atol=0.05, rtol=0)


@both_kinds
def test_same_generator_same_trees(projective):
    scores = torch.randn(9, 12, 12)
    first, second, other = (
        SAMPLERS[projective](scores, samples=3, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert first.shape == (3, 9, 11)


@both_kinds
def test_labels(projective, generator):
    scores = torch.randn(1, 3, 3, 2, generator=generator)
    scores[0, 1, 0, 1] = -torch.inf
    heads, labels = SAMPLERS[projective](scores.expand(2, -1, -1, -1), [2, 1], 20_000, generator=generator)
    assert (labels[:, 1, 1] == -1).all() and (labels[:, 1, 0] == 0).all()
    chosen = heads[:, 0, 0] == 2
    share = labels[:, 0, 0][chosen].float().mean()
    assert share.item() == pytest.approx(scores[0, 1, 2].softmax(0)[1].item(), abs=0.03)


@both_kinds
def test_bad_input(projective):
    with pytest.raises(ValueError, match="batch row 1 hold NaN"):
        SAMPLERS[projective](torch.stack([torch.zeros(3, 3), torch.full((3, 3), torch.nan)]))
    with pytest.raises(ValueError, match="batch row 0 has no possible"):
        SAMPLERS[projective](torch.full((1, 3, 3), -torch.inf))
    with pytest.raises(ValueError, match="samples"):
        SAMPLERS[projective](torch.zeros(1, 3, 3), samples=0)


@both_kinds
@both_roots
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
def test_entropy(projective, multi_root, scale, generator):
    scores = torch.randn(20, 5, 5, generator=generator, dtype=torch.float64) * scale
    scores[3, 2, 1] = -torch.inf
    scores.requires_grad_()
    entropy = tree_entropy(scores, projective=projective, multi_root=multi_root)
    log_probabilities = score_all(scores, 4, projective, multi_root).log_softmax(1)
    terms = torch.where(log_probabilities > -torch.inf, log_probabilities.exp() * log_probabilities, 0)
    torch.testing.assert_close(entropy, -terms.sum(1), atol=1e-8, rtol=1e-8)
    (gradient,) = torch.autograd.grad(entropy.sum(), scores)
    assert gradient.isfinite().all()


def test_entropy_gradient(generator):
    scores = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    for projective in (True, False):
        assert torch.autograd.gradcheck(lambda s, kind=projective: tree_entropy(s, projective=kind), scores)
