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
    "torchrun_init",
    "encoder_fast_path",
    "cpu_ddp",
    "gloo_threads",
    "named_subsets",
    "quiet_warnings",
    "complete_help",
    "near_options",
    "known_metric",
)

_applied: dict[str, bool] = {}


def switched_off() -> set[str]:
    """The names of the fixes that ``DIFFDECODE_NO_FAIRSEQ_COMPAT`` turns off."""
    value = os.environ.get("DIFFDECODE_NO_FAIRSEQ_COMPAT", "").replace(" ", "")
    return set(BEFORE_IMPORT + AFTER_IMPORT) if value == "1" else set(value.split(",")) - {"", "0"}


def enabled(fix: str) -> bool:
    """Whether the fix of this name is on."""
    return fix not in switched_off()


def apply() -> dict[str, bool]:
    """Repair the imported fairseq, once; return ``{name of fix: was it needed}``.

    Raises ValueError if ``DIFFDECODE_NO_FAIRSEQ_COMPAT`` names a fix that there is none of.
    """
    from importlib import import_module

    if unknown := switched_off() - set(BEFORE_IMPORT + AFTER_IMPORT):
        raise ValueError(
            f"DIFFDECODE_NO_FAIRSEQ_COMPAT names {sorted(unknown)}; it may be 1 or names out of"
            f" {', '.join(BEFORE_IMPORT + AFTER_IMPORT)}"
        )
    for name in AFTER_IMPORT:
        if name not in _applied and enabled(name):
            _applied[name] = import_module(f"{__name__}.{name}").fix()
    return dict(_applied)
