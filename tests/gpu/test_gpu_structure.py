"""Trees and graphs on a GPU: the CPU's decisions, ties included, and its values and gradients to rounding."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from diffdecode.structure import (
    SURROGATES,
    GraphParts,
    JointParts,
    graph_argmax,
    graph_hinge_loss,
    graph_negative_log_likelihood,
    joint_negative_log_likelihood,
    joint_scores,
    joint_semantic_graphs,
    k_best_trees,
    nonprojective_marginals,
    nonprojective_tree,
    project_dep,
    project_sdp,
    project_sdp_sequential,
    project_simplex,
    project_trees,
    projective_marginals,
    projective_tree,
    sample_nonprojective_trees,
    sample_projective_trees,
    semantic_graph,
    tree_argmax,
    tree_entropy,
    tree_hinge_loss,
    tree_negative_log_likelihood,
)

SMALL = [(3, 1), (9, 7)]
EDGES = [(40, n) for n in (1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128)] + [(133, 20), (300, 40)]
LONG = [(8, 160), (4, 255), (4, 256), (2, 300)]
FAMILIES = ("normal", "ties", "huge", "forbidden")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scores_of(family, batch, n, dtype=torch.float32):
    """Scores ``[batch, n+1, n+1]`` with a tree in each sentence, and lengths of which the first is ``n``."""
    generator = seeded(batch + n)
    scores = torch.randn(batch, n + 1, n + 1, generator=generator, dtype=torch.float64)
    if family == "ties":
        scores = torch.randint(0, 3, scores.shape, generator=generator).double()
    if family == "huge":
        scores *= 1e3 if dtype == torch.float16 else 1e6
    if family == "forbidden":
        scores[torch.rand(scores.shape, generator=generator) < 0.2] = -torch.inf
        scores[:, :, 0] = scores[:, :, 0].clamp(min=-5.0)
        scores[:, 1:, 1:].diagonal(-1, 1, 2).clamp_(min=-9)
    lengths = torch.randint(1, n + 1, (batch,), generator=generator)
    lengths[0] = n
    return scores.to(dtype), lengths


def assert_same(found, expected, device, atol=1e-5, rtol=1e-5):
    for there, here in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert there.device.type == device.type and there.dtype == here.dtype
        tolerance = {"atol": atol, "rtol": rtol} if here.is_floating_point() else {"atol": 0, "rtol": 0}
        torch.testing.assert_close(there.detach().cpu(), here.detach(), equal_nan=True, **tolerance)


def compare(accelerator, function, *arguments, atol=1e-5, rtol=1e-5, **options):
    found = function(*accelerator.moved(arguments), **accelerator.moved(options))
    assert_same(found, function(*arguments, **options), accelerator.device, atol, rtol)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_best_trees(accelerator, family, multi_root, dtype):
    for batch, n in accelerator.sizes(SMALL, EDGES + LONG):
        scores, lengths = scores_of(family, batch, n, dtype)
        for function in (projective_tree, nonprojective_tree):
            compare(accelerator, function, scores, lengths, multi_root=multi_root)


@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_marginals(accelerator, dtype, family, multi_root):
    for batch, n in accelerator.sizes(SMALL, EDGES + LONG):
        scores, lengths = scores_of(family, batch, n, dtype)
        scores = scores / 1e3 if family == "huge" else scores
        for function in (projective_marginals, nonprojective_marginals):
            compare(accelerator, function, scores, lengths, multi_root=multi_root, rtol=2e-5)


@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "function", [projective_marginals, nonprojective_marginals], ids=lambda f: f.__name__
)
def test_gradients_of_marginals(accelerator, function, family, multi_root):
    def gradient(scores, lengths, g):
        leaf = scores.clone().requires_grad_()
        marginals, log_partition = function(leaf, lengths, multi_root=multi_root)
        return torch.autograd.grad((marginals * g).sum() + log_partition.sum(), leaf)[0]

    for batch, n in accelerator.sizes(SMALL, [*EDGES[::4], (133, 20), (8, 160)]):
        scores, lengths = scores_of(family, batch, n, torch.float64)
        g = torch.randn(scores.shape, generator=seeded(1), dtype=torch.float64)
        compare(accelerator, gradient, scores, lengths, g, atol=1e-6)


@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("draw", [sample_projective_trees, sample_nonprojective_trees])
def test_samples_are_those_of_the_cpu(accelerator, draw, family, multi_root):
    def drawn(scores, lengths):
        return draw(scores, lengths, 3, multi_root=multi_root, generator=seeded(1))

    for batch, n in accelerator.sizes(SMALL, [*EDGES, (8, 160), (2, 256)]):
        scores, lengths = scores_of(family, batch, n)
        compare(accelerator, drawn, scores, lengths)
        if n < 20:
            labelled = torch.randn(*scores.shape, 3, generator=seeded(2))
            compare(accelerator, drawn, labelled, lengths)


@pytest.mark.parametrize("function", [project_dep, project_simplex], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_projections(accelerator, function, dtype):
    for batch, n in accelerator.sizes(SMALL, EDGES):
        scores, lengths = scores_of("normal", batch, n, dtype)
        arguments = (scores, lengths) if function is project_dep else (scores,)
        tolerance = 1e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-5
        compare(accelerator, function, *arguments, atol=tolerance)


@pytest.mark.parametrize("projective", [True, False])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_surrogates_of_trees(accelerator, surrogate, projective):
    """One generator of the CPU gives both devices the same noise."""
    scores, lengths = scores_of("normal", *accelerator.sizes([(5, 4)], [(12, 9)])[0])
    g = torch.randn(scores.shape, generator=seeded(1))

    def gradient(scores, lengths, g):
        leaf = scores.clone().requires_grad_()
        options = {"surrogate": surrogate, "projective": projective, "generator": seeded(1)}
        z = tree_argmax(leaf, lengths, **options)
        (z * g).sum().backward()
        return z, leaf.grad

    compare(accelerator, gradient, scores, lengths, g, atol=1e-4)


@pytest.mark.parametrize("loss", [tree_hinge_loss, tree_negative_log_likelihood], ids=lambda f: f.__name__)
@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("projective", [True, False])
def test_losses_of_trees(accelerator, loss, partly, projective):
    scores, lengths = scores_of("normal", 9, 7)
    gold = projective_tree(torch.randn(scores.shape, generator=seeded(2)), lengths)
    if partly:
        gold[::2] = gold[::2].masked_fill(torch.arange(7) % 3 == 0, -1)

    def gradient(scores, gold, lengths):
        leaf = scores.clone().requires_grad_()
        values = loss(leaf, gold, lengths, projective=projective)
        values.sum().backward()
        return values, leaf.grad

    compare(accelerator, gradient, scores, gold, lengths)


def test_entropy_k_best_and_the_exact_projection(accelerator):
    scores, lengths = scores_of("normal", 5, 6)
    compare(accelerator, tree_entropy, scores, lengths)
    compare(accelerator, tree_entropy, 1e8 * scores.round() + scores, lengths)
    compare(accelerator, k_best_trees, scores, lengths, k=4)
    compare(accelerator, lambda *given: project_trees(*given).point, scores, lengths)


def test_second_derivatives_of_marginals(accelerator):
    scores, lengths = scores_of("normal", 3, 4, torch.float64)
    g = torch.randn(2, *scores.shape, generator=seeded(1), dtype=torch.float64)

    def second(scores, lengths, g):
        leaf = scores.clone().requires_grad_()
        marginals, _ = projective_marginals(leaf, lengths)
        (first,) = torch.autograd.grad(marginals, leaf, g[0], create_graph=True)
        return torch.autograd.grad(first, leaf, g[1])[0]

    compare(accelerator, second, scores, lengths, g)


@pytest.mark.parametrize("draw", [sample_projective_trees, sample_nonprojective_trees])
def test_samples_have_the_marginals(accelerator, draw):
    scores, lengths = scores_of("normal", 2, 4)
    marginals = projective_marginals if draw is sample_projective_trees else nonprojective_marginals
    count = 400 if not accelerator.is_real else 4000
    heads = draw(*accelerator.moved((scores, lengths)), count, generator=accelerator.generator(0)).cpu()
    share = torch.nn.functional.one_hot(heads[:, 0].clamp(min=0), 5).float().mean(0)
    torch.testing.assert_close(share, marginals(scores, lengths)[0][0, 1:], atol=2.5 / count**0.5, rtol=0)


def graph_scores(batch=4, n=5, labels=3):
    shapes = (batch, n, n), (batch, n, n, labels), (batch, n)
    return tuple(torch.randn(shape, generator=seeded(i)) for i, shape in enumerate(shapes))


@pytest.mark.parametrize("deterministic", [(), (0, 1)])
def test_graphs(accelerator, deterministic):
    for batch, n in accelerator.sizes([(4, 5)], [(4, 5), (140, 17), (8, 64)]):
        arcs, labels, predicates = graph_scores(batch, n)
        compare(accelerator, semantic_graph, arcs, labels, predicates, deterministic=list(deterministic))
        compare(accelerator, semantic_graph, arcs, labels)
        compare(accelerator, project_sdp, arcs, labels)
        compare(accelerator, project_sdp_sequential, arcs, labels)


def test_two_graphs_together(accelerator):
    def best(arcs, labels, predicates, places, pairs):
        leaves = [part.clone().requires_grad_() for part in (predicates, arcs, labels, pairs)]
        one = GraphParts(*leaves[:3])
        parts = JointParts(one, GraphParts(*(-part for part in one)), places, leaves[3])
        graphs = joint_semantic_graphs(parts)
        values = joint_negative_log_likelihood(parts, graphs)
        (values + joint_scores(parts, graphs)).sum().backward()
        return *map(tuple, graphs), values, [leaf.grad for leaf in leaves]

    for batch, n in accelerator.sizes([(4, 5)], [(4, 5), (140, 17), (8, 64)]):
        arcs, labels, predicates = graph_scores(batch, n)
        places = (torch.rand(arcs.shape, generator=seeded(5)) < 0.3).nonzero()
        pairs = torch.randn(len(places), 3, 3, generator=seeded(6))
        compare(accelerator, best, arcs, labels, predicates, places, pairs)


@pytest.mark.parametrize("surrogate", [name for name, one in SURROGATES.items() if not one.trees_only])
def test_surrogates_of_graphs(accelerator, surrogate):
    def gradient(*parts):
        leaves = [part.clone().requires_grad_() for part in parts]
        z = graph_argmax(*leaves, surrogate=surrogate, generator=seeded(1))
        sum((0.3 * part + part * part).sum() for part in z).backward()
        return tuple(z), [leaf.grad for leaf in leaves]

    compare(accelerator, gradient, *graph_scores(2, 4, 2), atol=1e-4)


@pytest.mark.parametrize("loss", [graph_hinge_loss, graph_negative_log_likelihood], ids=lambda f: f.__name__)
def test_losses_of_graphs(accelerator, loss):
    parts = graph_scores()
    gold = semantic_graph(*(torch.randn(part.shape, generator=seeded(9)) for part in parts))

    def gradient(arcs, labels, predicates, gold):
        leaves = [part.clone().requires_grad_() for part in (arcs, labels, predicates)]
        values = loss(*leaves, gold)
        values.sum().backward()
        return values, [leaf.grad for leaf in leaves]

    compare(accelerator, gradient, *parts, gold)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_stream_a_captured_graph_and_another_card():
    from diffdecode.structure import unchecked

    scores, lengths = (tensor.cuda() for tensor in scores_of("normal", 64, 40))
    expected, stream = projective_tree(scores, lengths), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = projective_tree(scores, lengths)
    stream.synchronize()
    assert torch.equal(found, expected)
    with unchecked():
        projective_tree(scores, lengths)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            heads = projective_tree(scores, lengths)
    scores.copy_(torch.randn_like(scores))
    graph.replay()
    assert torch.equal(heads, projective_tree(scores, lengths))
    leaf, g = scores.clone().requires_grad_(), torch.randn_like(scores)

    def step_of_spigot():
        with unchecked():
            z = tree_argmax(leaf, lengths, surrogate="spigot")
        return torch.autograd.grad(z, leaf, g)[0]

    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # PyTorch wants a step on another stream before it captures one
        step_of_spigot()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradient = step_of_spigot()
    leaf.detach().copy_(torch.randn_like(scores))
    graph.replay()
    assert torch.equal(gradient, step_of_spigot())
    if torch.cuda.device_count() > 1:  # the current one is cuda:0
        assert torch.equal(projective_tree(scores.to("cuda:1"), lengths.to("cuda:1")).cpu(), heads.cpu())
