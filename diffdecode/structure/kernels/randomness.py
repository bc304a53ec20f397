"""Random numbers that a seed gives to places: the same on every device, in whatever order they are drawn.

A place is a triple of small integers: what is drawn, and for which span, arc or word. Its number is that of
a SplitMix64 stream (Steele, Lea and Flood 2014), which can be entered anywhere. Kernels compute the same.
"""

from typing import TypeVar

from torch import Tensor

TREE, ROOT_SPAN, RIGHT_SPAN, LEFT_SPAN, ARC_SPAN, LABEL = range(6)
"""What is drawn."""

STEP, FIRST_FACTOR, SECOND_FACTOR = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


Number = TypeVar("Number", int, Tensor)


def number(kind: int, i: int, j: Number) -> Number:
    """The number of a place in its seed's stream; ``i`` and ``j`` are below ``2^20``."""
    return j + ((kind << 40) + (i << 20) + 1)


def uniform(seed: int, place: int) -> float:
    """A number in [0, 1) for the place of that :func:`number`."""
    mixed = (seed + place * STEP) % 2**64
    mixed = ((mixed ^ (mixed >> 30)) * FIRST_FACTOR) % 2**64
    mixed = ((mixed ^ (mixed >> 27)) * SECOND_FACTOR) % 2**64
    return ((mixed ^ (mixed >> 31)) >> 11) * 2.0**-53


def uniforms(seeds: Tensor, places: Tensor) -> Tensor:
    """:func:`uniform` of int64 ``seeds`` and ``places``, which are broadcast; float64 of their device."""
    mixed = seeds + places * _signed(STEP)
    mixed = (mixed ^ _shifted(mixed, 30)) * _signed(FIRST_FACTOR)
    mixed = (mixed ^ _shifted(mixed, 27)) * _signed(SECOND_FACTOR)
    return _shifted(mixed ^ _shifted(mixed, 31), 11).double() * 2.0**-53


def _signed(factor: int) -> int:
    return factor - 2**64


def _shifted(values: Tensor, places: int) -> Tensor:
    """Shifted to the right as if unsigned."""
    return (values >> places) & (2 ** (64 - places) - 1)
