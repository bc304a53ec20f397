"""Entropies of trees and their gradients, against enumeration in exact numbers, with scores of any size."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_enumeration import all_trees

from diffdecode.structure import TreeKind, tree_entropy
from diffdecode.structure.kernels import use_backend
from diffdecode.structure.trees import entropy

KINDS = [TreeKind(*kind) for kind in itertools.product([True, False], repeat=2)]
FAMILIES = {
    "normal": lambda normal, ties, scale: normal * scale,
    "ties": lambda normal, ties, scale: ties * scale,
    "chances": lambda normal, ties, scale: ties * scale + normal,  # equal but for a few nats
    "gaps": lambda normal, ties, scale: ties * scale + normal * scale**0.5,
}


def exactly(scores, kind):
    """Entropy of the trees of one sentence's ``scores [N+1, N+1, L]``, and its gradient; None without any."""
    n = len(scores) - 1
    trees = []
    for heads in all_trees(n, kind.projective, kind.multi_root).tolist():
        for labels in itertools.product(range(scores.shape[2]), repeat=n):
            arcs = [*zip(range(1, n + 1), heads, labels)]
            values = [scores[arc].item() for arc in arcs]
            if -math.inf not in values:
                trees.append((sum(map(Fraction, values)), arcs))
    if not trees:
        return None
    best = max(score for score, _ in trees)
    below = [float(score - best) for score, _ in trees]
    log_z = math.log(math.fsum(map(math.exp, below)))
    value = math.fsum(math.exp(x - log_z) * (log_z - x) for x in below)
    gradient = torch.zeros_like(scores)
    for x, (_, arcs) in zip(below, trees):
        for arc in arcs:
            gradient[arc] += math.exp(x - log_z) * (log_z - x - value)
    return value, gradient


@settings(max_examples=cases(15, 3000), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 3),
    labels=st.integers(1, 2),
    kind=st.sampled_from(KINDS),
    scale=st.sampled_from([1.0, 30.0, 1e3, 1e4, 1e6, 1e8, 1e10, 1e12]),
    family=st.sampled_from(sorted(FAMILIES)),
    forbidden=st.sampled_from([0.0, 0.2]),
    backend=st.sampled_from(["numba", "reference"]),
)
def test_exact_at_any_scale(seed, n, labels, kind, scale, family, forbidden, backend):
    generator = torch.Generator().manual_seed(seed)
    shape = (n + 1, n + 1, labels)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    ties = torch.randint(-2, 3, shape, generator=generator).double()
    scores = FAMILIES[family](normal, ties, scale)
    scores[torch.rand(shape, generator=generator) < forbidden] = -torch.inf
    expected = exactly(scores, kind)
    if expected is None:
        return
    # Sums of ties are exact; other sums are rounded, of scores or of a score and the logarithm of two labels.
    exact = family == "ties" and labels == 1
    rounding = 0 if exact else 4 * n * scale * torch.finfo(torch.float64).eps
    leaf = (scores if labels > 1 else scores[..., 0])[None].requires_grad_()
    with use_backend(backend):
        found = kind.entropy(leaf)
        (gradient,) = torch.autograd.grad(found.sum(), leaf)
    assert found >= 0 and abs(float(found.detach()) - expected[0]) <= 2e-9 + rounding
    assert (gradient.view(shape) - expected[1]).abs().max() <= 2e-9 + rounding


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("labels", [0, 2])
def test_both_ways_agree(kind, labels, monkeypatch):
    """The difference and the choices, of sentences of all lengths; and so do their gradients."""
    generator = torch.Generator().manual_seed(0)
    shape = (4, 8, 8, 2)[: 3 + (labels > 0)]
    scores = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    scores[0, 3, 1:4] = scores[1, 4, 0] = -torch.inf
    lengths = torch.tensor([7, 5, 1, 2])
    scores[1, 6:] = torch.nan  # padding
    vector = torch.rand(4, generator=generator)
    found = []
    for trusted in (1.0, -1.0):
        monkeypatch.setattr(entropy, "TRUSTED", trusted)
        leaf = scores.clone().requires_grad_()
        values = kind.entropy(leaf, lengths)
        (gradient,) = torch.autograd.grad(values @ vector.double(), leaf)
        found.append((values.detach(), gradient))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("trusted", [1.0, -1.0])
def test_gradients(kind, trusted, monkeypatch):
    monkeypatch.setattr(entropy, "TRUSTED", trusted)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(kind.entropy, scores)


@pytest.mark.parametrize("size", [0.0, 1e12])
def test_all_trees_are_equally_good(size):
    """The logarithm of how many there are: with each word's scores, of that size, its own."""
    n = 30
    scores = size * torch.arange(n + 1.0)[None, :, None].expand(1, -1, n + 1).double()
    counts = {
        (True, True): math.comb(3 * n, n) // (2 * n + 1),
        (False, True): (n + 1) ** (n - 1),
        (False, False): n ** (n - 1),
    }
    for kind, count in counts.items():
        found = tree_entropy(scores, projective=kind[0], multi_root=kind[1])
        assert found.item() == pytest.approx(math.log(count), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_alone_is_in_company_of_large_scores(kind):
    """Each sentence takes the way that it needs, whatever the others need."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(-2, 3, (6, 5, 5), generator=generator) + 0.1 * torch.randn(6, 5, 5)
    scores = scores * torch.tensor([1, 1e8, 30, 1e12, 1e5, 1])[:, None, None]
    lengths = torch.tensor([4, 4, 3, 4, 2, 1])
    leaf = scores.clone().requires_grad_()
    together = kind.entropy(leaf, lengths)
    (gradient,) = torch.autograd.grad(together.sum(), leaf)
    for b, n in enumerate(lengths.tolist()):
        own = scores[b : b + 1, : n + 1, : n + 1].clone().requires_grad_()
        alone = kind.entropy(own)
        torch.testing.assert_close(alone[0], together[b], rtol=1e-6, atol=1e-7)
        (by_own,) = torch.autograd.grad(alone.sum(), own)
        torch.testing.assert_close(by_own[0], gradient[b, : n + 1, : n + 1], rtol=1e-6, atol=1e-7)
