"""The import hook: what has to happen before and during ``import fairseq``.

It is the first of ``sys.meta_path`` and answers for the one name ``fairseq``: it asks the other finders where
fairseq is and lets their loader work inside the fixes of ``BEFORE_IMPORT``, then calls ``apply``.
"""

import sys

from fairseq_compat import BEFORE_IMPORT, apply, enabled


class FairseqFinder:
    """Meta path finder (PEP 451) for fairseq alone; every other import costs one comparison of strings."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """The spec of the finders behind this one, with a loader that repairs; None for any other name."""
        if name != "fairseq":
            return None
        for finder in sys.meta_path:
            spec = None if finder is cls else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    _repair_while_loading(spec.loader)
                return spec
        return None


def _repair_while_loading(loader):
    load = loader.exec_module

    def exec_module(module):
        from contextlib import ExitStack
        from importlib import import_module

        with ExitStack() as fixes:
            for name in filter(enabled, BEFORE_IMPORT):
                fixes.enter_context(import_module(f"fairseq_compat.{name}").during_import())
            load(module)
        apply()

    loader.exec_module = exec_module


def install():
    """Put the finder in front, once. Does nothing if ``DIFFDECODE_NO_FAIRSEQ_COMPAT=1``."""
    if FairseqFinder not in sys.meta_path and any(map(enabled, BEFORE_IMPORT)):
        sys.meta_path.insert(0, FairseqFinder)
