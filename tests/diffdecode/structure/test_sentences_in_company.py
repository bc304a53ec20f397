"""Alone = in company: a sentence's result depends on no other sentence, on no padding and on no thread."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from diffdecode.structure import (
    SURROGATES,
    SemanticGraph,
    TreeKind,
    graph_argmax,
    graph_hinge_loss,
    graph_negative_log_likelihood,
    project_dep,
    project_sdp,
    project_sdp_sequential,
    project_simplex,
    semantic_graph,
    tree_argmax,
    tree_hinge_loss,
    tree_negative_log_likelihood,
)
from diffdecode.structure.kernels import threads

LABELS = 3
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=24)
RANDOM = {"perturbed", "imle", "structured_reinmax", "block_reinmax"}
NAMES = [name for name in SURROGATES if name not in RANDOM]
KINDS = [TreeKind(*kind) for kind in itertools.product([True, False], repeat=2)]


def sentence(n, seed, scale):
    """All that is needed of one sentence: scores, a gradient on them, annotation."""
    generator = torch.Generator().manual_seed(1000 * n + seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    size = n + 1
    scores = normal(size, size) * scale
    if seed % 3 == 0:
        scores = scores.round()
    heads = torch.arange(n)
    heads[seed % n] = heads[seed % n] if seed % 2 else -1  # every other one is partly annotated
    graph = torch.where(normal(size, size) > 1, seed % LABELS, -1).fill_diagonal_(-1)
    graph[0] = -1
    return {
        "scores": scores, "labelled": normal(size, size, LABELS), "g": normal(size, size), "heads": heads,
        "predicates": normal(size), "graph": graph, "is_predicate": (graph >= 0).any(0),
        "seeds": torch.randint(2**62, (1,), generator=generator)[0], "g_labels": normal(size, size, LABELS),
    }  # fmt: skip


FILL = {"heads": -1, "graph": 1, "is_predicate": True}


def batch(sentences, extra=0):
    """Padded with what must not be read: NaN, or annotation beyond the lengths."""
    longest = max(len(one["heads"]) for one in sentences) + extra
    columns = {"lengths": torch.tensor([len(one["heads"]) for one in sentences])}
    for name in sentences[0]:
        rows = []
        for one in sentences:
            row, size = one[name], longest + (name != "heads")
            sides = (
                min(row.dim(), 2) if name in ("scores", "g", "graph", "labelled", "g_labels") else row.dim()
            )
            missing = size - row.shape[0] if row.dim() else 0
            trailing = row.dim() - sides
            amounts = [0, 0] * trailing + [0, missing] * sides
            rows.append(pad(row, amounts, value=FILL.get(name, torch.nan)) if row.dim() else row)
        columns[name] = torch.stack(rows)
    return columns


def through(layer, g):
    """The value and the gradient of a layer whose results have the gradients ``g``."""

    def run(leaves):
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        z = layer(*leaves)
        z = z if isinstance(z, tuple) else (z,)
        torch.autograd.backward(z, [torch.where(part.isnan(), 0, part) for part in g])
        return *(part.detach() for part in z), *(leaf.grad for leaf in leaves)

    return run


def tree_uses(trees):
    options = {"projective": trees.projective, "multi_root": trees.multi_root}
    named = {
        "best": lambda b: trees.best(b["scores"], b["lengths"]),
        "best, labelled": lambda b: trees.best_labelled(b["labelled"], b["lengths"]),
        "marginals": lambda b: through(
            lambda s: trees.marginals(s, b["lengths"])[0], [b["g"]]
        )([b["scores"]]),
        "marginals, labelled": lambda b: trees.marginals(b["labelled"], b["lengths"]),
        "entropy": lambda b: trees.entropy(b["scores"], b["lengths"]),
        "covariance_product": lambda b: trees.covariance_product(b["scores"], b["lengths"], b["g"]),
        "k_best": lambda b: [part.transpose(0, 1) for part in trees.k_best(b["scores"], b["lengths"], 3)],
        "project": lambda b: trees.project(b["scores"], b["lengths"])[:2],
        "sample": lambda b: trees.algorithms(torch.device("cpu")).sample(
            b["scores"].contiguous(), b["lengths"], trees.multi_root, b["seeds"][None]
        )[0][0],
        "hinge": lambda b: tree_hinge_loss(b["scores"], b["heads"], b["lengths"], **options),
        "likelihood": lambda b: tree_negative_log_likelihood(
            b["scores"], b["heads"], b["lengths"], **options
        ),
    }  # fmt: skip
    for name in NAMES:
        named[name] = lambda b, name=name: through(
            lambda s: tree_argmax(s, b["lengths"], surrogate=name, **options), [b["g"]]
        )([b["scores"]])
    return named


def parts(b):
    return b["scores"], b["labelled"], b["predicates"]


GRAPH_USES = {
    "semantic_graph": lambda b: semantic_graph(*parts(b), b["lengths"]),
    "semantic_graph, deterministic": lambda b: semantic_graph(*parts(b), b["lengths"], deterministic=[0, 2]),
    "graph_hinge_loss": lambda b: graph_hinge_loss(
        *parts(b), SemanticGraph(b["graph"], b["is_predicate"]), b["lengths"]
    ),
    "graph_negative_log_likelihood": lambda b: graph_negative_log_likelihood(
        *parts(b), SemanticGraph(b["graph"], b["is_predicate"]), b["lengths"]
    ),
    "project_dep": lambda b: through(lambda s: project_dep(s, b["lengths"]), [b["g"]])([b["scores"]]),
    "project_simplex": lambda b: project_simplex(torch.where(b["labelled"].isnan(), 0, b["labelled"])),
    "project_sdp": lambda b: project_sdp(b["scores"].nan_to_num(0), b["labelled"].nan_to_num(0)),
    "project_sdp_sequential": lambda b: project_sdp_sequential(
        b["scores"].nan_to_num(0), b["labelled"].nan_to_num(0)
    ),
} | {
    f"graph_argmax, {name}": lambda b, name=name: through(
        lambda *leaves: graph_argmax(*leaves, b["lengths"], surrogate=name),
        [b["predicates"], b["g"], b["g_labels"]],
    )(parts(b))
    for name in NAMES
    if name != "spigot_exact"  # sentence by sentence, in numpy
}
USES = {f"{name}, {kind}": use for kind in KINDS for name, use in tree_uses(kind).items()} | GRAPH_USES


def same(company, alone):
    """Equal decisions; equal numbers, but for the order in which they are added up."""
    assert len(company) == len(alone)
    for found, expected in zip(company, alone):
        found = found[tuple(slice(size) for size in expected.shape)]  # the rest is padding
        if expected.is_floating_point():
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)
        else:
            assert torch.equal(found, expected)


def results(use, sentences, extra=0):
    """The result of every sentence, from one batch."""
    found = use(batch(sentences, extra))
    found = list(found) if isinstance(found, (tuple, list)) else [found]
    return [[part[b] for part in found] for b in range(len(sentences))]


@pytest.mark.parametrize("name", USES)
@settings(max_examples=4, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 10**4), scale=st.sampled_from([1.0, 200.0]), data=st.data())
def test_alone_is_in_company(name, lengths, seed, scale, data):
    use = USES[name]
    sentences = [sentence(n, seed + place, scale) for place, n in enumerate(lengths)]
    together = results(use, sentences)
    for place in data.draw(st.permutations(range(len(lengths))))[:3]:
        (alone,) = results(use, sentences[place : place + 1])
        same(together[place], alone)
    order = data.draw(st.permutations(range(len(lengths))))
    for place, found in zip(order, results(use, [sentences[place] for place in order], extra=2)):
        same(found, together[place])


@pytest.mark.parametrize("name", USES)
def test_on_one_thread_is_on_two(name, monkeypatch):
    sentences = [sentence(1 + place % 7, place, 1.0) for place in range(20)]
    serial = results(USES[name], sentences)
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1e-12)
    torch.set_num_threads(2)
    try:
        threaded = results(USES[name], sentences)
    finally:
        torch.set_num_threads(1)
    for found, expected in zip(threaded, serial):
        same(found, expected)
