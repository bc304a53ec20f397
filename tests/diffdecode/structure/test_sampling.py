"""Samples of trees against the enumerated distribution."""

import pytest
import torch
from score_families import ragged
from tree_enumeration import all_trees, is_projective, is_tree, score_all

from diffdecode.structure import (
    nonprojective_marginals,
    projective_marginals,
    sample_nonprojective_trees,
    sample_projective_trees,
)
from diffdecode.structure.kernels import use_backend
from diffdecode.structure.kernels.randomness import ARC_SPAN, number, uniform, uniforms

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


@both_kinds
@both_roots
def test_samples_equal_the_reference(projective, multi_root, generator):
    """A seed gives its numbers to places, so the same trees; the log domain (scale 500) included."""
    lengths = [9, 1, 5, 2]
    for scale in (1.0, 30.0, 500.0):
        scores = torch.randn(4, 10, 10, generator=generator, dtype=torch.float64) * scale
        scores[0, 1, 3:] = -torch.inf
        drawn = []
        for backend in ("numba", "reference"):
            seeded = torch.Generator().manual_seed(5)
            with use_backend(backend):
                drawn.append(
                    SAMPLERS[projective](scores, lengths, 7, multi_root=multi_root, generator=seeded)
                )
        assert torch.equal(*drawn)


@both_roots
def test_by_way_of_words_that_many_arcs_lead_to(multi_root, generator):
    """Half of all words hang on the last one, which is eliminated first and takes over a head of theirs."""
    scores = torch.randn(1, 5, 5, generator=generator)
    scores[0, 1:4, 4] += 3
    heads = sample_nonprojective_trees(scores, samples=20_000, multi_root=multi_root, generator=generator)
    assert chi_squared_deviation(heads[:, 0], scores[0], False, multi_root) < 5


def test_one_word_may_be_the_only_one_that_can_be_the_root_word(generator):
    """And it is not the first one, which is eliminated last elsewhere."""
    scores = torch.randn(1, 5, 5, generator=generator)
    scores[0, [1, 2, 4], 0] = -torch.inf
    scores[0, 1, 2:] = scores[0, 3, 1:] = -torch.inf
    scores[0, 1, 3] = 0
    heads = sample_nonprojective_trees(scores, samples=20_000, generator=generator)
    assert chi_squared_deviation(heads[:, 0], scores[0], False, False) < 5


def test_places_have_the_same_numbers_everywhere(generator):
    seeds = torch.randint(-(2**63), 2**63 - 1, (50, 1), generator=generator)
    places = number(ARC_SPAN, 3, torch.arange(40))
    numbers = uniforms(seeds, places)
    one_by_one = [[uniform(seed, place) for place in places.tolist()] for seed in seeds.flatten().tolist()]
    assert numbers.tolist() == one_by_one
    assert numbers.min() >= 0 and numbers.max() < 1 and abs(numbers.mean() - 0.5) < 0.03
    assert abs(numbers.var() - 1 / 12) < 0.01 and len(numbers.unique()) == numbers.numel()


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
    """In proportion to their chances, the same in company as alone."""
    scores = torch.randn(1, 3, 3, 2, generator=generator)
    scores[0, 1, 0, 1] = -torch.inf
    two = scores.expand(2, -1, -1, -1)
    heads, labels = SAMPLERS[projective](two, [2, 1], 20_000, generator=generator)
    seeded = [torch.Generator().manual_seed(0) for _ in range(2)]
    padded = torch.nn.functional.pad(scores, (0, 0, 0, 2, 0, 2))
    alone = SAMPLERS[projective](scores, [2], 9, generator=seeded[0])
    wider = SAMPLERS[projective](padded, [2], 9, generator=seeded[1])
    assert all(torch.equal(a, b[:, :, :2]) for a, b in zip(alone, wider))
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
