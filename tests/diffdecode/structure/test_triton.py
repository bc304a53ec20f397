"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled ahead of time for sm_90."""

import importlib.util
import os
import subprocess
import sys
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
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout


def compile_for_sm_90(kernel, signature, constants, warps):
    """The kernel, compiled and assembled without a device."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {**signature, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})


CHARTS = {"scores": "*{0}", "right": "*{0}", "left": "*{0}", "arcs": "*{0}"}
SPLITS = {"splits": "*i16", "arc_splits": "*i16"}
SIGNATURES = {
    "fill_charts": {"scores": "*{0}", "charts": "*{0}", **SPLITS, "lengths": "*i64", "size": "i32"},
    "follow_best_splits": {
        "scores": "*{0}", "charts": "*{0}", **SPLITS, "items": "*i32", "lengths": "*i64", "heads": "*i64",
        "totals": "*{0}", "size": "i32",
    },
    "best_arborescence": {
        "scores": "*{0}", "weights": "*fp64", "enters": "*i32", "lengths": "*i64", "heads": "*i64",
        "found": "*i8", "size": "i32",
    },
    "inside": {**CHARTS, "bases": "*{0}", "lengths": "*i64", "size": "i32", "shift": "i32"},
    "outside": {
        **CHARTS, "bases": "*{0}", "p_right": "*{0}", "p_left": "*{0}", "p_arcs": "*{0}", "lengths": "*i64",
        "marginals": "*{0}", "log_partitions": "*{0}", "size": "i32", "shift": "i32",
    },
    "eliminate": {"weights": "*{0}", "lengths": "*i64", "size": "i32", "shift": "i32"},
    "undo": {"weights": "*{0}", "adjoints": "*{0}", "lengths": "*i64", "size": "i32", "shift": "i32"},
    "split_spans": {
        **CHARTS, "lengths": "*i64", "seeds": "*i64", "heads": "*i64", "size": "i32", "batch": "i32",
    },
    "grow_trees": {
        "given": "*{0}", "weights": "*{0}", "lengths": "*i64", "seeds": "*i64", "heads": "*i64",
        "size": "i32", "batch": "i32",
    },
    "project_rows": {"point": "*{0}", "out": "*{0}", "lengths": "*i64", "size": "i32"},
}  # fmt: skip


def has_assembler():
    spec = importlib.util.find_spec("triton")
    return spec is not None and any(Path(spec.origin).parent.glob("backends/nvidia/bin/ptxas*"))


@pytest.mark.skipif(not has_assembler(), reason="this Triton has no ptxas")
@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter does not compile")
@pytest.mark.parametrize("multi_root, dtype", [(False, "fp32"), (True, "fp64")])
@pytest.mark.parametrize("name", ["fill_charts", "follow_best_splits"])
def test_eisner_compiles_for_sm_90(name, multi_root, dtype):
    from diffdecode.structure.kernels.triton import eisner as triton_eisner

    tile = triton_eisner.tile_shape(multi_root)
    warps = tile.pop("num_warps")
    if name == "follow_best_splits":
        tile, warps = {"SLOTS": triton_eisner.WORDS_AT_ONCE, "FIRST": tile["FIRST"]}, 1
    signature = {argument: kind.format(dtype) for argument, kind in SIGNATURES[name].items()}
    compiled = compile_for_sm_90(getattr(triton_eisner, name), signature, tile, warps)
    assert compiled.asm["cubin"]
    assert "bar.sync" in compiled.asm["ptx"]  # widths are separated


@pytest.mark.skipif(not has_assembler(), reason="this Triton has no ptxas")
@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter does not compile")
@pytest.mark.parametrize("multi_root, along", [(True, False), (False, True)])
@pytest.mark.parametrize("name", ["inside", "outside", "eliminate", "undo"])
def test_marginals_compile_for_sm_90(name, multi_root, along):
    from diffdecode.structure.kernels.triton import inside_outside as triton_inside_outside
    from diffdecode.structure.kernels.triton import matrix_tree as triton_matrix_tree

    projective = name in ("inside", "outside")
    module = triton_inside_outside if projective else triton_matrix_tree
    tile = {"FIRST": 0 if multi_root else 1, **triton_matrix_tree.TILE}
    tile = {**(triton_inside_outside.tile_shape(multi_root) if projective else tile), "ALONG": along}
    warps = tile.pop("num_warps")
    signature = {argument: kind.format("fp64") for argument, kind in SIGNATURES[name].items()}
    compiled = compile_for_sm_90(getattr(module, name), signature, tile, warps)
    assert compiled.asm["cubin"] and "bar.sync" in compiled.asm["ptx"]


@pytest.mark.skipif(not has_assembler(), reason="this Triton has no ptxas")
@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter does not compile")
@pytest.mark.parametrize("name, size, multi_root", [("split_spans", 41, False), ("grow_trees", 161, True)])
def test_samples_compile_for_sm_90(name, size, multi_root):
    from diffdecode.structure.kernels.triton import sampling as triton_sampling
    from diffdecode.structure.kernels.triton.vectors import vector_sizes

    kernel = getattr(triton_sampling, name)
    sizes = {**vector_sizes(size), "MULTI_ROOT": multi_root}
    warps = sizes.pop("num_warps")
    constants = {argument: value for argument, value in sizes.items() if argument in kernel.arg_names}
    signature = {argument: kind.format("fp64") for argument, kind in SIGNATURES[name].items()}
    assert compile_for_sm_90(kernel, signature, constants, warps).asm["cubin"]


@pytest.mark.skipif(not has_assembler(), reason="this Triton has no ptxas")
@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter does not compile")
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("trees", [False, True])
def test_projections_compile_for_sm_90(trees, dtype):
    from diffdecode.structure.kernels.triton import projections as triton_projections

    signature = {argument: kind.format(dtype) for argument, kind in SIGNATURES["project_rows"].items()}
    constants = {"COLUMNS": 64, "TREES": trees}
    assert compile_for_sm_90(triton_projections.project_rows, signature, constants, 1).asm["cubin"]


@pytest.mark.skipif(not has_assembler(), reason="this Triton has no ptxas")
@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter does not compile")
@pytest.mark.parametrize("size, multi_root, dtype", [(41, False, "fp32"), (161, True, "fp64")])
def test_edmonds_compiles_for_sm_90(size, multi_root, dtype):
    from diffdecode.structure.kernels.triton import edmonds as triton_edmonds
    from diffdecode.structure.kernels.triton.vectors import vector_sizes

    constants = {**vector_sizes(size), "MULTI_ROOT": multi_root}
    warps = constants.pop("num_warps")
    signature = {argument: kind.format(dtype) for argument, kind in SIGNATURES["best_arborescence"].items()}
    compiled = compile_for_sm_90(triton_edmonds.best_arborescence, signature, constants, warps)
    assert compiled.asm["cubin"] and "bar.sync" in compiled.asm["ptx"]


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
    gradients = []
    for device in ("cpu", "cuda"):
        leaf, on_device = scores.to(device).requires_grad_(), lengths.to(device)
        by_z = g.to(device)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with unchecked():
                nonprojective_tree(leaf, on_device)
                z = tree_argmax(leaf, on_device, surrogate="spigot")
            z.backward(by_z)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        gradients.append(leaf.grad.cpu())
    assert torch.allclose(*gradients, atol=1e-6)
