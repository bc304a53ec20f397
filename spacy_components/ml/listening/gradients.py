"""Gradients on the hard decisions that listeners deliver, in factors: never one number per pair of words."""

from typing import NamedTuple

from thinc.types import Floats1d, Floats2d


class ArcGradient(NamedTuple):
    """Gradient of the loss in the arcs of one document's tree, ``dL/dz [n, n]``, as products.

    ``dL/dz[j, i] = dependents[j] . heads[i]``: the arc from ``i`` to ``j``, no artificial root. (A dense
    gradient ``d`` is ``ArcGradient(d, identity)``.) If there are ``children``, ``children[j] . left[i]`` is
    added where the dependent stands to the left of its head, ``j < i``, and ``children[j] . right[i]`` where
    ``j > i``.
    """

    dependents: Floats2d
    """``[n, w]``"""
    heads: Floats2d
    """``[n, w]``"""
    children: Floats2d | None = None
    """``[n, v]``"""
    left: Floats2d | None = None
    """``[n, v]``"""
    right: Floats2d | None = None
    """``[n, v]``"""


class GraphGradient(NamedTuple):
    """Gradient of the loss in the arcs of one document's graph, in factors, never ``[n, n, L]``.

    ``dL/dz[j, i] = dependents[j] . heads[i] - mean[j]`` for the arc from ``i`` to ``j``, and for its label
    ``l``, on top of that, ``labels[j, l] + head_labels[i, l]``.
    """

    dependents: Floats2d
    """``[n, w]``"""
    heads: Floats2d
    """``[n, w]``"""
    labels: Floats2d
    """``[n, L]``"""
    mean: Floats1d
    """``[n]``"""
    head_labels: Floats2d | None = None
    """``[n, L]``; None is 0."""
