"""Status of one sentence's scores, in compiled code (the same answer as ``kernels.status_of_scores``)."""

import numpy as np

from diffdecode.structure.kernels.numba.compiled import part
from diffdecode.structure.kernels.status import LARGEST_SUMMABLE, NOT_A_SCORE, OK, TOO_LARGE

LARGEST = {np.dtype(str(dtype).removeprefix("torch.")): size for dtype, size in LARGEST_SUMMABLE.items()}


@part()
def status_of_scores(scores, b, n, largest):
    """``OK``, ``NOT_A_SCORE`` or ``TOO_LARGE`` of sentence ``b`` with ``n`` words."""
    suspicious = False
    for m in range(1, n + 1):
        for h in range(n + 1):
            score = scores[b, m, h]
            usual = (score <= largest) & ((score >= -largest) | (score == -np.inf))  # NaN compares false
            suspicious |= not usual
    return _slow_status(scores, b, n, largest) if suspicious else OK


@part()
def _slow_status(scores, b, n, largest):
    status = OK
    for m in range(1, n + 1):
        for h in range(n + 1):
            score = scores[b, m, h]
            if h != m and score != -np.inf and not abs(score) <= largest:
                if not abs(score) < np.inf:
                    return NOT_A_SCORE
                status = TOO_LARGE
    return status
