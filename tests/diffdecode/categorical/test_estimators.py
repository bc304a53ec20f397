"""Estimators against public implementations and against frozen values; options, dtypes, layouts, errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdecode.categorical import ESTIMATORS, reinmax_backward, sample

NAMES = sorted(ESTIMATORS)
DETERMINISTIC = {"soft", "argmax_st", "argmax"}
SOFT = {"soft", "gumbel_soft"}


def gradient(logits, weight, *args, seed=0, **options):
    """One-hot, probabilities, and gradient of sum(one_hot * weight) + sum(probs * cos(weight))."""
    torch.manual_seed(seed)
    logits = logits.detach().requires_grad_()
    one_hot, probs = sample(logits, *args, **options)
    ((one_hot * weight).sum() + (probs * weight.cos()).sum()).backward()
    return one_hot.detach(), probs.detach(), logits.grad


@pytest.mark.parametrize("tau", [1.0, 1.3, 2.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.float32, 5e-7)])
def test_same_as_the_package_reinmax(tau, dtype, tolerance):
    public = pytest.importorskip("reinmax").reinmax
    torch.manual_seed(1)
    x, weight = torch.randn(2, 64, 7, dtype=dtype)
    one_hot, probs, grad = gradient(x, weight, "reinmax", tau, seed=3)
    torch.manual_seed(3)
    y = x.clone().requires_grad_()
    their_one_hot, their_probs = public(y, tau)
    ((their_one_hot * weight).sum() + (their_probs * weight.cos()).sum()).backward()
    assert torch.equal(one_hot, their_one_hot.detach())
    assert torch.equal(probs, their_probs.detach())
    assert (grad - y.grad).abs().max() <= tolerance


# Gradients of PyPI reinmax 0.1.0 in float64 for these logits, weights and samples, printed with repr.
LOGITS = [[0.5, -1.0, 2.0, 0.0], [1.5, 1.5, -0.5, 0.25], [-2.0, 0.75, 0.1, 3.0]]
WEIGHT = [[1.0, -2.0, 0.5, 3.0], [0.3, 0.7, -1.1, 2.0], [-0.4, 1.2, 0.9, -1.5]]
INDEX = [2, 3, 1]
REINMAX_0_1_0 = {
    1.0: [
        [0.03961117737874496, -0.04419224176093607, -0.11554590335543047, 0.12012696773762158],
        [-0.35097280245111184, -0.268390966580262, -0.08661583014530218, 0.705979599176676],
        [-0.004618352060250078, 1.1683431432402376, -0.007071421432511098, -1.1566533697474766],
    ],
    1.3: [
        [0.049001645791927256, -0.11270087694422379, -0.13864578976388453, 0.20234502091618103],
        [-0.32338209711597227, -0.2519409753128092, -0.15078377042579516, 0.7261068428545765],
        [-0.010973156390046958, 1.0973167461545321, 0.01445070815661708, -1.1007942979211023],
    ],
    2.0: [
        [0.05998413612341621, -0.23774034077906264, -0.1331079802398408, 0.31086418489548723],
        [-0.28047679404230885, -0.22527682119140255, -0.25529843531036067, 0.7610520505440721],
        [-0.03793688271706265, 0.9533045136369624, 0.03545035274314167, -0.9508179836630415],
    ],
}


@pytest.mark.parametrize("tau", sorted(REINMAX_0_1_0))
def test_frozen_gradients_of_the_package_reinmax(tau):
    x = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    one_hot = sample(x, "reinmax", tau, index=torch.tensor(INDEX)).one_hot
    (one_hot * torch.tensor(WEIGHT, dtype=torch.float64)).sum().backward()
    expected = torch.tensor(REINMAX_0_1_0[tau], dtype=torch.float64)
    assert (x.grad - expected).abs().max() <= 1e-15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [1.0, 0.5, 0.07])
@pytest.mark.parametrize(("estimator", "hard"), [("st_gumbel", True), ("gumbel_soft", False)])
def test_same_bits_as_torch_gumbel_softmax(estimator, hard, tau, dtype):
    torch.manual_seed(1)
    x, weight = torch.randn(2, 50, 11, dtype=dtype)
    for seed in range(5):
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        torch.manual_seed(seed)
        a = sample(ours, estimator, tau).one_hot
        torch.manual_seed(seed)
        b = F.gumbel_softmax(theirs, tau, hard=hard)
        (a * weight).sum().backward()
        (b * weight).sum().backward()
        assert torch.equal(a, b)
        assert torch.equal(ours.grad, theirs.grad)


def test_sampled_methods_draw_what_multinomial_draws():
    torch.manual_seed(0)
    x = torch.randn(500, 9)
    for estimator in ("st", "reinmax", "gapped_st", "gumbel_rao"):
        torch.manual_seed(5)
        expected = torch.multinomial(x.softmax(-1), 1, replacement=True)[:, 0]
        torch.manual_seed(5)
        assert torch.equal(sample(x, estimator).one_hot.argmax(-1), expected), estimator


@pytest.mark.parametrize("estimator", sorted(set(NAMES) - DETERMINISTIC - {"gumbel_soft"}))
def test_samples_follow_the_probabilities(estimator):
    """Frequencies of 40,000 draws, within 5 standard errors."""
    scores = torch.tensor([0.3, -1.2, 2.0, -math.inf, 0.0])
    rows = 40_000 if estimator != "reinmax_loo" else 20_000
    one_hot = sample(scores.expand(rows, 5), estimator, generator=torch.Generator().manual_seed(1)).one_hot
    p = scores.softmax(-1)
    error = (one_hot.reshape(-1, 5).mean(0) - p).abs()
    assert (error <= 5 * (p * (1 - p) / 40_000).sqrt()).all()


def plain_gapped_st(x, chosen, tau, gap):
    """Fan et al. 2022 as printed: scores + m1 - m2 with products, differentiated by autograd."""
    with torch.no_grad():
        top = x.max(-1, keepdim=True).values
        if gap == "p":
            p = (x.softmax(-1) * chosen).sum(-1, keepdim=True)
            gap = -(1 - p).log() / p
        shift = (top - x) * chosen - (x - top + gap).clamp(min=0) * (1 - chosen)
    return ((x + shift) / tau).softmax(-1)


def plain_gumbel_rao(x, chosen, tau, noise):
    """Paulus et al. 2021 as printed, with exponentials of scores, differentiated by autograd."""
    with torch.no_grad():
        winner = (noise * chosen).sum(-1, keepdim=True) / x.exp().sum(-1, keepdim=True)
        shift = torch.where(chosen > 0, -winner.log(), -(noise / x.exp() + winner).log()) - x
    return ((x + shift) / tau).softmax(-1).mean(0)


@settings(deadline=None, max_examples=cases(15, 120))
@given(seed=st.integers(0, 10_000), tau=st.sampled_from([0.2, 0.7, 1.0, 2.0]), V=st.integers(1, 6))
def test_closed_form_gradients_are_those_of_autograd(seed, tau, V):
    torch.manual_seed(seed)
    x, weight = 2 * torch.randn(2, 4, V, dtype=torch.float64)
    index = torch.randint(V, (4,))
    chosen = F.one_hot(index, V).double()
    noise = torch.empty(3, 4, V, dtype=torch.float64).exponential_()
    plain = {
        "st": ({}, lambda y: (y / tau).softmax(-1)),
        "gapped_st": ({"gap": 0.5}, lambda y: plain_gapped_st(y, chosen, tau, 0.5)),
        "gumbel_rao": ({"noise": noise}, lambda y: plain_gumbel_rao(y, chosen, tau, noise)),
    }
    if V > 1:
        plain["gapped_st p"] = ({"gap": "p"}, lambda y: plain_gapped_st(y, chosen, tau, "p"))
    for name, (options, surrogate) in plain.items():
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        one_hot = sample(a, name.split()[0], tau, index=index, **options).one_hot
        (one_hot * weight).sum().backward()
        (surrogate(b) * weight).sum().backward()
        assert torch.equal(one_hot, chosen)
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_reinmax_is_algorithm_2_of_the_paper():
    """Liu et al. 2023: pi_1 = softmax(stop(ln pi_1 - theta) + theta), D' = 2 pi_1 - pi_0 / 2."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 20, 6, dtype=torch.float64)
    index = torch.randint(6, (20,))
    for tau in (1.0, 1.4):
        y = x.clone().requires_grad_()
        pi0 = y.softmax(-1)
        pi1 = (F.one_hot(index, 6) + (y / tau).softmax(-1)) / 2
        pi1 = ((pi1.log() - y).detach() + y).softmax(-1)
        ((2 * pi1 - pi0 / 2) * weight).sum().backward()
        z = x.clone().requires_grad_()
        (sample(z, "reinmax", tau, index=index).one_hot * weight).sum().backward()
        torch.testing.assert_close(z.grad, y.grad, rtol=0, atol=1e-14)


@pytest.mark.parametrize("estimator", NAMES)
def test_any_dim_and_strides(estimator):
    torch.manual_seed(0)
    x = torch.randn(4, 6, 5)
    weight = torch.randn(4, 5, 6)
    expected = gradient(x.transpose(1, 2).contiguous(), weight, estimator, seed=2)
    actual = gradient(x, weight.transpose(1, 2), estimator, dim=1, seed=2)
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a.transpose(-1, -2), b)
    assert torch.equal(gradient(x.transpose(1, 2), weight, estimator, seed=2)[2], expected[2])


@pytest.mark.parametrize("estimator", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_in_is_dtype_out_and_half_is_computed_in_float32(estimator, dtype):
    torch.manual_seed(0)
    x, weight = (4 * torch.randn(2, 30, 8)).to(dtype)
    one_hot, probs, grad = gradient(x, weight, estimator, seed=4)
    assert one_hot.dtype == probs.dtype == grad.dtype == dtype
    assert grad.isfinite().all()
    if dtype in (torch.float16, torch.bfloat16) and estimator != "gumbel_soft":
        wide = gradient(x.float(), weight.float(), estimator, seed=4)
        torch.testing.assert_close(one_hot, wide[0].to(dtype))
        torch.testing.assert_close(grad.float(), wide[2], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("estimator", NAMES)
def test_masked_entries_are_exactly_zero_forward_and_backward(estimator, dtype):
    torch.manual_seed(0)
    x = torch.randn(40, 6, dtype=dtype)
    mask = torch.rand(40, 6) < 0.6
    mask[:, 0] |= ~mask.any(-1)
    weight = torch.randn(40, 6, dtype=dtype)
    for by_mask in (True, False):
        y = x if by_mask else x.masked_fill(~mask, -math.inf)
        one_hot, probs, grad = gradient(y, weight, estimator, mask=mask if by_mask else None, seed=6)
        blocked = ~mask
        assert (one_hot.movedim(-2, 0).movedim(-1, 1)[blocked] == 0).all()
        assert (probs[blocked] == 0).all()
        assert (grad[blocked] == 0).all()
        assert grad.isfinite().all()
        assert grad[mask].abs().sum() > 0
        if estimator not in SOFT:
            assert (one_hot.sum(-1) == 1).all()


@settings(deadline=None, max_examples=cases(25, 200))
@given(seed=st.integers(0, 10_000), estimator=st.sampled_from(NAMES), V=st.integers(2, 7))
def test_a_masked_category_might_as_well_not_exist(seed, estimator, V):
    """Same decision, probabilities and gradient as over the vocabulary without it; same noise elsewhere."""
    torch.manual_seed(seed)
    x, weight = torch.randn(2, 5, V, dtype=torch.float64)
    noise = torch.empty(3, 5, V, dtype=torch.float64).exponential_()
    kept = torch.arange(V) != torch.randint(V, ())

    def options(columns, first):
        if estimator in DETERMINISTIC:
            return {}
        if estimator == "gumbel_rao":
            return {"noise": noise[..., columns], "index": torch.full((5,), first)}
        return {"noise": (noise if estimator == "reinmax_loo" else noise[0])[..., columns]}

    first = int(kept.nonzero()[0])  # becomes category 0
    full = gradient(x, weight, estimator, mask=kept, **options(slice(None), first))
    reduced = gradient(x[:, kept], weight[:, kept], estimator, **options(kept, 0))
    for a, b in zip(full, reduced, strict=True):
        torch.testing.assert_close(a[..., kept], b, rtol=1e-12, atol=1e-14)
        assert (a[..., ~kept] == 0).all()


@pytest.mark.parametrize("tau", [None, 0.05])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("estimator", NAMES)
def test_huge_logits_stay_finite(estimator, dtype, tau):
    x = torch.tensor([[1e4, -1e4, 0.0, 1e4], [-1e4, -1e4, -math.inf, 1e4], [1e4, 1e4, 1e4, 1e4]], dtype=dtype)
    weight = torch.tensor([[3.0, -2.0, 0.5, 1.0]], dtype=dtype)
    tau = tau if "tau" in ESTIMATORS[estimator].options else None
    for seed in range(10):
        one_hot, probs, grad = gradient(x, weight, estimator, tau, seed=seed)
        assert one_hot.isfinite().all() and probs.isfinite().all() and grad.isfinite().all()
        assert grad[1, 2] == 0


@pytest.mark.parametrize("estimator", NAMES)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4), (2, 1), (4,)])
def test_empty_batches_single_categories_and_single_vectors(estimator, shape):
    one_hot, probs, grad = gradient(torch.randn(shape), torch.ones(shape), estimator)
    assert one_hot.shape[-len(shape) :] == probs.shape == grad.shape == shape
    if shape[-1] == 1:
        assert (one_hot == 1).all() and (grad == 0).all()


@pytest.mark.parametrize("estimator", NAMES)
def test_generator_and_injected_randomness_decide_everything(estimator):
    x = torch.randn(6, 5)
    a = sample(x, estimator, generator=torch.Generator().manual_seed(3)).one_hot
    torch.manual_seed(99)  # the global state must not matter
    assert torch.equal(a, sample(x, estimator, generator=torch.Generator().manual_seed(3)).one_hot)
    if estimator in DETERMINISTIC:
        return
    noise = torch.empty(2, 6, 5).exponential_()
    options = {"noise": noise if estimator in ("reinmax_loo", "gumbel_rao") else noise[0]}
    if estimator == "gumbel_rao":
        options["index"] = torch.zeros(6, dtype=torch.int64)
    weight = torch.randn(5)
    first, second = (gradient(x, weight, estimator, seed=seed, **options) for seed in (0, 1))
    assert torch.equal(first[0], second[0]) and torch.equal(first[2], second[2])


def test_noise_is_one_notion_for_races_and_gumbel():
    """argmax p/E (the drawn ones) = argmax scores - log E (Gumbel-max)."""
    x = torch.randn(200, 6)
    noise = torch.empty(200, 6).exponential_()
    expected = (x - noise.log()).argmax(-1)
    for estimator in ("st", "reinmax", "gapped_st", "st_gumbel"):
        assert torch.equal(sample(x, estimator, noise=noise).one_hot.argmax(-1), expected)
    along_first = sample(x.T, "st", noise=noise.T, dim=0).one_hot
    assert torch.equal(along_first.argmax(0), expected)


def test_gumbel_rao_noise_is_that_of_the_decision():
    """Given D, the perturbed scores have D on top; mixed over D, they are unconditional Gumbel noise."""
    from diffdecode.categorical import conditional_gumbel_softmax

    torch.manual_seed(0)
    x = torch.randn(20_000, 4, dtype=torch.float64)
    x[:] = x[0]
    p = x.softmax(-1)
    index = torch.multinomial(p, 1)[:, 0]
    y = conditional_gumbel_softmax(p, index, torch.empty(1, 20_000, 4).double().exponential_(), 1.0)[0]
    assert torch.equal(y.argmax(-1), index)
    unconditional = (x - torch.empty_like(x).exponential_().log()).softmax(-1)
    quantiles = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    for category in range(4):
        gap = y[:, category].quantile(quantiles) - unconditional[:, category].quantile(quantiles)
        assert gap.abs().max() < 0.02


@pytest.mark.parametrize("estimator", sorted(set(NAMES) - SOFT - {"argmax", "sample"}))
def test_second_derivatives_of_hard_choices_are_refused(estimator):
    x = torch.randn(3, 4, requires_grad=True)
    (grad,) = torch.autograd.grad((sample(x, estimator).one_hot ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("estimator", NAMES)
def test_abilities_are_what_the_estimator_does(estimator):
    ability = ESTIMATORS[estimator]
    x = torch.randn(5, 4, requires_grad=True)
    one_hot = sample(x, estimator).one_hot
    assert one_hot.requires_grad == ability.gives_gradient
    assert bool(((one_hot == 0) | (one_hot == 1)).all()) == ability.hard
    assert (one_hot.dim() == 3) == ability.index_has_k
    assert ability.fusable == (estimator not in ("gapped_st", "gumbel_rao", "reinmax_loo"))


@pytest.mark.parametrize("estimator", sorted(SOFT))
def test_relaxations_have_first_and_second_derivatives(estimator):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    noise = {} if estimator == "soft" else {"noise": torch.empty(3, 4, dtype=torch.float64).exponential_()}

    def relaxed(scores):
        return sample(scores, estimator, 0.7, **noise).one_hot

    assert torch.autograd.gradcheck(relaxed, x)
    assert torch.autograd.gradgradcheck(relaxed, x)


@pytest.mark.parametrize("estimator", NAMES)
def test_probabilities_have_the_ordinary_gradient(estimator):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    result = sample(x, estimator)
    with torch.no_grad():
        assert result.probs.sum() > 0  # asked for here first: must not lose its gradient
    weight = torch.randn(3, 4, dtype=torch.float64)
    (grad,) = torch.autograd.grad((result.probs * weight).sum(), x)
    (expected,) = torch.autograd.grad((x.softmax(-1) * weight).sum(), x)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("estimator", ["argmax", "argmax_st"])
def test_argmax_takes_the_first_of_equals(estimator):
    x = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    assert sample(x, estimator).one_hot.argmax(-1).tolist() == [1, 0]


def test_saves_no_more_than_the_rule_needs():
    """ReinMax at tau = 1 keeps p and the index: not the one-hot, not the logits."""
    kept = set()
    x = torch.randn(64, 50, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.add(t.data_ptr()) or t, lambda t: t):
        result = sample(x, "reinmax")
    assert len(kept) == 2 and result.probs.data_ptr() in kept


@pytest.mark.parametrize("estimator", NAMES)
@pytest.mark.parametrize(
    ("value", "message"),
    [(math.nan, r"NaN or \+inf"), (math.inf, r"NaN or \+inf"), (None, "no possible category")],
)
def test_bad_rows_are_named(estimator, value, message):
    for position in range(4):
        x = torch.randn(5, 3, 4)
        if value is None:
            x[3, 1] = -math.inf
        else:
            x[3, 1, position] = value
        with pytest.raises(ValueError, match=rf"row \[3, 1\]: .*{message}"):
            sample(x, estimator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "reinmix"}, "unknown gradient estimator 'reinmix'; did you mean 'reinmax'"),
        ({"estimator": "soft", "noise": torch.ones(3, 4)}, "'soft' has no option noise"),
        ({"estimator": "st_gumbel", "index": torch.zeros(3, dtype=torch.int64)}, "no option index"),
        ({"estimator": "reinmax_loo", "tau": 2.0}, "'reinmax_loo' has no option tau"),
        ({"estimator": "st", "samples": 3}, "'st' has no option samples"),
        ({"tau": 0.0}, "tau must be positive"),
        ({"tau": math.nan}, "tau must be positive"),
        ({"index": torch.tensor([0, 4, 0])}, r"index row \[1\] is not in \[0, 4\)"),
        ({"index": torch.zeros(2, dtype=torch.int64)}, r"index must have shape \[3\], got \[2\]"),
        ({"index": torch.tensor([0, 0, 1]), "mask": torch.arange(4) != 1}, r"row \[2\] picks an impossible"),
        ({"mask": torch.ones(2, 3, 4, dtype=torch.bool)}, r"mask \[2, 3, 4\] does not broadcast"),
        ({"dim": 2}, "at least one category along dim 2"),
        ({"noise": torch.zeros(3, 4)}, "noise must be positive"),
        ({"noise": torch.ones(2, 3, 4)}, r"noise must have shape \[3, 4\]"),
        ({"estimator": "gumbel_rao", "noise": torch.ones(3, 4)}, r"noise must have shape \['K', 3, 4\]"),
        ({"estimator": "gumbel_rao", "samples": 0}, "samples"),
        ({"estimator": "reinmax_loo", "samples": 1}, "samples >= 2"),
        ({"estimator": "gapped_st", "gap": -1.0}, "gap"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample(torch.zeros(3, 4), **options)


def test_wrong_types_and_empty_vocabulary_are_refused():
    with pytest.raises(TypeError, match="floating point"):
        sample(torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(TypeError, match="mask must be boolean"):
        sample(torch.zeros(3, 4), mask=torch.ones(3, 4))
    with pytest.raises(TypeError, match="index must be int64"):
        sample(torch.zeros(3, 4), index=torch.zeros(3))
    with pytest.raises(ValueError, match="at least one category"):
        sample(torch.zeros(3, 0))


def test_every_method_documents_its_temperature():
    for name, estimator in ESTIMATORS.items():
        assert "Temperature" in estimator.function.__doc__, name
    assert "second-order accurate" in ESTIMATORS["reinmax"].function.__doc__


def test_backward_rules_leave_their_arguments_alone():
    p, grad = torch.rand(2, 3, 4).softmax(-1), torch.randn(3, 4)
    before = p.clone(), grad.clone()
    reinmax_backward(p[0], torch.zeros(3, dtype=torch.int64), grad)
    assert torch.equal(p, before[0]) and torch.equal(grad, before[1])
