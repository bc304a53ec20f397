"""Other libraries' tree algorithms behind one interface; those that are not installed are named and left out.

An adapter converts the scores to its library's own layout outside the timed call. What ``run`` returns is the
library's own result; ``result`` turns it into ours, to check that all systems computed the same thing.
"""

import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PROJECTIVE, ANY, ANY_MULTI_ROOT = "best projective tree", "best tree", "best tree, several root words"
INSIDE_OUTSIDE, MATRIX_TREE = "projective marginals", "matrix-tree marginals"
BACKWARD = "projective marginals and their backward pass"


@dataclass
class System:
    """One library at one task: ``prepare(scores)`` once, then ``run(prepared)`` is timed."""

    name: str
    task: str
    prepare: Callable
    run: Callable
    result: Callable  # of what run returns, to heads [B, N], or to marginals or gradients [B, N+1, N+1]
    longest: int = 160  # sentence that it is tried with


def installed_peers() -> tuple[list[System], dict[str, str], list[str]]:
    """Systems of the installed libraries, the libraries' versions, and what is missing."""
    systems, versions, missing = [], {}, []
    for package, adapters in PEERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                systems += adapters()
            versions[package] = importlib.metadata.version(package)
        except ImportError as error:
            missing.append(f"{package}: {error}")
    return systems, versions, missing


def backward(marginals_of: Callable, scores: Tensor) -> Tensor:
    """Gradient of the sum of squared marginals."""
    leaf = scores.clone().requires_grad_()
    return torch.autograd.grad(marginals_of(leaf).square().sum(), leaf)[0]


def _torch_struct() -> list[System]:
    from torch_struct import DependencyCRF, NonProjectiveDependencyCRF

    # It writes into scores that it made a leaf itself, which torch forbids: hand it ones that are no leaf.
    def marginals(scores):
        return DependencyCRF(scores.clone().requires_grad_() * 1, multiroot=False).marginals

    def heads(scores):
        return DependencyCRF(scores.clone().requires_grad_() * 1, multiroot=False).argmax

    def matrix_tree(scores):
        return NonProjectiveDependencyCRF(scores, multiroot=False).marginals

    name, prepare, result = "torch-struct", _roots_on_the_diagonal, _roots_off_the_diagonal
    return [
        System(name, PROJECTIVE, prepare, heads, lambda arcs: result(arcs)[:, 1:].argmax(2)),
        System(name, INSIDE_OUTSIDE, prepare, marginals, result, 80),
        System(name, BACKWARD, prepare, lambda scores: backward(marginals, scores), result, 40),
        System(name, MATRIX_TREE, prepare, matrix_tree, result),
    ]


def _roots_on_the_diagonal(scores: Tensor) -> Tensor:
    """torch-struct's layout: ``[B, head, dependent]`` over words, a root's score on the diagonal."""
    potentials = scores[:, 1:, 1:].transpose(1, 2).contiguous()
    potentials.diagonal(0, 1, 2).copy_(scores[:, 1:, 0])
    return potentials


def _roots_off_the_diagonal(values: Tensor) -> Tensor:
    values = values.detach().transpose(1, 2)
    ours = torch.nn.functional.pad(values, (1, 0, 1, 0))
    ours[:, 1:, 0] = values.diagonal(0, 1, 2)
    ours.diagonal(0, 1, 2).zero_()
    return ours


def _supar() -> list[System]:
    from supar.structs import DependencyCRF, MatrixTree

    # Scores are cloned: supar turns requires_grad on, and its maximum spanning tree overwrites them.
    def marginals(scores):
        return DependencyCRF(scores.clone(), multiroot=False).marginals

    def heads(scores):
        return DependencyCRF(scores.clone(), multiroot=False).argmax

    def any_heads(scores):
        return MatrixTree(scores.clone(), multiroot=False).argmax

    def matrix_tree(scores):
        return MatrixTree(scores.clone(), multiroot=False).marginals

    name = "supar"
    return [
        System(name, PROJECTIVE, _same, heads, lambda heads: heads[:, 1:]),
        System(name, INSIDE_OUTSIDE, _same, marginals, _detached),
        System(name, BACKWARD, _same, lambda scores: backward(marginals, scores), _detached, 80),
        System(name, ANY, _same, any_heads, lambda heads: heads[:, 1:], 80),
        System(name, MATRIX_TREE, _same, matrix_tree, _detached),
    ]


def _same(scores: Tensor) -> Tensor:
    return scores


def _detached(values: Tensor) -> Tensor:
    return values.detach()


def _stanza() -> list[System]:
    from stanza.models.common.chuliu_edmonds import chuliu_edmonds_one_root

    def below_zero(scores):  # its single root works on negative scores only; a shift changes no decision
        return [sentence.numpy() - np.float32(10) for sentence in scores]

    def heads(sentences):
        return [chuliu_edmonds_one_root(sentence.copy()) for sentence in sentences]

    return [System("stanza", ANY, below_zero, heads, lambda heads: torch.tensor(np.stack(heads))[:, 1:])]


def _ufal() -> list[System]:
    from ufal.chu_liu_edmonds import chu_liu_edmonds

    def with_nan(scores):
        sentences = scores.double().numpy().copy()
        sentences[:, 0] = np.nan
        np.einsum("bii->bi", sentences)[:] = np.nan
        return list(sentences)

    def heads(sentences):
        return [chu_liu_edmonds(sentence)[0] for sentence in sentences]

    return [System("ufal.chu_liu_edmonds", ANY_MULTI_ROOT, with_nan, heads, lambda h: torch.tensor(h)[:, 1:])]


def _networkx() -> list[System]:
    import networkx

    def graphs(scores):
        return [_graph(networkx, sentence) for sentence in scores.tolist()]

    def arborescences(graphs):
        return [networkx.maximum_spanning_arborescence(graph) for graph in graphs]

    def heads(trees):
        return torch.tensor([[h for h, _ in sorted(t.edges, key=lambda arc: arc[1])] for t in trees])

    return [System("networkx", ANY_MULTI_ROOT, graphs, arborescences, heads, 20)]


def _graph(networkx, sentence: list[list[float]]):
    graph = networkx.DiGraph()
    words = range(len(sentence))
    graph.add_weighted_edges_from((h, m, sentence[m][h]) for m in words[1:] for h in words if h != m)
    return graph


PEERS = {
    "torch-struct": _torch_struct,
    "supar": _supar,
    "stanza": _stanza,
    "ufal.chu_liu_edmonds": _ufal,
    "networkx": _networkx,
}
