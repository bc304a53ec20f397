"""The dispatch among backends, threads, forked children, and the compiled pieces that kernels are made of."""

import gc
import multiprocessing
import os
import struct
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from patience import HANGS_AFTER
from score_families import random_scores

from diffdecode.structure import (
    TreeKind,
    kernels,
    nonprojective_tree,
    project_dep,
    project_simplex,
    projective_marginals,
    projective_tree,
)
from diffdecode.structure.kernels import TreeAlgorithms, backend, reference, threads, use_backend
from diffdecode.structure.kernels.numba import backend as numba_backend
from diffdecode.structure.kernels.numba import native
from diffdecode.structure.kernels.numba.compiled import kernel
from diffdecode.structure.kernels.numba.exp import exp_to_one

CPU = torch.device("cpu")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads however little the work is."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1e-12)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_numba_first_on_the_cpu(monkeypatch):
    monkeypatch.delenv("DIFFDECODE_KERNELS", raising=False)
    assert backend(CPU) is numba_backend.BACKEND
    with use_backend("reference"):
        assert backend(CPU) is reference.BACKEND
    assert backend(CPU) is numba_backend.BACKEND
    with use_backend("triton"):  # which runs nothing on the CPU
        assert backend(CPU) is numba_backend.BACKEND


def test_environment_variable(monkeypatch):
    monkeypatch.setenv("DIFFDECODE_KERNELS", "reference")
    assert backend(CPU).name == "reference"
    monkeypatch.setenv("DIFFDECODE_KERNELS", "fortran")
    with pytest.raises(ValueError, match="no backend 'fortran'; there are reference, numba, triton"):
        backend(CPU)


def test_unknown_or_missing_backend(monkeypatch):
    with pytest.raises(ValueError, match="no backend"), use_backend("cuda"):
        pass
    monkeypatch.setattr("diffdecode.structure.kernels.is_installed", lambda name: name == "reference")
    with pytest.raises(RuntimeError, match="pip install numba"), use_backend("numba"):
        pass
    assert backend(CPU).name == "reference"


def test_no_garbage_is_looked_for_while_a_backend_is_imported(monkeypatch):
    class Module:
        BACKEND = property(lambda self: gc.isenabled())

    monkeypatch.setitem(sys.modules, numba_backend.__name__, Module())
    assert kernels._imported("numba") is False
    assert gc.isenabled()


def test_everything_obeys_the_backend_that_is_asked_for(monkeypatch):
    """Every function of a backend is reached from a public function, and no other backend's is."""
    scores, calls = torch.randn(2, 4, 4), []

    def spying(name, function):
        return lambda *arguments: calls.append(name) or function(*arguments)

    def spied(algorithms, prefix):
        return replace(
            algorithms,
            **{f.name: spying(f"{prefix}.{f.name}", getattr(algorithms, f.name)) for f in fields(algorithms)},
        )

    asked = reference.BACKEND
    spy = replace(
        asked,
        projective=spied(asked.projective, "projective"),
        nonprojective=spied(asked.nonprojective, "nonprojective"),
        simplex=spying("simplex", asked.simplex),
        p_dep=spying("p_dep", asked.p_dep),
    )
    monkeypatch.setattr("diffdecode.structure.kernels._load", {"reference": spy}.__getitem__)
    with use_backend("reference"):
        project_simplex(scores)
        project_dep(scores)
        for projective in (True, False):
            trees = TreeKind(projective)
            leaf = scores.clone().requires_grad_()
            marginals = trees.marginals(leaf)[0]
            (product,) = torch.autograd.grad((marginals**2).sum(), leaf, create_graph=True)
            product.sum().backward()
            trees.sample(scores)
            trees.project(scores)
    functions = [f.name for f in fields(TreeAlgorithms)]
    wanted = {f"{kind}.{name}" for kind in ("projective", "nonprojective") for name in functions}
    assert set(calls) == wanted | {"simplex", "p_dep"}


def test_the_gpu_backend_lacks_nothing():
    """Without a device: what Triton does not do, another backend does, and that is little."""
    pytest.importorskip("triton")
    from diffdecode.structure.kernels.triton.backend import over

    found, other = over(reference.BACKEND), reference.BACKEND
    assert found.name == "triton"
    for mine, theirs in ((found.projective, other.projective), (found.nonprojective, other.nonprojective)):
        left = {f.name for f in fields(TreeAlgorithms) if getattr(mine, f.name) is getattr(theirs, f.name)}
        assert left == {"log_partition", "project"}


def test_works_without_numba():
    """In a fresh process where numba cannot be imported."""
    code = """
import sys
sys.modules["numba"] = None
import torch
from diffdecode.structure import projective_tree, nonprojective_marginals
print(projective_tree(torch.zeros(1, 4, 4)).tolist(), nonprojective_marginals(torch.zeros(1, 4, 4))[1].exp())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[[0, 1, 2]]" in done.stdout and "9." in done.stdout


@pytest.mark.parametrize("family", ["normal", "ties", "all_equal", "peaked"])
@pytest.mark.parametrize("multi_root", [False, True])
def test_groups_of_sentences_decide_like_single_ones(family, multi_root, generator):
    """Eisner's 16 lanes against sentence by sentence and the reference, ragged batches, every tie."""
    scores = random_scores(family, 53, 14, generator)
    lengths = torch.randint(1, 15, (53,), generator=generator)
    together = projective_tree(scores, lengths, multi_root=multi_root)
    alone = torch.cat(
        [projective_tree(scores[b : b + 1], lengths[b : b + 1], multi_root=multi_root) for b in range(53)]
    )
    with use_backend("reference"):
        assert torch.equal(together, projective_tree(scores, lengths, multi_root=multi_root))
    assert torch.equal(together, alone)


@pytest.mark.parametrize("multi_root", [False, True])
def test_groups_of_sentences_have_the_marginals_of_single_ones(multi_root, generator):
    scores = torch.randn(37, 15, 15, generator=generator)
    scores[5] *= 500  # leaves the real domain
    scores[6, 2, :3] = -torch.inf
    lengths = torch.randint(3, 15, (37,), generator=generator)
    marginals, log_partition = projective_marginals(scores, lengths, multi_root=multi_root)
    for b in range(37):
        alone, partition = projective_marginals(scores[b : b + 1], lengths[b : b + 1], multi_root=multi_root)
        torch.testing.assert_close(marginals[b], alone[0])
        torch.testing.assert_close(log_partition[b], partition[0])


@pytest.mark.parametrize("multi_root", [False, True])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_groups_of_sentences_have_the_covariance_products_of_the_reference(n, multi_root, generator):
    scores, vector = torch.randn(2, 19, n + 1, n + 1, generator=generator)
    scores[3] *= 300  # leaves the real domain
    scores[5, 1, 2:] = -torch.inf
    vector[5, 1, 2:] = torch.nan  # of arcs that cannot be
    lengths = torch.randint(1, n + 1, (19,), generator=generator)
    product = numba_backend.inside_outside_covariance_product(scores, lengths, multi_root, vector)
    expected = reference.inside_outside_covariance_product(
        scores.double(), lengths, multi_root, vector.double()
    )
    torch.testing.assert_close(product.double(), expected, atol=1e-6, rtol=1e-5)
    assert n == 1 or (product != 0).any()


def test_threads_change_nothing(two_threads, generator):
    scores = torch.randn(70, 12, 12, generator=generator)
    lengths = torch.randint(1, 12, (70,), generator=generator)
    threaded = [projective_tree(scores, lengths), nonprojective_tree(scores, lengths)]
    threaded += projective_marginals(scores, lengths)
    torch.set_num_threads(1)
    serial = [projective_tree(scores, lengths), nonprojective_tree(scores, lengths)]
    serial += projective_marginals(scores, lengths)
    assert all(torch.equal(a, b) for a, b in zip(threaded, serial))


@pytest.mark.parametrize("costs", [[1.0], [5, 1, 1, 1, 1, 1], [1, 1, 9], [1e-9] * 7, [0.0, 0.0, 1.0]])
def test_parts_cover_the_batch_once(costs, two_threads):
    ranges = []
    threads.run_over_batch(lambda start, stop: ranges.append((start, stop)), np.array(costs))
    covered = sorted(i for start, stop in ranges for i in range(start, stop))
    assert covered == list(range(len(costs)))


def test_small_work_stays_on_one_thread():
    torch.set_num_threads(2)
    calls = []
    threads.run_over_batch(lambda start, stop: calls.append((start, stop)), np.full(100, 1e-6))
    torch.set_num_threads(1)
    assert calls == [(0, 100)]


def test_error_in_a_thread_is_raised(two_threads):
    def fail(start, stop):
        raise RuntimeError(f"part {start}")

    with pytest.raises(RuntimeError, match="part"):
        threads.run_over_batch(fail, np.ones(4))


def _child(scores, expected, results):
    results.put(torch.equal(projective_tree(scores), expected))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_after_threads(two_threads, generator):
    """As a data loader's workers do: the parent's threads are not there, but kernels must work."""
    scores = torch.randn(64, 10, 10, generator=generator)
    expected = projective_tree(scores)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_child, args=(scores, expected, results))
    child.start()
    assert results.get(timeout=HANGS_AFTER) is True
    child.join(timeout=HANGS_AFTER)
    assert child.exitcode == 0


@kernel("float64[::1], float64[::1]")
def exponentials(memory, x, out):
    for k in range(len(x)):
        out[k] = exp_to_one(x[k])


def test_exponential():
    x = np.concatenate([-np.random.default_rng(0).exponential(20, 10_000), [0.0, -0.0, -1e-300, -707.9]])
    x = np.concatenate([x, [-np.inf, -800.0, -1e300]])
    out = np.empty_like(x)
    letters, code = exponentials.object_code()
    assert native.linked("exponentials", code)(struct.pack(letters, id(x), id(out))) == 0
    np.testing.assert_allclose(out[:-3], np.exp(x[:-3]), rtol=5e-16)
    assert out[-3:].tolist() == [0.0, 0.0, 0.0]
