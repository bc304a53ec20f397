"""Fault: ``module 'numpy' has no attribute 'compat'`` (or ``'int'``, ``'float'``), NumPy >= 1.24 or 2.

Four modules of fairseq use names that NumPy has removed since: ``--sample-break-mode eos``,
``--num-batch-buckets``, span masking and the CRF layer stop there.
"""

import importlib
from types import SimpleNamespace

import numpy as np

from fairseq_compat.overlay import Overlay

REMOVED = {
    "fairseq.data.token_block_dataset": {"compat": SimpleNamespace(long=int)},
    "fairseq.data.language_pair_dataset": {"compat": SimpleNamespace(long=int)},
    "fairseq.data.data_utils": {"int": int},
    "fairseq.modules.dynamic_crf_layer": {"float": float},
}


def fix() -> bool:
    """Give those modules, and no other, a ``np`` that has the names they use."""
    needed = False
    for name, names in REMOVED.items():
        module = importlib.import_module(name)
        missing = {key: value for key, value in names.items() if not hasattr(np, key)}
        if missing and getattr(module, "np", None) is np:
            module.np = Overlay(np, **missing)
            needed = True
    return needed
