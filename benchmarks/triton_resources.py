"""What the Triton kernels take of a streaming multiprocessor, compiled ahead of time for sm_90.

    python -m benchmarks.triton_resources [name ...]

No device is needed. Registers a thread and spilled bytes are those of the assembled kernel, and so are its
instructions, of which those in double precision and the fetches from global memory are counted, too. "Warps
at once" are those for which these leave room, of 64.
"""

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from diffdecode.structure.kernels.status import LARGEST_SUMMABLE
from diffdecode.structure.kernels.triton import (
    edmonds,
    eisner,
    inside_outside,
    matrix_tree,
    matrix_tree_in_logs,
    projections,
    sampling,
    scores,
)
from diffdecode.structure.kernels.triton.spans import tile_shape
from diffdecode.structure.kernels.triton.vectors import sizes_for, vector_sizes

DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TYPES = {
    "size": "i32", "lengths": "*i64", "heads": "*i64", "enters": "*i32", "splits": "*i16", "lost": "*i8",
    "status": "*i8", "marks": "*i8", "weights": "*fp64", "work": "*fp64", "marginals": "*fp64",
    "product": "*fp64", "log_partitions": "*fp64", "seeds": "*i64", "shift": "i32", "batch": "i32",
}  # fmt: skip
"""Of arguments by their names; all others point to floating point numbers."""


@dataclass
class Case:
    """A kernel with its compile-time arguments (and ``num_warps``), and the type of its scores."""

    kernel: Any
    dtype: str
    constants: dict[str, Any]

    def compiled(self) -> Any:
        """Compiled and assembled for sm_90."""
        constants = dict(self.constants)
        warps = constants.pop("num_warps", 4)
        types = {name: TYPES.get(name, f"*{self.dtype}") for name in self.kernel.arg_names}
        signature = types | dict.fromkeys(constants, "constexpr")
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constants)
        return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})


def projective(kernel: Any, multi_root: bool, peaks: bool, derivatives: bool) -> Case:
    """A kernel of inside-outside."""
    constants = {"WITH_PEAKS": peaks, **tile_shape(multi_root)}
    if not derivatives:
        constants |= {name: None for name in ("vector", "product") if name in kernel.arg_names}
    return Case(kernel, "fp64", constants)


def all_trees(multi_root: bool, derivatives: bool, again: bool) -> Case:
    """Marginals of all trees, or their covariance product."""
    tile = matrix_tree_in_logs.TILE if again else matrix_tree.TILE
    unused = ("marginals", "log_partitions") if derivatives else ("vector", "product")
    constants = {"FIRST": 0 if multi_root else 1, "IN_LOGS": again, **tile, **dict.fromkeys(unused)}
    return Case(matrix_tree.tree_marginals, "fp32" if again else "fp64", constants)


def cases() -> dict[str, Case]:
    """Each kernel in the ways in which it is launched; what differs little is there once."""
    found = {}
    for multi_root, dtype in ((False, "fp32"), (True, "fp64")):
        roots = "several roots" if multi_root else "one root"
        tile = tile_shape(multi_root)
        look = {"LARGEST": LARGEST_SUMMABLE[DTYPES[dtype]], **scores.LOOK}
        for size in (41, 161):
            name = f"best_projective_trees, {roots}, {dtype}, {size - 1} words"
            best = look | eisner.tile_options(size, multi_root)
            found[name] = Case(eisner.best_projective_trees, dtype, best)
        sizes = look | vector_sizes(161 if multi_root else 41) | {"MULTI_ROOT": multi_root}
        found[f"best_arborescence, {roots}, {dtype}"] = Case(edmonds.best_arborescence, dtype, sizes)
        rows = {"COLUMNS": 64, "TREES": multi_root, "num_warps": 1}
        found[f"project_rows, {'trees' if multi_root else 'rows'}, {dtype}"] = Case(
            projections.project_rows, dtype, rows
        )
        found[f"look_at_scores, {dtype}"] = Case(scores.look_at_scores, dtype, look)
        found[f"mark_possible, {dtype}"] = Case(scores.mark_possible, dtype, {"COLUMNS": 64, "num_warps": 1})
        options = {**matrix_tree_in_logs.TILE, "FIRST": tile["FIRST"]}
        found[f"eliminate_words, {roots}"] = Case(matrix_tree_in_logs.eliminate_words, "fp64", options)
    for kernel, size, multi_root in ((sampling.split_spans, 41, False), (sampling.grow_trees, 161, True)):
        found[kernel.fn.__name__] = Case(kernel, "fp64", sizes_for(kernel, size) | {"MULTI_ROOT": multi_root})
    for multi_root, derivatives in ((False, False), (True, True)):
        name = "tree_marginals" + (", several roots, derivatives" if multi_root else "")
        for again in (False, True):
            found[name + (", in logs" if again else "")] = all_trees(multi_root, derivatives, again)
    for name in ("inside", "outside"):
        kernel = getattr(inside_outside, name)
        found[name] = projective(kernel, False, False, False)
        found[f"{name}, several roots, derivatives"] = projective(kernel, True, False, True)
        found[f"{name}, several roots, with peaks"] = projective(kernel, True, True, False)
        found[f"{name}, with peaks, derivatives"] = projective(kernel, False, True, True)
    return found


def warps_at_once(warps: int, registers: int, shared: int) -> int:
    """Warps for which a streaming multiprocessor of sm_90 has room, 64 at most."""
    per_warp = -(-registers // 8) * 8 * 32  # registers are given out 256 at a time
    programs = min(64 // warps, 65536 // (per_warp * warps), 32, 233472 // (shared + 1024))
    return programs * warps


def resources(compiled: Any) -> dict[str, int]:
    """What the assembled kernel takes."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([TOOLS / tool, option, file.name], capture_output=True, text=True, check=True)
            for tool, option in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c"))
        )
    used = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout)
    assert used, usage.stdout
    instructions = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+ )?([A-Z0-9]+)", code.stdout, re.MULTILINE)
    shared = compiled.metadata.shared
    return {
        "warps at once": warps_at_once(compiled.metadata.num_warps, int(used[1]), shared),
        "registers": int(used[1]),
        "bytes spilled": int(used[2]),
        "bytes shared": shared,
        "instructions": len(instructions),
        "of them fp64": sum(name in ("DADD", "DMUL", "DFMA", "DSETP") for name in instructions),
        "fetches": instructions.count("LDG"),
        "barriers": instructions.count("BAR"),
    }


def main(names: list[str]) -> None:
    """Print the table."""
    for count, (name, case) in enumerate(cases().items()):
        if not names or name in names:
            row = resources(case.compiled())
            if count == 0 or names:
                print("| kernel | warps | " + " | ".join(row) + " |\n|---" + "|---:" * (len(row) + 1) + "|")
            print(
                f"| {name} | {case.constants.get('num_warps', 4)} | "
                + " | ".join(map(str, row.values()))
                + " |"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
