"""Fault: ``module 'numpy' has no attribute 'compat'`` (or ``'int'``, ``'float'``), NumPy >= 1.24 or 2.

Four modules of fairseq use names, and in one call a keyword, that NumPy has removed since:
``--sample-break-mode eos``, ``--num-batch-buckets``, span masking and the CRF layer stop there.
"""

import importlib
import inspect
from types import SimpleNamespace

import numpy as np

from fairseq_compat.overlay import Overlay


def percentile(values, q, interpolation):
    """``numpy.percentile`` with the keyword by its name before NumPy 1.22."""
    return np.percentile(values, q, method=interpolation)


USED = {
    "fairseq.data.token_block_dataset": {"compat": SimpleNamespace(long=int)},
    "fairseq.data.language_pair_dataset": {"compat": SimpleNamespace(long=int)},
    "fairseq.data.data_utils": {"int": int, "percentile": percentile},
    "fairseq.modules.dynamic_crf_layer": {"float": float},
}


def fix() -> bool:
    """Give those modules, and no other, a ``np`` that has what they use."""
    needed = False
    for name, used in USED.items():
        module = importlib.import_module(name)
        removed = {key: value for key, value in used.items() if not _numpy_has(key)}
        if removed:
            module.np = Overlay(np, **removed)
            needed = True
    return needed


def _numpy_has(name: str) -> bool:
    if name == "percentile":
        return "interpolation" in inspect.signature(np.percentile).parameters
    return hasattr(np, name)
