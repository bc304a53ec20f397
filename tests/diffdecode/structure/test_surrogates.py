"""Every surrogate gradient of trees against its formula, with the enumeration of all trees as the judge."""

import math

import numpy as np
import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from tree_enumeration import all_trees, enumerated_marginals, score_all

from diffdecode.structure import TreeKind, heads_to_arcs, nonprojective_tree, projective_tree, tree_argmax
from diffdecode.structure.kernels.reference import p_dep
from diffdecode.structure.surrogates import (
    SURROGATES,
    Perturbed,
    Structure,
    Surrogate,
    make_surrogate,
    structured_argmax,
)
from diffdecode.structure.trees import Trees

KINDS = [(projective, multi_root) for projective in (True, False) for multi_root in (True, False)]
NAMES = sorted(SURROGATES)
SOFT = {"marginals"}
kinds = pytest.mark.parametrize("projective, multi_root", KINDS)


def problem(n, seed=0, batch=1, dtype=torch.float64):
    """Random scores and downstream gradients."""
    generator = torch.Generator().manual_seed(100 * n + seed)
    return torch.randn(2, batch, n + 1, n + 1, generator=generator, dtype=dtype)


def backward(scores, g, lengths=None, **arguments):
    """``(z, dL/ds)`` for a loss with gradient ``g``."""
    leaf = scores.clone().requires_grad_()
    z = tree_argmax(leaf, lengths, **arguments)
    z.backward(g)
    return z.detach(), leaf.grad


def every_tree(n, projective, multi_root, scores):
    """All trees as arcs ``[T, n+1, n+1]``, and their probabilities ``[T]``."""
    trees = heads_to_arcs(all_trees(n, projective, multi_root), dtype=torch.float64)
    return trees, score_all(scores, n, projective, multi_root)[0].softmax(0)


def covariance(trees, p):
    flat = trees.flatten(1)
    centred = flat - p @ flat
    return centred.T @ (centred * p[:, None])


def possible(g):
    """``g`` on the arcs that exist."""
    mask = 1 - torch.eye(g.shape[-1], dtype=g.dtype)
    mask[0] = 0
    return g * mask


# ------------------------------------------------------------------------------ what goes forward


@kinds
@pytest.mark.parametrize("name", [n for n in NAMES if n not in SOFT])
def test_a_tree_goes_forward(name, projective, multi_root):
    scores, _ = problem(5, batch=3)
    lengths = [5, 3, 1]
    generator = torch.Generator().manual_seed(0)
    z = tree_argmax(
        scores, lengths, surrogate=name, projective=projective, multi_root=multi_root, generator=generator
    )
    for b, n in enumerate(lengths):
        heads = z[b, 1 : n + 1].argmax(-1)
        assert (all_trees(n, projective, multi_root) == heads).all(1).any()
        assert z[b].sum() == n and z[b].max() == 1
    if name in ("pipeline", "ste", "spigot", "spigot_exact", "spigot_ce", "structured_st", "blackbox"):
        decide = projective_tree if projective else nonprojective_tree
        best = heads_to_arcs(decide(scores, lengths, multi_root=multi_root), dtype=scores.dtype)
        assert torch.equal(z, best)


@kinds
@pytest.mark.parametrize(
    "name, options", [("marginals", {}), ("spigot_ce", {"soft": True}), ("spigot_eg", {"soft": True})]
)
def test_marginals_go_forward(name, options, projective, multi_root):
    scores, _ = problem(4)
    z = tree_argmax(scores, surrogate=name, projective=projective, multi_root=multi_root, **options)
    expected, _ = enumerated_marginals(scores, 4, projective, multi_root)
    assert (z - expected).abs().max() < 1e-9


# ------------------------------------------------------------------------------ equation 4


def test_spigot_by_hand():
    """Two words; the best tree is 0 -> 1 -> 2. Columns are the heads 0, 1, 2."""
    scores = torch.tensor([[[0.0, 0.0, 0.0], [5.0, 0.0, 1.0], [0.0, 4.0, 0.0]]])
    g = torch.tensor([[[9.0, 9.0, 9.0], [0.6, 9.0, -0.2], [0.1, 0.3, 9.0]]])
    z, gradient = backward(scores, g, surrogate="spigot")
    assert z[0].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    # Word 1: (1, 0) - (0.6, -0.2) = (0.4, 0.2); the nearest point with sum 1 adds 0.2 to both: (0.6, 0.4).
    # Word 2: (0, 1) - (0.1, 0.3) = (-0.1, 0.7) -> (0.1, 0.9).
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.0, -0.4], [-0.1, 0.1, 0.0]])
    assert torch.allclose(gradient[0], expected, atol=1e-7)
    # Three times the step: (-0.8, 0.6) -> (0, 1), a corner, and (-0.3, 0.1) -> (0.3, 0.7).
    _, gradient = backward(scores, g, surrogate="spigot", eta=3.0)
    expected = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, -1.0], [-0.3, 0.3, 0.0]])
    assert torch.allclose(gradient[0], expected, atol=1e-6)
    # A gradient that asks for more of the tree that is there already changes nothing.
    _, gradient = backward(
        scores, torch.tensor([[[0.0] * 3, [-1.0, 0, 0], [0, -2.0, 0]]]), surrogate="spigot"
    )
    assert (gradient == 0).all()


@kinds
@pytest.mark.parametrize("name", ["spigot", "spigot_exact"])
@pytest.mark.parametrize("eta", [0.1, 0.5])
def test_an_update_inside_the_polytope_is_the_gradient(name, eta, projective, multi_root):
    """Figure 1, right: z - eta g is a mixture of trees, so dL/ds = eta g exactly."""
    scores, _ = problem(4)
    trees, p = every_tree(4, projective, multi_root, scores)
    z, _ = backward(scores, torch.zeros_like(scores), projective=projective, multi_root=multi_root)
    g = z - torch.einsum("t,tij->ij", p, trees)  # from z towards the mean of all trees
    _, gradient = backward(scores, g, surrogate=name, eta=eta, projective=projective, multi_root=multi_root)
    assert (gradient - eta * g).abs().max() < 1e-6


@settings(max_examples=cases(37, 300), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 0.3, 1.0, 20.0]), st.sampled_from(KINDS))
def test_spigot_is_equation_4(seed, eta, kind):
    scores, g = problem(5, seed, batch=3)
    lengths = torch.tensor([5, 3, 1])
    z, gradient = backward(scores, g, lengths, eta=eta, projective=kind[0], multi_root=kind[1])
    update = z - eta * g
    assert (gradient - (z - p_dep(update, lengths))).abs().max() < 1e-10 * max(1, eta)


@kinds
def test_clip_scales_each_sentence(projective, multi_root):
    kind = {"projective": projective, "multi_root": multi_root}
    scores, g = problem(4, batch=2)
    g[1] *= 1e-3
    for max_norm in (1.0, 5 / 32):
        _, gradient = backward(scores, g, eta="clip", max_norm=max_norm, **kind)
        for b in range(2):
            step = min(1.0, max_norm / possible(g[b]).norm().item())
            _, expected = backward(scores[b : b + 1], g[b : b + 1], eta=step, **kind)
            assert (gradient[b] - expected[0]).abs().max() < 1e-12
    _, still = backward(scores, torch.zeros_like(g), eta="clip", **kind)
    assert (still == 0).all()


@settings(max_examples=cases(15, 120), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_exact_spigot_projects_onto_the_hull_of_trees(seed, kind):
    scores, g = problem(4, seed)
    z, gradient = backward(scores, g, surrogate="spigot_exact", projective=kind[0], multi_root=kind[1])
    projected = (z - gradient)[0]
    trees, _ = every_tree(4, *kind, scores)
    residual = possible((z - g)[0] - projected)
    assert ((trees - projected) * residual).sum((1, 2)).max() < 1e-10  # nearest: no tree lies further along
    assert projected.sum().item() == pytest.approx(4) and projected.min() > -1e-12


@kinds
def test_spigot_ce_and_eg(projective, multi_root):
    kind = {"projective": projective, "multi_root": multi_root}
    scores, g = problem(4)
    lengths = torch.tensor([4])
    mu, _ = enumerated_marginals(scores, 4, projective, multi_root)
    for soft in (False, True):
        _, gradient = backward(scores, g, surrogate="spigot_ce", eta=0.7, soft=soft, **kind)
        assert (gradient - possible(mu - p_dep(mu - 0.7 * g, lengths))).abs().max() < 1e-8
        _, gradient = backward(scores, g, surrogate="spigot_eg", eta=0.7, soft=soft, **kind)
        moved, _ = enumerated_marginals(scores - 0.7 * g, 4, projective, multi_root)
        assert (gradient - possible(mu - moved)).abs().max() < 1e-8


# ------------------------------------------------------------------------------ plain passes


@kinds
def test_pipeline_and_straight_through(projective, multi_root):
    scores, g = problem(4)
    kind = {"projective": projective, "multi_root": multi_root}
    assert (backward(scores, g, surrogate="pipeline", **kind)[1] == 0).all()
    assert torch.equal(backward(scores, g, surrogate="ste", **kind)[1], possible(g))


# ------------------------------------------------------------------------------ distributions over trees


@kinds
def test_marginals_and_structured_st_go_through_the_covariance(projective, multi_root):
    scores, g = problem(4)
    trees, p = every_tree(4, projective, multi_root, scores)
    expected = (covariance(trees, p) @ g.flatten()).view_as(g)
    for name in ("marginals", "structured_st"):
        _, gradient = backward(scores, g, surrogate=name, projective=projective, multi_root=multi_root)
        assert (gradient - expected).abs().max() < 1e-8


def quadratic(n, seed, within_words=False):
    """A random ``f(z) = z'Az + b'z`` over arcs, as ``(f, grad f)`` on ``[T, D]``."""
    generator = torch.Generator().manual_seed(seed)
    size = (n + 1) ** 2
    matrix = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    if within_words:
        matrix = matrix * torch.block_diag(*[torch.ones(n + 1, n + 1)] * (n + 1))
    matrix = matrix + matrix.T
    b = torch.randn(size, generator=generator, dtype=torch.float64)
    return (lambda z: ((z @ matrix) * z).sum(1) + z @ b), (lambda z: 2 * z @ matrix + b), b


def expected_gradient(surrogate, n, kind, scores, downstream):
    """The mean of the surrogate's gradient over all trees it can draw: ``sum_z p(z) gradient(z)``."""
    trees, p = every_tree(n, *kind, scores)
    structure = Trees(torch.tensor([n]), TreeKind(*kind))
    total = torch.zeros_like(scores)
    for z, probability, g in zip(trees, p, downstream(trees.flatten(1))):
        g = possible(g.view(n + 1, n + 1))[None]
        total += probability * surrogate.gradient(structure, scores, z[None], g)
    return total.flatten()


def true_gradient(n, kind, scores, f):
    trees, p = every_tree(n, *kind, scores)
    values, flat = f(trees.flatten(1)), trees.flatten(1)
    return (p * (values - p @ values)) @ flat


@kinds
@pytest.mark.parametrize("n", [3, 4])
def test_structured_reinmax_is_exact_on_quadratics(n, projective, multi_root):
    kind, (scores, _) = (projective, multi_root), problem(n)
    f, grad_f, _ = quadratic(n, n)
    truth = true_gradient(n, kind, scores, f)
    found = expected_gradient(make_surrogate("structured_reinmax"), n, kind, scores, grad_f)
    assert (found - truth).norm() < 1e-7 * truth.norm()
    for name in ("structured_st", "block_reinmax"):  # first order between words: these are biased
        biased = expected_gradient(make_surrogate(name), n, kind, scores, grad_f)
        assert (biased - truth).norm() > 0.01 * truth.norm()


@kinds
def test_all_three_are_exact_on_linear_losses(projective, multi_root):
    kind, (scores, _) = (projective, multi_root), problem(3)
    _, _, b = quadratic(3, 1)
    truth = true_gradient(3, kind, scores, lambda z: z @ b)
    for name in ("structured_st", "block_reinmax", "structured_reinmax"):
        found = expected_gradient(make_surrogate(name), 3, kind, scores, lambda z: b.expand_as(z))
        assert (found - truth).norm() < 1e-7 * truth.norm()


def test_block_reinmax_is_its_formula():
    scores, g = problem(4)
    g = possible(g)
    trees, p = every_tree(4, False, True, scores)
    sigma, mu = covariance(trees, p), (p[:, None, None] * trees).sum(0)
    blocks = torch.block_diag(*[torch.ones(5, 5, dtype=torch.float64)] * 5)
    z = trees[3]
    deviation = (z - mu).flatten()
    second = (torch.outer(deviation, deviation) - sigma) * blocks
    expected = (sigma + second / 2) @ g.flatten()
    structure = Trees(torch.tensor([4]), TreeKind(False, True))
    found = make_surrogate("block_reinmax").gradient(structure, scores, z[None], g)
    assert (found.flatten() - expected).abs().max() < 1e-8


@kinds
@pytest.mark.parametrize("name", ["structured_reinmax", "block_reinmax", "structured_st"])
def test_sampled_trees_follow_the_distribution(name, projective, multi_root):
    options = {"sample": True} if name == "structured_st" else {}
    scores, _ = problem(3)
    trees, p = every_tree(3, projective, multi_root, scores)
    generator = torch.Generator().manual_seed(0)
    many = scores.expand(4000, -1, -1)
    z = tree_argmax(
        many, surrogate=name, projective=projective, multi_root=multi_root, generator=generator, **options
    )
    found = (z[:, None] == trees[None]).all(-1).all(-1).double().mean(0)
    assert found.sum() == 1
    assert (found - p).abs().max() < 5 * math.sqrt(0.25 / 4000)


# ------------------------------------------------------------------------------ perturbations


class TwoChoices(Structure):
    """One of two parts: everything about its perturbed argmax is known."""

    def possible(self, scores):
        return torch.ones_like(scores, dtype=torch.bool)

    def argmax(self, scores):
        return torch.nn.functional.one_hot(scores.argmax(1), 2).to(scores)

    def sample(self, scores, generator):
        return self.argmax(scores)

    def marginals(self, scores):
        return scores.softmax(1)

    def covariance_product(self, scores, vector):
        mu = scores.softmax(1)
        return mu * (vector - (mu * vector).sum(1, keepdim=True))

    def project(self, point, polytope, near):
        return point


@pytest.mark.parametrize("sigma", [0.5, 2.0])
@pytest.mark.parametrize("samples", [2, 5])
def test_perturbed_estimates_the_smoothed_argmax(sigma, samples):
    """P(first wins) = Phi((s0 - s1) / (sigma sqrt 2)), so its derivative is a normal density."""
    scores = torch.tensor([[0.4, -0.3]], dtype=torch.float64).repeat(20000, 1).requires_grad_()
    surrogate = Perturbed(samples=samples, sigma=sigma, soft=True)
    z = structured_argmax(scores, TwoChoices(), surrogate, torch.Generator().manual_seed(0))
    scale = sigma * math.sqrt(2)
    assert z[:, 0].mean().item() == pytest.approx(norm.cdf(0.7 / scale), abs=0.01)
    z[:, 0].sum().backward()
    found = scores.grad.mean(0)
    error = 4 * scores.grad.std(0).max().item() / math.sqrt(20000)
    expected = norm.pdf(0.7 / scale) / scale
    assert found[0].item() == pytest.approx(expected, abs=error)
    assert found[1].item() == pytest.approx(-expected, abs=error)
    assert error < 0.15 * expected


@kinds
def test_perturbed_is_its_formula(projective, multi_root):
    scores, g = problem(4, batch=2)
    kind = {"projective": projective, "multi_root": multi_root}
    options = {"samples": 3, "sigma": 0.8, "generator": torch.Generator().manual_seed(5)}
    z, gradient = backward(scores, g, surrogate="perturbed", soft=True, **options, **kind)
    noise = torch.randn(3, *scores.shape, generator=torch.Generator().manual_seed(5), dtype=scores.dtype)
    decide = projective_tree if projective else nonprojective_tree
    y = [heads_to_arcs(decide(scores + 0.8 * e, multi_root=multi_root), dtype=scores.dtype) for e in noise]
    mean = sum(y) / 3
    assert torch.allclose(z, mean)
    total = sum(((a - mean) * g).sum((1, 2), keepdim=True) * e for a, e in zip(y, noise))
    assert (gradient - possible(total / (0.8 * 2))).abs().max() < 1e-12
    hard, again = backward(
        scores, g, surrogate="perturbed", samples=3, sigma=0.8, generator=options["generator"].manual_seed(5),
        **kind,
    )  # fmt: skip
    assert torch.equal(hard, backward(scores, g, surrogate="ste", **kind)[0])
    assert torch.equal(again, gradient)


@kinds
def test_blackbox_and_imle(projective, multi_root):
    scores, g = problem(4, batch=2)
    kind = {"projective": projective, "multi_root": multi_root}
    decide = projective_tree if projective else nonprojective_tree

    def best(values):
        return heads_to_arcs(decide(values, multi_root=multi_root), dtype=values.dtype)

    z, gradient = backward(scores, g, surrogate="blackbox", lam=2.0, **kind)
    assert torch.equal(gradient, (best(scores) - best(scores - 2.0 * g)) / 2.0)
    assert gradient.abs().sum() > 0
    _, same = backward(scores, g, surrogate="imle", lam=2.0, temperature=0.0, **kind)
    assert torch.equal(same, gradient)
    generator = torch.Generator().manual_seed(1)
    z, gradient = backward(scores, g, surrogate="imle", lam=3.0, generator=generator, **kind)
    uniform = torch.rand(scores.shape, generator=generator.manual_seed(1), dtype=scores.dtype)
    perturbed = scores - (-torch.log1p(-uniform)).log()
    assert torch.equal(z, best(perturbed))
    assert (gradient - (z - best(perturbed - 3.0 * g)) / 3.0).abs().max() < 1e-12


# ------------------------------------------------------------------------------ what all of them promise


@kinds
@pytest.mark.parametrize("name", NAMES)
def test_padding_and_forbidden_arcs_get_nothing(name, projective, multi_root):
    generator = torch.Generator().manual_seed(0)
    kind = {"projective": projective, "multi_root": multi_root, "surrogate": name, "generator": generator}
    scores, g = problem(5, batch=3)
    lengths = torch.tensor([5, 3, 1])
    forbidden = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    for word in range(1, 6):
        forbidden[:, word, word - 1] = False
    scores = scores.masked_fill(forbidden, -torch.inf)
    padding = torch.arange(6) > lengths[:, None]
    padding = padding[:, :, None] | padding[:, None, :]
    never_read = scores.masked_fill(padding, torch.nan)
    z, gradient = backward(never_read, g.masked_fill(padding, torch.nan), lengths, **kind)
    assert torch.isfinite(gradient).all() and torch.isfinite(z).all()
    impossible = padding | forbidden | torch.eye(6, dtype=torch.bool)
    impossible[:, 0] = True
    assert (z[impossible] == 0).all() and (gradient[impossible] == 0).all()
    if name not in ("pipeline",):
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    "name", sorted(set(NAMES) - {"perturbed", "imle"} - {"structured_reinmax", "block_reinmax"})
)
def test_padding_changes_nothing(name):
    scores, g = problem(6, batch=2)
    z, gradient = backward(scores, g, [6, 4], surrogate=name)
    short, short_gradient = backward(scores[1:, :5, :5], g[1:, :5, :5], surrogate=name)
    assert (z[1, :5, :5] - short[0]).abs().max() < 1e-12
    assert (gradient[1, :5, :5] - short_gradient[0]).abs().max() < 1e-9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_finite_at_any_scale(name, scale):
    scores, g = problem(5)
    _, gradient = backward(scores * scale, g, surrogate=name)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_dtype_and_layout(name, dtype):
    scores, g = problem(4, batch=2, dtype=torch.float32)
    scores, g = scores.to(dtype).transpose(1, 2), g.to(dtype).transpose(1, 2)
    generator = torch.Generator().manual_seed(3)
    z, gradient = backward(scores, g, surrogate=name, generator=generator)
    assert z.dtype == gradient.dtype == dtype
    if dtype != torch.float64:
        full, full_gradient = backward(
            scores.float().contiguous(), g.float().contiguous(), surrogate=name,
            generator=generator.manual_seed(3),
        )  # fmt: skip
        assert torch.equal(z, full.to(dtype))
        assert torch.allclose(gradient.float(), full_gradient, rtol=1e-2, atol=1e-2)
    without = tree_argmax(scores, surrogate=name, generator=generator.manual_seed(3))
    assert torch.equal(without, z) and not without.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_decides_everything(name):
    scores, g = problem(5, batch=2)
    generator = torch.Generator()
    runs = [backward(scores, g, surrogate=name, generator=generator.manual_seed(0)) for _ in range(2)]
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("name", NAMES)
def test_no_word_has_a_choice(name):
    """Sentences of one word have one tree, and no estimator has anything to say."""
    scores, g = problem(1, batch=3)
    z, gradient = backward(scores, g, surrogate=name)
    assert (z[:, 1, 0] - 1).abs().max() < 1e-12
    if name not in ("ste", "perturbed"):
        assert (gradient.abs() < 1e-9).all()


def test_a_graph_can_be_walked_twice():
    scores, g = problem(4)
    leaf = scores.clone().requires_grad_()
    z = tree_argmax(leaf, surrogate="spigot_ce")
    z.backward(g, retain_graph=True)
    once = leaf.grad.clone()
    z.backward(g)
    assert torch.equal(leaf.grad, 2 * once)


def test_errors():
    scores, _ = problem(3, batch=2)
    with pytest.raises(ValueError, match=r"unknown surrogate .spgot.*spigot_exact"):
        tree_argmax(scores, surrogate="spgot")
    with pytest.raises(TypeError, match=r"no option 'eta'"):
        tree_argmax(scores, surrogate="ste", eta=1.0)
    with pytest.raises(TypeError, match="made already"):
        tree_argmax(scores, surrogate=make_surrogate("spigot"), eta=1.0)
    for name, option, value in [
        ("spigot", "eta", -1.0), ("spigot", "eta", "adaptive"), ("spigot", "max_norm", 0.0),
        ("spigot_eg", "eta", 0.0), ("perturbed", "samples", 1), ("perturbed", "sigma", 0.0),
        ("blackbox", "lam", float("nan")), ("imle", "lam", 0.0), ("imle", "temperature", -1.0),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}|{option}"):
            make_surrogate(name, **{option: value})
    leaf = scores.clone().requires_grad_()
    with pytest.raises(ValueError, match="sequential"):
        tree_argmax(leaf, polytope="sequential").sum().backward()
    scores[1, 2, 1] = torch.nan
    for name in NAMES:
        with pytest.raises(ValueError, match="row 1"):
            tree_argmax(scores, surrogate=name)
    with pytest.raises(ValueError, match="row 0"):
        tree_argmax(scores, [4, 3])


def test_a_new_surrogate_is_one_class(monkeypatch):
    monkeypatch.setattr(SURROGATES, "_members", dict(SURROGATES._members))

    @SURROGATES.register("half")
    class Half(Surrogate):
        def gradient(self, structure, scores, z, g):
            return g / 2

    scores, g = problem(3)
    assert torch.equal(backward(scores, g, surrogate="half")[1], possible(g) / 2)
    assert torch.equal(backward(scores, g, surrogate=Half())[1], possible(g) / 2)
    with pytest.raises(ValueError, match="exists already"):
        SURROGATES.register("half")(Half)


def test_every_surrogate_of_the_design_has_its_name():
    assert set(NAMES) == {
        "pipeline", "ste", "spigot", "spigot_exact", "spigot_ce", "spigot_eg", "marginals", "structured_st",
        "structured_reinmax", "block_reinmax", "perturbed", "imle", "blackbox",
    }  # fmt: skip
    assert {name for name in NAMES if not make_surrogate(name).hard} == SOFT
    assert np.all([SURROGATES[name].__doc__ for name in NAMES])
