"""Vectors in registers, with one element a word or node of a sentence."""

from typing import Any

import triton
import triton.language as tl


@triton.jit
def at(values, place, index):
    """``values[place]`` of a vector in registers; ``index`` counts it."""
    return tl.sum(tl.where(index == place, values, tl.zeros_like(values)), axis=0)


def vector_sizes(size: int) -> dict[str, int]:
    """Compile-time arguments: lengths of the vectors over words and nodes; warps."""
    words = max(32, triton.next_power_of_2(size))
    return {"WORDS": words, "NODES": 2 * words, "num_warps": 1 if words <= 128 else 4}


def sizes_for(kernel: Any, size: int) -> dict[str, int]:
    """Those of :func:`vector_sizes` that a kernel takes."""
    taken = (*kernel.arg_names, "num_warps")
    return {name: value for name, value in vector_sizes(size).items() if name in taken}
