"""A stack of items (left end, right end, kind), rows of an integer array."""

import numpy as np

from diffdecode.structure.kernels.numba.compiled import part

RIGHT, LEFT, ARC_RIGHT, ARC_LEFT, ARC = np.arange(5)  # not literals, as ZERO and ONE


@part()
def push(agenda, top, i, j, kind):
    """Put an item on the stack of ``top`` items; how many there are now."""
    agenda[top, 0] = i
    agenda[top, 1] = j
    agenda[top, 2] = kind
    return top + 1
