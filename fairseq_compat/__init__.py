"""Fixes that let an unedited fairseq run on current Python, PyTorch and NumPy.

Two moments matter, so there are two entrances:

- :mod:`fairseq_compat.hook`, started by a ``.pth`` line when the interpreter starts, waits for
  ``import fairseq`` and holds what has to happen before or during that import;
- :func:`apply` does the rest afterwards. The hook calls it, and so does ``fairseq_plugins``, for those who
  only pass ``--user-dir``. Calling it again does nothing.

Each fix is a file of its own, named after what it repairs, and looks first whether the fault is there:
official fairseq 0.12.2, its later main branch and ``fairseq-fixed`` have different ones.
``python -m fairseq_compat`` prints which fixes are in force. The environment variable
``DIFFDECODE_NO_FAIRSEQ_COMPAT`` turns them off: ``1`` all of them, or names separated by commas.

Nothing heavy is imported here: this file runs at every start of the interpreter.
"""

import os

BEFORE_IMPORT = ("hashable_configs", "untouched_logging")
AFTER_IMPORT = (
    "checkpoint_globals",
    "resume_broadcast",
    "numpy_names",
    "complete_batches",
    "encoder_fast_path",
    "cpu_ddp",
)

_applied: dict[str, bool] = {}


def enabled(fix: str) -> bool:
    """Whether ``DIFFDECODE_NO_FAIRSEQ_COMPAT`` leaves the fix of this name on."""
    off = os.environ.get("DIFFDECODE_NO_FAIRSEQ_COMPAT", "").replace(" ", "")
    return off in ("", "0") or (off != "1" and fix not in off.split(","))


def apply() -> dict[str, bool]:
    """Repair the imported fairseq, once; return ``{name of fix: was it needed}``."""
    from importlib import import_module

    for name in AFTER_IMPORT:
        if name not in _applied and enabled(name):
            _applied[name] = import_module(f"{__name__}.{name}").fix()
    return dict(_applied)
