"""What each continuous top-k operator claims, and what the others do not."""

import math

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from diffdecode.categorical import TOP_K_OPERATORS, beam_overlap, continuous_top_k, hard_top_k

OPERATORS = ("peaked", "softsort", "lapsum", "successive")
SET_OPERATORS = ("lapsum", "successive")  # rows are differences of relaxed sets
ALPHAS = (1e-3, 0.1, 1.0, 10.0, 1e3, 1e5, 1e8)
INF = math.inf


def log_prob_scores(batch=8, width=3, vocabulary=60, dtype=torch.float32, seed=0):
    """Cumulative scores as a beam has them: a log-softmax on top of each element's score."""
    generator = torch.Generator().manual_seed(seed)
    local = (3 * torch.randn(batch, width, vocabulary, generator=generator, dtype=dtype)).log_softmax(-1)
    return (torch.tensor([-5.0, -5.5, -6.0], dtype=dtype)[:width, None] + local).flatten(1)


# Scores on a grid, so that ties are frequent; some impossible, some far away.
score_values = st.one_of(
    st.integers(-6, 6).map(lambda i: i / 2), st.floats(-50, 50), st.just(-INF), st.sampled_from([-1e4, 1e4])
)


@st.composite
def score_rows(draw, min_size=1, max_size=9):
    row = draw(st.lists(score_values, min_size=min_size, max_size=max_size))
    if all(score == -INF for score in row):
        row[draw(st.integers(0, len(row) - 1))] = 0.0
    return torch.tensor([row], dtype=torch.float64)


any_operator = st.sampled_from(OPERATORS)
any_alpha = st.floats(-3, 8).map(lambda exponent: 10.0**exponent)


def test_all_operators_are_registered():
    assert set(OPERATORS) <= set(TOP_K_OPERATORS)


def test_peaked_is_algorithm_2_to_the_bit():
    scores = log_prob_scores()
    for alpha in ALPHAS:
        maxima = torch.stack([scores.sort(1, descending=True).values[:, i] for i in range(3)], 1)
        expected = torch.stack(
            [torch.softmax(-alpha * (scores - maxima[:, i : i + 1]) ** 2, 1) for i in range(3)], 1
        )
        assert torch.equal(continuous_top_k(scores, 3, alpha, "peaked"), expected)


@settings(max_examples=cases(50, 400), deadline=None)
@given(score_rows(), st.integers(1, 9), any_alpha, any_operator, st.booleans())
def test_rows_are_distributions_and_surplus_rows_are_zero(scores, k, alpha, operator, hard):
    k = min(k, scores.size(1))
    scores.requires_grad_()
    rows = continuous_top_k(scores, k, alpha, operator, hard)
    possible = int((scores > -INF).sum())
    assert (rows >= 0).all()
    torch.testing.assert_close(rows.sum(-1), (torch.arange(k) < possible).double()[None], atol=1e-9, rtol=0)
    rows.mul(torch.linspace(-1, 1, rows.numel()).view_as(rows)).sum().backward()
    assert scores.grad.isfinite().all()
    impossible = scores == -INF
    assert (rows.detach().permute(0, 2, 1)[impossible] == 0).all()
    assert (scores.grad[impossible] == 0).all()


@settings(max_examples=cases(30, 240), deadline=None)
@given(score_rows(2), st.integers(1, 9), any_alpha, st.sampled_from(SET_OPERATORS))
def test_columns_of_relaxed_sets_never_exceed_one(scores, k, alpha, operator):
    k = min(k, scores.size(1))
    inclusion = continuous_top_k(scores, k, alpha, operator).sum(1)
    assert inclusion.max() <= 1 + 1e-12


@pytest.mark.parametrize("operator", ["peaked", "softsort"])
def test_the_other_columns_do_exceed_one(operator):
    scores = torch.tensor([[0.0, -0.5, -1.0, -5.0]], dtype=torch.float64)
    assert continuous_top_k(scores, 3, 1.0, operator).sum(1).max() > 1.02


def inclusion_while_rising(operator, alpha):
    """Inclusion of one candidate as its score rises through those of six others, ``[181]``."""
    rising = torch.linspace(-6, 3, 181, dtype=torch.float64)
    others = torch.arange(0, -6, -1, dtype=torch.float64).expand(len(rising), -1)
    return continuous_top_k(torch.cat([others, rising[:, None]], 1), 3, alpha, operator)[..., -1].sum(1)


@settings(max_examples=cases(30, 240), deadline=None)
@given(
    score_rows(2), st.integers(1, 9), any_alpha, st.floats(0, 20), st.sampled_from(SET_OPERATORS), st.data()
)
def test_relaxed_sets_are_monotone(scores, k, alpha, rise, operator, data):
    k = min(k, scores.size(1))
    index = data.draw(st.integers(0, scores.size(1) - 1))
    raised = scores.clone()
    raised[0, index] += rise
    before, after = (continuous_top_k(s, k, alpha, operator).sum(1)[0, index] for s in (scores, raised))
    assert after >= before - 1e-12


@pytest.mark.parametrize("alpha", [3.0, 5.0])
def test_only_relaxed_sets_are_monotone_in_one_rising_score(alpha):
    drops = {o: float(-inclusion_while_rising(o, alpha).diff().clamp(max=0).min()) for o in OPERATORS}
    assert all(drops[operator] <= 1e-14 for operator in SET_OPERATORS)
    assert all(drops[operator] > 1e-4 for operator in ("peaked", "softsort"))


@settings(max_examples=cases(30, 240), deadline=None)
@given(score_rows(2), st.integers(1, 9), any_alpha, st.sampled_from(["peaked", "softsort"]))
def test_row_i_is_largest_at_rank_i(scores, k, alpha, operator):
    k = min(k, int((scores > -INF).sum()))
    rows = continuous_top_k(scores, k, alpha, operator)[0]
    ranked = scores[0].topk(k)
    for i in range(k):  # equal scores have equal weights, so compare weights, not positions
        assert rows[i, ranked.indices[i]] == rows[i].max()


@settings(max_examples=cases(30, 240), deadline=None)
@given(score_rows(2), st.integers(1, 9), any_alpha, st.sampled_from(SET_OPERATORS))
def test_relaxed_sets_include_better_candidates_more(scores, k, alpha, operator):
    k = min(k, scores.size(1))
    degrees = continuous_top_k(scores, k, alpha, operator)[0].cumsum(0)  # the set of the j best
    in_order = degrees[:, scores[0].argsort(descending=True)]
    assert (in_order.diff(dim=1) <= 1e-12).all()


@settings(max_examples=cases(37, 300), deadline=None)
@given(st.permutations(range(8)), st.integers(1, 8), any_operator)
def test_limit_is_the_hard_selection(order, k, operator):
    scores = -0.1 * torch.tensor([order], dtype=torch.float32)
    rows = continuous_top_k(scores, k, 1e6, operator)
    torch.testing.assert_close(rows, hard_top_k(scores, k), atol=1e-6, rtol=0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_limit_keeps_impossible_candidates_and_surplus_rows_out(operator):
    scores = torch.tensor([[-INF, 2.0, -INF, 1.0]])
    expected = torch.tensor([[[0.0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]])
    torch.testing.assert_close(continuous_top_k(scores, 4, 1e4, operator), expected)
    assert torch.equal(hard_top_k(scores, 4), expected)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_gradient_is_exact(operator, alpha):
    scores = log_prob_scores(batch=2, vocabulary=4, dtype=torch.float64)
    scores[1, 5] = -INF
    possible = scores > -INF

    def rows(free):
        return continuous_top_k(
            torch.full_like(scores, -INF).masked_scatter(possible, free), 3, alpha, operator
        )

    assert gradcheck(rows, (scores[possible].clone().requires_grad_(),))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_any_alpha(operator, dtype):
    scores = log_prob_scores(dtype=dtype)
    scores[0, 10:] = -INF
    scores[1, :2] = scores[1, 2]  # a tie
    scores[2] = 0.0  # nothing but ties
    scores[3, 0] = -1e4
    scores[4, 1:] = -INF  # one candidate for three rows
    for alpha in ALPHAS:
        leaf = scores.clone().requires_grad_()
        rows = continuous_top_k(leaf, 3, alpha, operator)
        weights = torch.randn(rows.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
        (rows * weights).sum().backward()
        assert rows.isfinite().all() and leaf.grad.isfinite().all()
        assert (leaf.grad[scores == -INF] == 0).all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_hard_forward_is_hard_with_the_soft_gradient(operator):
    scores = log_prob_scores()
    weights = torch.randn(8, 3, scores.size(1), generator=torch.Generator().manual_seed(2))
    gradients = []
    for hard in (False, True):
        leaf = scores.clone().requires_grad_()
        rows = continuous_top_k(leaf, 3, 1.0, operator, hard_forward=hard)
        (rows * weights).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(rows.detach(), hard_top_k(scores, 3))
    assert torch.equal(*gradients)
    assert beam_overlap(rows).max() == 0


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_sentence_does_not_depend_on_its_batch_mates(operator):
    scores = log_prob_scores()
    together = continuous_top_k(scores, 3, 2.0, operator)
    alone = torch.cat([continuous_top_k(row[None], 3, 2.0, operator) for row in scores])
    torch.testing.assert_close(together, alone, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(operator, dtype):
    scores = log_prob_scores().to(dtype).requires_grad_()
    rows = continuous_top_k(scores, 3, 2.0, operator)
    assert torch.equal(rows, continuous_top_k(scores.float(), 3, 2.0, operator))
    rows.square().sum().backward()
    assert scores.grad.dtype == dtype and scores.grad.isfinite().all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_shape_of_memory_does_not_matter(operator):
    scores = log_prob_scores()
    strided = scores.t().contiguous().t()
    rows = continuous_top_k(scores, 3, 2.0, operator)
    torch.testing.assert_close(continuous_top_k(strided, 3, 2.0, operator), rows, atol=1e-6, rtol=1e-5)
    assert continuous_top_k(scores[:0], 3, 2.0, operator).shape == (0, 3, scores.size(1))


def test_lapsum_thresholds_solve_their_equation():
    """sum_v F(alpha (s_v - b_j)) = j, with j numbers summed in float64, at every alpha and many sizes."""
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        count = int(torch.randint(2, 40, (), generator=generator))
        scores = (
            torch.randn(4, count, generator=generator, dtype=torch.float64).mul(4).round(decimals=seed % 3)
        )
        k = int(torch.randint(1, count, (), generator=generator))
        for alpha in (1e-3, 1.0, 30.0, 1e6):
            degrees = continuous_top_k(scores, k, alpha, "lapsum").cumsum(1)
            expected = torch.arange(1, k + 1, dtype=torch.float64).expand(4, -1)
            torch.testing.assert_close(degrees.sum(-1), expected, atol=1e-9, rtol=0)


def constrained_softmax(log_weights, left):
    """``min(left, t * w)`` that sums to one, ``[M]``, with t found by bisection of its logarithm."""
    low, high = -1e4 - float(log_weights.max()), 1e4 - float(log_weights.min())
    for _ in range(200):
        middle = (low + high) / 2
        total = torch.minimum(left, (log_weights + middle).exp()).sum()
        low, high = (low, middle) if total > 1 else (middle, high)
    return torch.minimum(left, (log_weights + high).exp())


@settings(max_examples=cases(50, 400), deadline=None)
@given(
    st.lists(st.one_of(st.integers(-6, 6).map(lambda i: i / 2), st.floats(-50, 50)), min_size=2, max_size=7),
    st.integers(1, 7),
    st.sampled_from([0.1, 0.5, 1.0, 3.0, 20.0]),
)
def test_successive_rows_are_softmaxes_over_what_is_left(scores, k, alpha):
    scores = torch.tensor(scores, dtype=torch.float64)
    k = min(k, len(scores))
    left = torch.ones_like(scores)
    rows = continuous_top_k(scores[None], k, alpha, "successive")[0]
    torch.testing.assert_close(rows[0], (alpha * scores).softmax(0), atol=1e-12, rtol=1e-9)
    for row in rows:
        expected = constrained_softmax(alpha * scores, left)
        torch.testing.assert_close(row, expected, atol=1e-9, rtol=0)
        left = (left - expected).clamp_min(0.0)


@pytest.mark.parametrize(
    "alpha, scores",
    [
        (0.1, [0.0, -1000.0, -2000.0]),
        (0.5, [0.0, -1000.0, -2000.0]),
        (10.0, [0.0, -1.0, -20.0]),
        (100.0, [0.0, -0.5, -60.0]),
    ],
)
@pytest.mark.parametrize("operator", OPERATORS)
def test_no_candidate_comes_back_at_any_gap(operator, alpha, scores):
    rows = continuous_top_k(torch.tensor([scores]), 3, alpha, operator)
    torch.testing.assert_close(rows[0], torch.eye(3), atol=0.01, rtol=0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_tie_is_shared_and_no_rank_is_skipped(operator):
    rows = continuous_top_k(torch.tensor([[3.0, 2.0, 2.0, 1.9]]), 4, 1e4, operator)[0]
    shared = [0.0, 0.5, 0.5, 0.0]
    torch.testing.assert_close(
        rows, torch.tensor([[1.0, 0, 0, 0], shared, shared, [0, 0, 0, 1.0]]), atol=1e-6, rtol=0
    )


def test_gradient_of_everything_is_zero():
    """A set of all candidates has no score that could change it, ties or not."""
    for scores in ([[1.0, 1.0]], [[2.0, 2.0, 2.0]], [[0.3, 0.2, 0.1]]):
        leaf = torch.tensor(scores, requires_grad=True)
        for operator in SET_OPERATORS:
            (grad,) = torch.autograd.grad(
                continuous_top_k(leaf, leaf.size(1), 1.0, operator).sum(1)[0, 0], leaf
            )
            assert grad.abs().max() < 1e-6


@pytest.mark.parametrize(
    "scores, message",
    [
        ([[0.0, 1.0], [math.nan, 0.0]], "batch row 1 has a score of nan"),
        ([[0.0, INF], [0.0, 0.0]], "batch row 0 has a score of inf"),
        ([[0.0, 1.0], [-INF, -INF]], "batch row 1 has no possible candidate"),
    ],
)
def test_bad_scores_name_the_batch_row(scores, message):
    with pytest.raises(ValueError, match=message):
        continuous_top_k(torch.tensor(scores), 1, 1.0)


@pytest.mark.parametrize(
    "k, alpha, operator, message",
    [
        (0, 1.0, "peaked", "k=0"),
        (3, 1.0, "peaked", "k=3 must be between 1 and the number of candidates, 2"),
        (1, 0.0, "peaked", "alpha=0.0"),
        (1, math.nan, "peaked", "alpha=nan"),
        (1, INF, "peaked", "hard_top_k"),
        (1, 1.0, "sharp", "unknown top-k operator 'sharp'; known: .*lapsum"),
    ],
)
def test_bad_arguments_are_named(k, alpha, operator, message):
    with pytest.raises(ValueError, match=message):
        continuous_top_k(torch.zeros(1, 2), k, alpha, operator)


def test_beam_overlap_by_hand():
    rows = torch.tensor(
        [
            [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]],
            [[0.5, 0.5, 0], [0.25, 0.5, 0.25], [0, 0, 1.0]],
            [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]],
        ]
    )
    assert beam_overlap(rows).tolist() == [0.0, 0.75, 1.0]
    assert beam_overlap(rows[:, :1]).tolist() == [0.0, 0.0, 0.0]


def test_alpha_that_tells_a_near_tie_apart():
    """Gap .01 between ranks 2 and 3: overlap below .1 from about 3/gap^2 (peaked), 3/gap (the others)."""
    scores = torch.tensor([[0.0, -1.0, -1.01, -3.0]], dtype=torch.float64)

    def overlap(operator, alpha):
        return float(beam_overlap(continuous_top_k(scores, 3, alpha, operator)[:, 1:]))

    assert overlap("peaked", 20_000) > 0.1 > overlap("peaked", 40_000)
    assert overlap("softsort", 200) > 0.1 > overlap("softsort", 400)
    assert overlap("lapsum", 600) < 0.1
    assert overlap("successive", 600) < 0.1


def test_gradient_reaches_a_candidate_far_below_the_beam():
    """6.4 nats below, alpha = 1: the squared distance has almost no gradient left, the others have."""
    slopes = {}
    for operator in OPERATORS:
        scores = torch.tensor([[0.0, -0.5, -1.0, -7.4, -8.0]], requires_grad=True)
        continuous_top_k(scores, 3, 1.0, operator)[0, :, 3].sum().backward()
        slopes[operator] = float(scores.grad[0, 3])
    assert abs(slopes["peaked"]) < 1e-15
    assert all(slopes[operator] > 1e-4 for operator in ("softsort", "lapsum", "successive"))
