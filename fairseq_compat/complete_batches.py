"""Fault: sentences are lost without a word; main branch since December 2022 and fairseq-fixed, not 0.12.2.

``data_utils.batch_by_size`` there drops the last batch of every split, the ones to validate and to translate
included, when its size is no multiple of ``--required-batch-size-multiple`` (8 by default): of 60 sentences
56 are translated.
"""

import functools
import inspect

import numpy as np
from fairseq.data import data_utils


def fix() -> bool:
    """Replace ``data_utils.batch_by_size`` if it is the faulty one."""
    if "b[:-1]" not in inspect.getsource(data_utils.batch_by_size):
        return False
    data_utils.batch_by_size = with_last_batch(data_utils.batch_by_size)
    return True


def with_last_batch(faulty):
    """The function without its fault.

    Batches are consecutive pieces of ``indices``: what is missing at their end is the batch that was dropped.
    """

    @functools.wraps(faulty)
    def batch_by_size(indices, *args, fixed_shapes=None, **kwargs):
        if fixed_shapes is not None:  # this path drops nothing, and does not keep the order
            return faulty(indices, *args, fixed_shapes=fixed_shapes, **kwargs)
        if not isinstance(indices, np.ndarray):
            indices = np.fromiter(indices, dtype=np.int64)
        batches = faulty(indices, *args, **kwargs)
        kept = sum(map(len, batches))
        return batches if kept == len(indices) else [*batches, indices[kept:]]

    return batch_by_size
