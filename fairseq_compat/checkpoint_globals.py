"""Fault: ``Unsupported global: GLOBAL argparse.Namespace`` on loading a checkpoint, torch >= 2.6.

``torch.load`` now reads with ``weights_only=True``, which refuses every class it does not know. Checkpoints
of fairseq hold the parsed arguments, and with ``--eval-bleu`` NumPy counts. Those classes are made known, and
no other: a file that names anything else is still refused.
"""

import argparse

import numpy as np
import torch

_multiarray = getattr(np, "_core", None) or np.core  # private name since NumPy 2.0
_multiarray = _multiarray.multiarray


def fix() -> bool:
    """Register the harmless classes found in fairseq's checkpoints with ``torch.serialization``."""
    if not hasattr(torch.serialization, "add_safe_globals"):
        return False
    rebuild, scalar = _multiarray._reconstruct, _multiarray.scalar
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    torch.serialization.add_safe_globals([argparse.Namespace, np.ndarray, np.dtype, rebuild, scalar, *dtypes])
    # The same two functions under the name that NumPy 1 wrote, whatever NumPy reads.
    prefix = "numpy.core.multiarray."
    torch.serialization.add_safe_globals([(rebuild, prefix + "_reconstruct"), (scalar, prefix + "scalar")])
    return True
