"""Fault: ``import fairseq`` sets up logging for the whole process.

Two tasks of 0.12.2 call ``logging.basicConfig(level=INFO)`` when they are imported; a task of the main branch
and of fairseq-fixed does so with DEBUG, and numba and spaCy then flood standard error. It also makes void the
set-up that ``fairseq-generate`` and ``fairseq-interactive`` do later for their own output. Every command of
fairseq sets up its logging itself, so nothing is lost by undoing what the import did.
"""

import logging
from contextlib import contextmanager


@contextmanager
def during_import():
    """Give the root logger back the level and the handlers that it had."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
