"""Vectors in registers, with one element a word or node of a sentence."""

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
