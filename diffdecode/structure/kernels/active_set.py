"""Exact Euclidean projection onto the convex hull of structures, of which only an argmax is known.

The active-set method of Wolfe ("Finding the nearest point in a polytope", 1976), which SparseMAP (Niculae,
Martins, Blondel and Cardie, ICML 2018) applies to structures: the only thing it asks of a polytope is its
argmax.
"""

from collections.abc import Callable

import numpy as np


def project_onto_hull(
    point: np.ndarray,
    argmax: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    tolerance: float = 1e-6,
    max_steps: int = 1000,
) -> tuple[np.ndarray, float, int]:
    """Projection of ``point [D]`` onto the convex hull of the vertices that ``argmax`` can return.

    Args:
        point: float64; -inf where every vertex is 0.
        argmax: scores ``[D]`` to the vertex ``[D]`` (of 0 and 1) with the highest inner product.
        start: a vertex to start from.
        tolerance: stop when the distance to the exact projection is at most this.

    Returns:
        the projection, the duality gap, and the number of steps.
    """
    vertices, weights = start[None], np.ones(1)
    for step in range(max_steps + 1):
        mean = weights @ vertices
        residual = np.where(point > -np.inf, point - mean, -np.inf)
        vertex = argmax(residual)
        chosen = vertex > 0
        gap = residual[chosen] @ vertex[chosen] - residual[mean > 0] @ mean[mean > 0]
        if gap <= tolerance**2 or step == max_steps or (vertices == vertex).all(1).any():
            return mean, float(gap), step
        vertices, weights = np.vstack([vertices, vertex]), np.append(weights, 0.0)
        vertices, weights = _nearest_in_hull(point, vertices, weights)
    raise AssertionError("the loop returns in its last step")


def _nearest_in_hull(
    point: np.ndarray, vertices: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solve over the affine hull; where that leaves the hull, stop at its edge, drop a vertex, try again."""
    while True:
        target = _nearest_in_affine_hull(np.where(point > -np.inf, point, 0.0), vertices)
        leaving = target < 0
        if not leaving.any():
            return vertices, target
        steps = weights[leaving] / (weights[leaving] - target[leaving])
        weights = weights + steps.min() * (target - weights)
        blocking = np.flatnonzero(leaving)[steps.argmin()]
        vertices, weights = np.delete(vertices, blocking, 0), np.delete(weights, blocking)


def _nearest_in_affine_hull(point: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Weights that sum to 1 and minimise ``|weights @ vertices - point|``: a linear system (KKT)."""
    size = len(vertices)
    system = np.ones((size + 1, size + 1))
    system[:size, :size], system[size, size] = vertices @ vertices.T, 0.0
    return np.linalg.lstsq(system, np.append(vertices @ point, 1.0), rcond=None)[0][:size]
