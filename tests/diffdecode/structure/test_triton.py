"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled ahead of time for sm_90."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed (pip install triton)"
)


def test_kernels_in_the_interpreter():
    """In a process of its own, because Triton reads TRITON_INTERPRET when it is imported."""
    environment = {
        **os.environ, "TRITON_INTERPRET": "1", "DIFFDECODE_KERNELS": "numba",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }  # fmt: skip
    tests = Path(__file__).with_name("triton_interpreted.py")
    plain = ("-q", "--assert=plain", "-p", "no:cacheprovider")  # asserts of all plugins are not written anew
    command = [sys.executable, "-m", "pytest", *plain, str(tests)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout


def has_assembler():
    spec = importlib.util.find_spec("triton")
    return spec is not None and any(Path(spec.origin).parent.glob("backends/nvidia/bin/ptxas*"))


# What these store, they never read.
WITHOUT_STEPS_IN_MEMORY = ("project_rows", "look_at_scores", "mark_possible", "split_spans", "grow_trees")


@pytest.mark.skipif(not has_assembler(), reason="this Triton has no ptxas")
@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter does not compile")
def test_kernels_compile_for_sm_90():
    from benchmarks.triton_resources import cases

    for name, case in cases().items():
        compiled = case.compiled()
        assert compiled.asm["cubin"], name
        if not name.startswith(WITHOUT_STEPS_IN_MEMORY):
            assert "bar.sync" in compiled.asm["ptx"], name


def own(on_cuda, fallback):
    """Names of what a backend for cards, or its algorithms for trees, has of its own."""
    names = [field.name for field in fields(on_cuda) if callable(getattr(on_cuda, field.name))]
    return {name for name in names if getattr(on_cuda, name) is not getattr(fallback, name)}


def test_the_stand_in_for_a_card_has_the_kernels_that_triton_has():
    from standin_card import KERNELS

    from diffdecode.structure import kernels
    from diffdecode.structure.kernels.triton.backend import over

    fallback = kernels._load("numba")
    on_cuda = over(fallback)
    of_projective = own(on_cuda.projective, fallback.projective)
    assert own(on_cuda.nonprojective, fallback.nonprojective) == of_projective
    assert of_projective | own(on_cuda, fallback) == set(KERNELS)


LEFT_TO_THE_CPU = {"spigot_exact": "project"}


def test_projective_trees_do_without_the_cpu(monkeypatch):
    """No surrogate calls what CUDA leaves to the CPU, but for the exact projection."""
    from diffdecode.structure import SURROGATES, kernels, tree_argmax
    from diffdecode.structure.kernels.triton.backend import over

    numba = kernels._load("numba")
    calls = []

    def watched(name, function):
        return lambda *arguments: calls.append(name) or function(*arguments)

    def watching(algorithms):  # log_partition is torch's, on any device
        names = [field.name for field in fields(algorithms) if field.name != "log_partition"]
        return replace(algorithms, **{name: watched(name, getattr(algorithms, name)) for name in names})

    fallback = replace(
        numba, projective=watching(numba.projective), nonprojective=watching(numba.nonprojective)
    )
    on_cuda = over(fallback).projective
    in_its_place = {name: getattr(numba.projective, name) for name in own(on_cuda, fallback.projective)}
    assert in_its_place.keys() >= {"best", "marginals", "covariance_product"}
    card = replace(fallback, projective=replace(fallback.projective, **in_its_place))
    monkeypatch.setattr(kernels, "_load", lambda name: card)
    scores = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    for surrogate in SURROGATES:
        calls.clear()
        leaf = scores.clone().requires_grad_()
        (tree_argmax(leaf, [4, 3], surrogate=surrogate) * scores).sum().backward()
        assert set(calls) <= {LEFT_TO_THE_CPU.get(surrogate)}, surrogate


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_device():
    """Same decisions as on the CPU, and a backward pass that never waits for the device.

    With trusted inputs, nor does the decision.
    """
    from diffdecode.structure import (
        nonprojective_tree,
        projective_marginals,
        projective_tree,
        tree_argmax,
        unchecked,
    )

    generator = torch.Generator().manual_seed(0)
    scores, g = torch.randn(2, 64, 41, 41, generator=generator)
    lengths = torch.randint(1, 41, (64,), generator=generator)
    for multi_root in (False, True):
        heads, crossing, marginals = (
            [
                decide(scores.to(device), lengths.to(device), multi_root=multi_root)
                for device in ("cpu", "cuda")
            ]
            for decide in (projective_tree, nonprojective_tree, projective_marginals)
        )
        assert torch.equal(heads[0], heads[1].cpu())
        assert torch.equal(crossing[0], crossing[1].cpu())
        assert torch.allclose(marginals[0][0], marginals[1][0].cpu(), atol=1e-5)
        assert torch.allclose(marginals[0][1], marginals[1][1].cpu())

    def step(leaf, on_device, by_z):
        with unchecked():
            nonprojective_tree(leaf, on_device)
            z = tree_argmax(leaf, on_device, surrogate="spigot")
        return torch.autograd.grad(z, leaf, by_z)[0]

    gradients = []
    for device in ("cpu", "cuda"):
        inputs = scores.to(device).requires_grad_(), lengths.to(device), g.to(device)
        step(*inputs)  # kernels are compiled and autograd's threads begin, which may wait
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            gradient = step(*inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        gradients.append(gradient.cpu())
    assert torch.allclose(*gradients, atol=1e-6)
