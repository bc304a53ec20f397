"""Both best-tree decisions against the enumeration of all trees, and all backends against each other."""

import pytest
import torch
from score_families import FAMILIES, ragged, random_scores
from tree_enumeration import all_trees, is_projective, is_tree, score_all

from diffdecode.structure import heads_to_arcs, nonprojective_tree, projective_tree, tree_scores, unchecked
from diffdecode.structure.kernels import is_installed, use_backend

DECISIONS = {True: projective_tree, False: nonprojective_tree}
CASES_EACH = 520  # x 10 families x 5 lengths x 4 decisions = 104,000 cases


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def wrong_cases(scores: torch.Tensor, n: int, projective: bool, multi_root: bool) -> int:
    """Sentences whose decision is not an allowed tree of the best score (or that were wrongly refused)."""
    per_tree = score_all(scores, n, projective, multi_root)
    best = per_tree.amax(1)
    possible = best > -torch.inf
    wrong = 0
    if possible.any():
        chosen = scores[possible]
        lengths = torch.full((len(chosen),), n)
        heads = DECISIONS[projective](ragged(chosen), lengths, multi_root=multi_root)
        assert (heads[:, n:] == -1).all()
        allowed = (heads[:, None, :n] == all_trees(n, projective, multi_root)).all(2).any(1)
        rounding = 1e-6 * n * chosen.masked_fill(chosen == -torch.inf, 0).abs().amax((1, 2)).double()
        reached = tree_scores(chosen.double(), heads[:, :n]) >= best[possible] - rounding
        wrong += int((~(allowed & reached)).sum())
    for row in scores[~possible][:20]:
        with pytest.raises(ValueError, match="batch row 0 has no possible"):
            DECISIONS[projective](row[None], multi_root=multi_root)
    return wrong


@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("projective", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_enumeration(family, projective, multi_root, generator):
    for n in range(1, 6):
        scores = random_scores(family, CASES_EACH, n, generator)
        assert wrong_cases(scores, n, projective, multi_root) == 0


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_enumeration_finds_a_wrong_decoder(backend, generator, monkeypatch):
    """The check above fails for a decoder that only takes each word's best head."""

    def best_heads(scores, lengths, multi_root):
        return scores[:, 1:, :].nan_to_num(-torch.inf, neginf=-torch.inf).argmax(2)[:, : int(lengths[0])]

    monkeypatch.setitem(DECISIONS, False, lambda s, lengths, multi_root: best_heads(s, lengths, multi_root))
    with use_backend(backend):
        assert wrong_cases(random_scores("normal", 100, 4, generator), 4, False, False) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("projective", [True, False])
def test_backends_agree_on_every_head(projective, multi_root, dtype, generator):
    """Ties included: equal decisions, not merely equally good ones."""
    lengths = torch.randint(1, 13, (30,), generator=generator)
    for family in ("normal", "ties", "all_equal", "huge", "offset", "peaked", "mixed"):
        scores = random_scores(family, 30, 12, generator)
        if family == "mixed":
            word = torch.arange(1, 13)
            scores[:, word, word - 1] = 0  # every sentence has a tree
        scores = scores.to(dtype)
        decisions = {}
        for backend in filter(is_installed, ("reference", "numba")):
            with use_backend(backend):
                decisions[backend] = DECISIONS[projective](scores, lengths, multi_root=multi_root)
        assert all(torch.equal(decisions["reference"], heads) for heads in decisions.values()), family


def test_equal_trees():
    """Which of the trees over equal scores is taken, by the rule in ``reference``."""
    scores = torch.zeros(1, 5, 5)
    assert projective_tree(scores).tolist() == [[0, 1, 2, 3]]
    assert projective_tree(scores, multi_root=True).tolist() == [[0, 1, 2, 3]]
    assert nonprojective_tree(scores).tolist() == [[2, 0, 1, 1]]
    assert nonprojective_tree(scores, multi_root=True).tolist() == [[0, 0, 0, 0]]


def test_heads_are_trees_of_their_kind(generator):
    scores = torch.randn(40, 16, 16, generator=generator)
    for multi_root in (False, True):
        projective = projective_tree(scores, multi_root=multi_root).tolist()
        assert all(is_tree(heads) and is_projective(heads) for heads in projective)
        crossing = nonprojective_tree(scores, multi_root=multi_root).tolist()
        assert all(map(is_tree, crossing)) and not all(map(is_projective, crossing))
        if not multi_root:
            assert {heads.count(0) for heads in projective + crossing} == {1}


@pytest.mark.parametrize("projective", [True, False])
def test_one_batch_equals_one_by_one(projective, generator):
    scores = torch.randn(20, 11, 11, generator=generator)
    lengths = torch.randint(1, 11, (20,), generator=generator)
    together = DECISIONS[projective](scores, lengths)
    for b, n in enumerate(lengths.tolist()):
        alone = DECISIONS[projective](scores[b : b + 1, : n + 1, : n + 1])
        assert together[b, :n].tolist() == alone[0].tolist()
        assert (together[b, n:] == -1).all()


@pytest.mark.parametrize("projective", [True, False])
def test_cost_augmented(projective, generator):
    """Against enumeration with the cost added by hand; under a cost of 100 it leaves the gold tree."""
    scores = torch.randn(50, 5, 5, generator=generator)
    gold = DECISIONS[projective](scores)
    cost = 100 * (1 - heads_to_arcs(gold))
    augmented = DECISIONS[projective](scores, cost=cost)
    assert torch.equal(augmented, DECISIONS[projective](scores + cost))
    reached = tree_scores((scores + cost).double(), augmented)
    torch.testing.assert_close(reached, score_all(scores + cost, 4, projective, False).amax(1))
    assert (augmented != gold).any(1).all()


@pytest.mark.parametrize("projective", [True, False])
def test_labels(projective, generator):
    """The best label of every arc; equal labels go to the first."""
    scores = torch.randn(30, 5, 5, 3, generator=generator)
    heads, labels = DECISIONS[projective](scores, [4] * 29 + [2])
    assert torch.equal(heads, DECISIONS[projective](scores.amax(-1), [4] * 29 + [2]))
    for b, m in ((0, 1), (5, 3), (29, 2)):
        assert labels[b, m - 1] == scores[b, m, heads[b, m - 1]].argmax()
    assert labels[29].tolist()[2:] == [-1, -1]
    assert (DECISIONS[projective](torch.zeros(1, 4, 4, 5))[1] == 0).all()
    arc_cost = torch.rand(30, 5, 5, generator=generator)
    with_cost = DECISIONS[projective](scores, cost=arc_cost)[0]
    assert torch.equal(with_cost, DECISIONS[projective](scores.amax(-1) + arc_cost))


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("projective", [True, False])
class TestBadInput:
    def decide(self, projective, backend, *arguments, **options):
        with use_backend(backend):
            return DECISIONS[projective](*arguments, **options)

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_not_a_score(self, projective, backend, bad):
        scores = torch.zeros(4, 4, 4)
        scores[2, 1, 3] = bad
        with pytest.raises(ValueError, match="batch row 2 hold NaN"):
            self.decide(projective, backend, scores)

    def test_no_tree(self, projective, backend):
        scores = torch.zeros(3, 4, 4)
        scores[1, 2, :] = -torch.inf
        with pytest.raises(ValueError, match="batch row 1 has no possible"):
            self.decide(projective, backend, scores)

    def test_two_roots_needed(self, projective, backend):
        scores = torch.zeros(2, 3, 3)
        scores[1, 1:, 1:] = -torch.inf
        with pytest.raises(ValueError, match="batch row 1 has no possible single-root"):
            self.decide(projective, backend, scores)
        assert self.decide(projective, backend, scores, multi_root=True)[1].tolist() == [0, 0]

    @pytest.mark.parametrize("lengths", [[3, 4], [3, 0], [3, -1]])
    def test_impossible_length(self, projective, backend, lengths):
        with pytest.raises(ValueError, match=f"length {lengths[1]} of batch row 1 is outside"):
            self.decide(projective, backend, torch.zeros(2, 4, 4), lengths)

    def test_no_words(self, projective, backend):
        with pytest.raises(ValueError, match="no word"):
            self.decide(projective, backend, torch.zeros(2, 1, 1))

    def test_wrong_shapes_and_types(self, projective, backend):
        for scores in (torch.zeros(3, 3), torch.zeros(2, 3, 4), torch.zeros(2, 3, 3, 0)):
            with pytest.raises(ValueError, match=r"scores|label"):
                self.decide(projective, backend, scores)
        with pytest.raises(ValueError, match="shape"):
            self.decide(projective, backend, torch.zeros(2, 3, 3), [1, 1, 1])
        with pytest.raises(TypeError, match="floating"):
            self.decide(projective, backend, torch.zeros(2, 3, 3, dtype=torch.int64))
        with pytest.raises(TypeError, match="integers"):
            self.decide(projective, backend, torch.zeros(1, 3, 3), torch.tensor([1.5]))

    def test_trusted(self, projective, backend):
        """No look at the values: the good sentences are decided, the others are not refused."""
        scores = torch.randn(3, 4, 4)
        expected = self.decide(projective, backend, scores)
        scores[1, 1] = torch.nan
        with unchecked():
            heads = self.decide(projective, backend, scores, torch.tensor([3, 3, 3]))
            assert torch.equal(heads[[0, 2]], expected[[0, 2]])
            self.decide(projective, backend, scores, torch.tensor([0, 3, 9]))
            with pytest.raises(ValueError, match="shape"):
                self.decide(projective, backend, scores, [1])
        with pytest.raises(ValueError, match="batch row 1 hold NaN"):
            self.decide(projective, backend, scores)

    def test_too_large_to_add(self, projective, backend):
        scores = torch.zeros(2, 3, 3, dtype=torch.float64)
        scores[1, 1, 2] = 1e305
        with pytest.raises(ValueError, match="batch row 1 exceed"):
            self.decide(projective, backend, scores)

    def test_float32_near_overflow_is_decided_in_float64(self, projective, backend):
        largest = torch.finfo(torch.float32).max
        scores = torch.full((1, 4, 4), -largest)
        scores[0, 1, 0] = scores[0, 2, 1] = scores[0, 3, 2] = largest
        assert self.decide(projective, backend, scores).tolist() == [[0, 1, 2]]

    def test_any_layout_and_dtype(self, projective, backend):
        scores = torch.randn(6, 6, 6).round()
        plain = self.decide(projective, backend, scores)
        transposed = scores.transpose(0, 2).contiguous().transpose(0, 2)
        assert torch.equal(self.decide(projective, backend, transposed), plain)
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            assert torch.equal(self.decide(projective, backend, scores.to(dtype)), plain)
        before = scores.clone().requires_grad_()
        assert not self.decide(projective, backend, before).requires_grad
        assert torch.equal(before.detach(), scores)

    def test_empty_batch(self, projective, backend):
        assert self.decide(projective, backend, torch.zeros(0, 4, 4)).shape == (0, 3)
