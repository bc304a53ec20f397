"""The k best trees against the enumeration of all trees."""

import pytest
import torch
from score_families import ragged, random_scores
from tree_enumeration import all_trees, score_all

from diffdecode.structure import k_best_trees, nonprojective_tree, projective_tree


@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("projective", [False, True])
@pytest.mark.parametrize("family", ["normal", "ties", "forbidden", "mixed", "huge", "tiny"])
def test_equals_enumeration(family, projective, multi_root):
    generator = torch.Generator().manual_seed(0)
    for n in range(1, 5):
        scores = random_scores(family, 12, n, generator)
        ranked = score_all(scores, n, projective, multi_root).double().sort(1, descending=True).values
        possible = ranked[:, 0] > -torch.inf
        scores, ranked = scores[possible], ranked[possible]
        k = min(9, ranked.shape[1] + 2)
        heads, totals = k_best_trees(
            ragged(scores), [n] * len(scores), k, projective=projective, multi_root=multi_root
        )
        expected = torch.full((k, len(scores)), -torch.inf, dtype=torch.float64)
        expected[: ranked.shape[1]] = ranked[:, :k].T
        torch.testing.assert_close(totals, expected, rtol=1e-6, atol=1e-38)
        assert (heads[..., n:] == -1).all()
        allowed = set(map(tuple, all_trees(n, projective, multi_root).tolist()))
        for b in range(len(scores)):
            found = [tuple(tree) for tree in heads[totals[:, b] > -torch.inf, b, :n].tolist()]
            assert len(set(found)) == len(found) and set(found) <= allowed


@pytest.mark.parametrize("projective", [False, True])
def test_first_is_the_best_and_scores_fall(projective):
    scores = torch.randn(5, 16, 16, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([15, 3, 8, 1, 12])
    heads, totals = k_best_trees(scores, lengths, 20, projective=projective)
    best = (projective_tree if projective else nonprojective_tree)(scores, lengths)
    assert torch.equal(heads[0], best)
    assert (totals[1:] <= totals[:-1]).all()
    assert totals[:, 3].isfinite().tolist() == [True] + [False] * 19  # one word, one tree
    assert len({tuple(tree.tolist()) for tree in heads[:, 0]}) == 20


def test_bad_input():
    with pytest.raises(ValueError, match="k >= 1"):
        k_best_trees(torch.zeros(1, 3, 3), k=0)
    with pytest.raises(ValueError, match="scores"):
        k_best_trees(torch.zeros(1, 3, 3, 2))
    with pytest.raises(ValueError, match="batch row 1 has no possible"):
        k_best_trees(torch.stack([torch.zeros(3, 3), torch.full((3, 3), -torch.inf)]))
