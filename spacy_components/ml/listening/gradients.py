"""Gradients on the hard decisions that listeners deliver, in factors: never one number per pair of words."""

from typing import NamedTuple

from thinc.types import Floats1d, Floats2d


class ArcGradient(NamedTuple):
    """Gradient of the loss in the arcs of one document's tree, ``dL/dz [n, n]``, as a product.

    ``dL/dz[j, i] = dependents[j] . heads[i]``: the arc from ``i`` to ``j``, no artificial root. (A dense
    gradient ``d`` is ``ArcGradient(d, identity)``.)
    """

    dependents: Floats2d
    """``[n, w]``"""
    heads: Floats2d
    """``[n, w]``"""


class GraphGradient(NamedTuple):
    """Gradient of the loss in the arcs of one document's graph, in factors, never ``[n, n, L]``.

    ``dL/dz[j, i] = dependents[j] . heads[i] - mean[j]`` for the arc from ``i`` to ``j``, and for its label
    ``l``, on top of that, ``labels[j, l]``.
    """

    dependents: Floats2d
    """``[n, w]``"""
    heads: Floats2d
    """``[n, w]``"""
    labels: Floats2d
    """``[n, L]``"""
    mean: Floats1d
    """``[n]``"""
