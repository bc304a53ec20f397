"""Everything that is a number, against enumeration, with scores of any size: nothing is lost or NaN."""

import itertools

import pytest
import torch
from exploring import cases
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tree_enumeration import all_trees, enumerated_marginals, score_all

from diffdecode.structure import (
    TreeKind,
    graph_hinge_loss,
    graph_negative_log_likelihood,
    semantic_graph,
    tree_entropy,
    tree_hinge_loss,
    tree_negative_log_likelihood,
)

KINDS = list(itertools.product([True, False], repeat=2))
SCALES = [1.0, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12]
DTYPES = [torch.float32, torch.float64]

any_case = given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 4),
    kind=st.sampled_from(KINDS),
    scale=st.sampled_from(SCALES),
    dtype=st.sampled_from(DTYPES),
    family=st.sampled_from(["ties", "normal", "chances"]),
)


def scores_of(seed, n, scale, dtype, family):
    """Of that size; ``ties``: many trees are equally good. ``chances``: they are, but for a few nats."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(6, n + 1, n + 1, generator=generator)
    if family == "normal":
        return (scores * scale).to(dtype)
    ties = torch.randint(-1, 2, scores.shape, generator=generator).double() * scale
    return (ties + (scores if family == "chances" else 0)).to(dtype)


def spread(values):
    """Rounding of sums of the scores in float64."""
    return 2e-15 * values.double().abs().amax().clamp(min=1)


@settings(max_examples=cases(75, 600), deadline=None)
@any_case
@example(seed=0, n=4, kind=(True, False), scale=1e8, dtype=torch.float64, family="ties")
@example(seed=0, n=4, kind=(False, False), scale=1e12, dtype=torch.float64, family="ties")
def test_distributions(seed, n, kind, scale, dtype, family):
    scores = scores_of(seed, n, scale, dtype, family)
    trees, rounding = TreeKind(*kind), spread(scores)
    expected, log_partition = enumerated_marginals(scores, n, *kind)
    leaf = scores.clone().requires_grad_()
    marginals, ours = trees.marginals(leaf)
    accuracy = 1e-6 if dtype == torch.float32 else 1e-12
    assert (marginals.double() - expected).abs().max() <= accuracy + rounding * (family != "ties")
    relative = 1e-6 if dtype == torch.float32 else 1e-14
    assert torch.allclose(ours.double(), log_partition, rtol=relative, atol=4 * rounding)
    log_p = score_all(scores, n, *kind).log_softmax(1)
    entropy = -torch.where(log_p > -torch.inf, log_p.exp() * log_p, 0).sum(1)
    found = tree_entropy(leaf, projective=kind[0], multi_root=kind[1])
    assert (found >= 0).all()
    assert (found.double() - entropy).abs().max() <= 1e-6 + 4 * rounding
    (gradient,) = torch.autograd.grad(found.sum() + (marginals**2).sum(), leaf)
    assert gradient.isfinite().all()


@settings(max_examples=cases(75, 600), deadline=None)
@any_case
@example(seed=0, n=4, kind=(True, False), scale=1e6, dtype=torch.float32, family="normal")
def test_losses(seed, n, kind, scale, dtype, family):
    scores = scores_of(seed, n, scale, dtype, family)
    options, rounding = {"projective": kind[0], "multi_root": kind[1]}, 4 * spread(scores)
    trees, per_tree = all_trees(n, *kind), score_all(scores, n, *kind)
    chosen = torch.randint(len(trees), (len(scores),), generator=torch.Generator().manual_seed(seed))
    for index in (per_tree.argmax(1), chosen):
        of_gold = per_tree.gather(1, index[:, None]).squeeze(1)
        leaf = scores.clone().requires_grad_()
        found = tree_negative_log_likelihood(leaf, trees[index], **options)
        expected = (per_tree - of_gold[:, None]).logsumexp(1)
        assert (found >= 0).all()
        assert torch.allclose(found.double(), expected, rtol=1e-6, atol=1e-6 + rounding)
        hinge = tree_hinge_loss(leaf, trees[index], **options)
        cost = (trees != trees[index][:, None]).sum(2)
        # The best tree under cost is found among sums in the scores' own precision.
        decided = rounding * (2**29 if dtype == torch.float32 else 4)
        expected = (per_tree - of_gold[:, None] + cost).amax(1)
        assert (hinge >= 0).all()
        assert torch.allclose(hinge.double(), expected, rtol=1e-6, atol=1e-6 + decided)
        (gradient,) = torch.autograd.grad((found + hinge).sum(), leaf)
        assert gradient.isfinite().all() and gradient.abs().max() <= 2 + 1e-6
        partly = trees[index].clone()
        partly[:, ::2] = -1
        with_gold = ((trees == partly[:, None]) | (partly[:, None] < 0)).all(2)
        best = per_tree.masked_fill(~with_gold, -torch.inf)
        found = tree_negative_log_likelihood(scores, partly, **options)
        reference = best.amax(1, keepdim=True)
        expected = (per_tree - reference).logsumexp(1) - (best - reference).logsumexp(1)
        assert (found >= 0).all()
        assert torch.allclose(found.double(), expected, rtol=1e-6, atol=1e-6 + rounding)


@settings(max_examples=cases(15, 120), deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from(SCALES), dtype=st.sampled_from(DTYPES))
def test_graph_losses(seed, scale, dtype):
    """The likelihood is that of independent choices; no term of it is a difference of large numbers."""
    generator = torch.Generator().manual_seed(seed)
    arcs, labels, predicates = (
        (torch.randn(shape, generator=generator) * scale).to(dtype)
        for shape in [(3, 4, 4), (3, 4, 4, 2), (3, 4)]
    )
    gold = semantic_graph(arcs, labels, predicates)
    assert graph_negative_log_likelihood(arcs, labels, predicates, gold).max() <= (20 if scale > 1 else 60)
    for other in (gold, semantic_graph(-arcs, labels, predicates)):
        for scores in (predicates, None):
            loss = graph_negative_log_likelihood(arcs, labels, scores, other)
            exact = graph_negative_log_likelihood(
                arcs.double(), labels.double(), None if scores is None else scores.double(), other
            )
            assert (loss >= 0).all() and torch.allclose(loss.double(), exact, rtol=1e-5, atol=1e-6)
            assert (graph_hinge_loss(arcs, labels, scores, other) >= 0).all()


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_score_is_named(bad, labelled):
    """By everything that is done with trees, of either kind, in whatever label it stands."""
    scores = torch.randn(3, 5, 5, 2) if labelled else torch.randn(3, 5, 5)
    scores[1, 2, 3] = torch.tensor([0.0, bad]) if labelled else bad
    gold = torch.tensor([[0, 1, 2, 3]] * 3)
    for kind in KINDS:
        trees = TreeKind(*kind)
        uses = [trees.best, trees.marginals, trees.log_partition, trees.entropy, trees.sample]
        if not labelled:
            uses += [trees.k_best, trees.project]
            for loss in (tree_hinge_loss, tree_negative_log_likelihood):
                uses.append(lambda s, loss=loss, kind=kind: loss(s, gold, projective=kind[0]))
                partly = gold.masked_fill(torch.arange(4) == 1, -1)
                uses.append(lambda s, loss=loss, partly=partly: loss(s, partly))
        for use in uses:
            with pytest.raises(ValueError, match="row 1"):
                use(scores)
