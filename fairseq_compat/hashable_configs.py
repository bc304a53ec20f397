"""Fault: ``ValueError: mutable default <class 'fairseq...CommonConfig'>`` on import, Python >= 3.11.

fairseq 0.12.2 writes ``common: CommonConfig = CommonConfig()`` in its dataclasses. Since Python 3.11 a
default must be hashable, and a dataclass that compares by value is not. Letting the dataclasses that fairseq
defines during its import hash by identity gives back what Python 3.10 did.
"""

import dataclasses
import sys
from contextlib import contextmanager


@contextmanager
def during_import():
    """While open, ``dataclasses.dataclass`` makes classes defined in fairseq hash by identity."""
    if sys.version_info < (3, 11):
        yield
        return
    standard = dataclasses.dataclass

    def dataclass(cls=None, /, **options):
        def decorate(cls):
            made = standard(cls, **options)
            if made.__module__.partition(".")[0] == "fairseq" and made.__hash__ is None:
                made.__hash__ = object.__hash__
            return made

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = dataclass
    try:
        yield
    finally:
        dataclasses.dataclass = standard
