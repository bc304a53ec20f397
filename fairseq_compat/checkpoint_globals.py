"""Fault: ``Unsupported global: GLOBAL argparse.Namespace`` on loading a checkpoint, torch >= 2.6.

``torch.load`` now reads with ``weights_only=True``, which refuses every class it does not know. Checkpoints
of fairseq hold the parsed arguments, and with ``--eval-bleu`` NumPy counts. Those classes are made known, and
no other: a file that names anything else is still refused.
"""

import argparse

import numpy as np
import torch

_core = getattr(np, "_core", None) or np.core  # renamed in NumPy 2
rebuild_array, rebuild_scalar = _core.multiarray._reconstruct, _core.multiarray.scalar


def fix() -> bool:
    """Register the harmless classes found in fairseq's checkpoints with ``torch.serialization``."""
    if not hasattr(torch.serialization, "add_safe_globals"):
        return False
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    under_numpy_1 = [
        (rebuild_array, "numpy.core.multiarray._reconstruct"),
        (rebuild_scalar, "numpy.core.multiarray.scalar"),
    ]
    torch.serialization.add_safe_globals(
        [argparse.Namespace, np.ndarray, np.dtype, *dtypes, rebuild_array, rebuild_scalar, *under_numpy_1]
    )
    return True
