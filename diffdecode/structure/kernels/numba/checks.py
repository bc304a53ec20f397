"""Whether the scores of one sentence are usual ones, in compiled code (see ``kernels.status_of_scores``)."""

import numpy as np

from diffdecode.structure.kernels.numba.compiled import part
from diffdecode.structure.kernels.status import OK, UNUSUAL


@part()
def status_of_scores(scores, b, n, largest):
    """``OK``, or ``UNUSUAL`` where sentence ``b`` with ``n`` words has a score that is none or too large."""
    unusual = False
    for m in range(1, n + 1):
        for h in range(n + 1):
            score = scores[b, m, h]
            usual = (score <= largest) & ((score >= -largest) | (score == -np.inf))  # NaN compares false
            unusual |= (not usual) & (h != m)
    return UNUSUAL if unusual else OK
