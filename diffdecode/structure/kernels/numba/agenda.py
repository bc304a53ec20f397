"""A stack of items (left end, right end, kind), rows of an integer array.

Item by item: numba takes seconds to compile the assignment of a tuple to a row.
"""

from diffdecode.structure.kernels.numba.compiled import inlined


@inlined()
def push(agenda, top, i, j, kind):
    """Put an item on the stack of ``top`` items; how many there are now."""
    agenda[top, 0] = i
    agenda[top, 1] = j
    agenda[top, 2] = kind
    return top + 1
