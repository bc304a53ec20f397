"""The functions of :mod:`diffdecode.structure.kernels.reference`, compiled by numba, on tensors.

Tensors of another device take a round trip through the CPU.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from diffdecode.structure.kernels import reference
from diffdecode.structure.kernels.base import Backend, TreeAlgorithms
from diffdecode.structure.kernels.numba.lanes import DUAL_LANES, FLOAT32_LANES, FLOAT64_LANES
from diffdecode.structure.kernels.numba.native import Kernel
from diffdecode.structure.kernels.status import LARGEST_SUMMABLE, LOST_DIGITS, UNUSUAL, status_of_scores
from diffdecode.structure.kernels.threads import run_over_batch

LARGEST = {np.dtype(str(dtype).removeprefix("torch.")): size for dtype, size in LARGEST_SUMMABLE.items()}

# Neighbours have parts in common, which one process compiles once.
PROJECT_ROWS = {
    torch.float32: Kernel("projections.project_rows", "float32"),
    torch.float64: Kernel("projections.project_rows", "float64"),
}
EISNER = {
    torch.float32: Kernel("eisner.eisner", "float32"),
    torch.float64: Kernel("eisner.eisner", "float64"),
}
EISNER_LANES = Kernel("eisner_lanes.eisner_lanes")
ARBORESCENCE = Kernel("edmonds.arborescence")
PROJECT_TREES = Kernel("active_set.project_trees")
MATRIX_TREE = Kernel("matrix_tree.matrix_tree")
MATRIX_TREE_LANES = Kernel("matrix_tree_lanes.matrix_tree_lanes")
MATRIX_TREE_COVARIANCE = Kernel("matrix_tree.covariance_product")
MATRIX_TREE_IN_LOGS = Kernel("matrix_tree.matrix_tree_in_logs")
SAMPLE_ARBORESCENCE = Kernel("sampling.sample_arborescence")
SAMPLE_PROJECTIVE = Kernel("sampling.sample_projective")
INSIDE_OUTSIDE = Kernel("inside_outside.inside_outside")
INSIDE_OUTSIDE_LANES = Kernel("inside_outside_lanes.inside_outside_lanes")
INSIDE_OUTSIDE_COVARIANCE = Kernel("inside_outside.covariance_product")
COVARIANCE_LANES = Kernel("covariance_lanes.covariance_product_lanes")
INSIDE_OUTSIDE_IN_LOGS = Kernel("inside_outside.inside_outside_in_logs")


def eisner(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Best projective trees; see :func:`diffdecode.structure.kernels.reference.eisner`.

    Float32 sentences of like lengths go together, 16 at a time; the rest one by one. Both give the same
    trees.
    """
    scores_, lengths_, largest, heads, status = _decision_arrays(scores, lengths)
    longest = LONGEST_IN_FLOAT32_LANES if scores_.dtype == np.float32 else 0
    _run_in_lanes(
        EISNER_LANES,
        EISNER[scores.dtype],
        FLOAT32_LANES,
        longest,
        lambda n: 2e-6 + 2e-8 * n**2 + 6e-10 * n**3,
        lambda n: 3e-7 + 4e-9 * n**2 + 6e-11 * n**3,
        (scores_, lengths_, multi_root, largest, heads, status),
    )
    return _tensor(heads, scores.device), _explained(status, scores, lengths)


LONGEST_IN_FLOAT32_LANES, LONGEST_IN_FLOAT64_LANES = 100, 80
"""Words; the charts of a group of longer sentences leave the second-level cache far behind."""


def _run_in_lanes(together, alone, lanes, longest, group_seconds, sentence_seconds, arguments) -> None:
    """Run the kernel ``together`` on groups of sentences of like lengths, ``alone`` on what is left over."""
    scores, lengths, *others = arguments
    order = np.argsort(-lengths, kind="stable")
    start = int((lengths > longest).sum())
    stop = start + (len(lengths) - start) // lanes * lanes
    rest = lengths[order[stop:]]
    if start < len(lengths) and len(rest) and group_seconds(rest[0]) < sentence_seconds(rest).sum():
        stop = len(lengths)
    parts = (together, order[start:stop], lanes), (alone, np.concatenate([order[:start], order[stop:]]), 1)
    for kernel, sentences, step in parts:
        if len(sentences):
            seconds = (group_seconds if step > 1 else sentence_seconds)(lengths[sentences[::step]])
            run_over_batch(kernel, seconds, scores, lengths, sentences, *others)


def arborescence(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Best trees; see :func:`diffdecode.structure.kernels.reference.arborescence`."""
    scores_, lengths_, largest, heads, status = _decision_arrays(scores, lengths)
    seconds = 2e-7 + 1.4e-9 * lengths_**2
    kernel = ARBORESCENCE
    both = (scores_, NONE[1]) if scores_.dtype == np.float32 else (NONE[0], scores_)
    run_over_batch(kernel, seconds, *both, lengths_, multi_root, float(largest), heads, status)
    return _tensor(heads, scores.device), _explained(status, scores, lengths)


NONE = np.empty((0, 0, 0), np.float32), np.empty((0, 0, 0))


def _explained(status: np.ndarray, scores: Tensor, lengths: Tensor) -> Tensor:
    """The status ``[B]`` of every sentence, with what is unusual about unusual scores."""
    if UNUSUAL in status.tobytes():
        unusual = torch.from_numpy(status == UNUSUAL).to(scores.device)
        status[status == UNUSUAL] = _array(status_of_scores(scores[unusual], lengths[unusual]))
    return _tensor(status, scores.device)


def inside_outside(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Projective marginals; see :func:`diffdecode.structure.kernels.reference.inside_outside`.

    Sentences of like lengths go together, 8 at a time; the rest one by one.
    """
    scores_, lengths_, largest, *results = _marginal_arrays(scores, lengths)
    _run_in_lanes(
        INSIDE_OUTSIDE_LANES,
        INSIDE_OUTSIDE,
        FLOAT64_LANES,
        LONGEST_IN_FLOAT64_LANES,
        lambda n: 2e-6 + 3e-8 * n**2 + 8e-10 * n**3,
        _inside_outside_seconds,
        (scores_, lengths_, multi_root, largest, *results),
    )
    _projective_again(scores_, lengths_, multi_root, *results)
    return _marginal_tensors(scores, lengths, *results)


def _projective_again(scores, lengths, multi_root, marginals, log_partition, status) -> None:
    seconds = 40 * _inside_outside_seconds(lengths)
    kernel, options = INSIDE_OUTSIDE_IN_LOGS, (multi_root,)
    _again(kernel, seconds, scores, lengths, options, None, marginals, log_partition, None, status)


def _all_trees_again(scores, lengths, multi_root, marginals, log_partition, status) -> None:
    seconds = 400 * _matrix_tree_seconds(lengths)
    kernel, options = MATRIX_TREE_IN_LOGS, (multi_root,)
    _again(kernel, seconds, scores, lengths, options, None, marginals, log_partition, None, status)


def _again(
    kernel, seconds, scores, lengths, options, vector, marginals, log_partition, product, status
) -> None:
    """Run the slower ``kernel`` where a faster one lost digits; what is None is not wanted."""
    if LOST_DIGITS in status.tobytes():
        lost, unused = np.flatnonzero(status == LOST_DIGITS), np.zeros_like(scores)
        vector, marginals, product = (unused if x is None else x for x in (vector, marginals, product))
        log_partition = np.empty(len(scores)) if log_partition is None else log_partition
        results = marginals, log_partition, product, status
        run_over_batch(kernel, seconds[lost], scores, lengths, lost, *options, vector, *results)


def inside_outside_covariance_product(scores, lengths, multi_root: bool, vector: Tensor) -> Tensor:
    """See :func:`diffdecode.structure.kernels.reference.inside_outside_covariance_product`."""
    scores_, lengths_, vector_ = _array(scores.double()), _array(lengths), _array(vector.double())
    product, status = np.empty_like(scores_), np.empty(len(scores_), np.int8)
    _run_in_lanes(
        COVARIANCE_LANES,
        INSIDE_OUTSIDE_COVARIANCE,
        DUAL_LANES,
        LONGEST_IN_FLOAT64_LANES,
        lambda n: 4e-6 + 6e-8 * n**2 + 1.6e-9 * n**3,
        lambda n: 4 * _inside_outside_seconds(n),
        (scores_, lengths_, multi_root, vector_, product, status),
    )
    seconds = 40 * _inside_outside_seconds(lengths_)
    kernel, options = INSIDE_OUTSIDE_IN_LOGS, (multi_root,)
    _again(kernel, seconds, scores_, lengths_, options, vector_, None, None, product, status)
    return _tensor(product, scores.device)


def matrix_tree(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Marginals of all trees; see :func:`diffdecode.structure.kernels.reference.matrix_tree`."""
    scores_, lengths_, largest, *results = _marginal_arrays(scores, lengths)
    _run_in_lanes(
        MATRIX_TREE_LANES,
        MATRIX_TREE,
        FLOAT64_LANES,
        LONGEST_IN_FLOAT64_LANES,
        lambda n: 2e-6 + 6e-8 * n**2 + 1e-9 * n**3,
        _matrix_tree_seconds,
        (scores_, lengths_, multi_root, largest, *results),
    )
    _all_trees_again(scores_, lengths_, multi_root, *results)
    return _marginal_tensors(scores, lengths, *results)


def matrix_tree_covariance_product(scores, lengths, multi_root: bool, vector: Tensor) -> Tensor:
    """See :func:`diffdecode.structure.kernels.reference.matrix_tree_covariance_product`."""
    scores_, lengths_, vector_ = _array(scores.double()), _array(lengths), _array(vector.double())
    product, status = np.empty_like(scores_), np.empty(len(scores_), np.int8)
    arguments = scores_, lengths_, multi_root, vector_, product, status
    run_over_batch(MATRIX_TREE_COVARIANCE, 4 * _matrix_tree_seconds(lengths_), *arguments)
    seconds = 400 * _matrix_tree_seconds(lengths_)
    kernel, options = MATRIX_TREE_IN_LOGS, (multi_root,)
    _again(kernel, seconds, scores_, lengths_, options, vector_, None, None, product, status)
    return _tensor(product, scores.device)


def _marginal_tensors(scores, lengths, marginals, log_partition, status) -> tuple[Tensor, Tensor, Tensor]:
    marginals, log_partition = (_tensor(array, scores.device) for array in (marginals, log_partition))
    return marginals, log_partition, _explained(status, scores, lengths)


def _inside_outside_seconds(n):
    return 1e-6 + 1e-8 * n**2 + 3e-10 * n**3


def sample_projective(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`diffdecode.structure.kernels.reference.sample_projective`."""
    _, status = eisner(scores, lengths, multi_root)
    scores_, lengths_, seeds_, heads = _sampling_arrays(scores, lengths, seeds)
    if not status.any():
        seconds = 1e-6 + 4e-8 * lengths_**2 + 1e-10 * lengths_**3 + 1e-8 * lengths_**2 * len(seeds)
        kernel = SAMPLE_PROJECTIVE
        run_over_batch(kernel, seconds, scores_, lengths_, multi_root, seeds_, heads)
    return _tensor(heads, scores.device), status


def sample_arborescence(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`diffdecode.structure.kernels.reference.sample_arborescence`."""
    _, status = arborescence(scores, lengths, multi_root)
    scores_, lengths_, seeds_, heads = _sampling_arrays(scores, lengths, seeds)
    if not status.any():
        seconds = _matrix_tree_seconds(lengths_) + 1e-8 * lengths_**2 * len(seeds)
        kernel = SAMPLE_ARBORESCENCE
        run_over_batch(kernel, seconds, scores_, lengths_, multi_root, seeds_, heads)
    return _tensor(heads, scores.device), status


def _matrix_tree_seconds(n):
    return 1e-6 + 1e-8 * n**2 + 2e-10 * n**3


def _decision_arrays(scores: Tensor, lengths: Tensor):
    scores_, lengths_ = _array(scores), _array(lengths)
    heads = np.empty((len(scores_), scores_.shape[1] - 1), np.int64)
    status = np.empty(len(scores_), np.int8)
    return scores_, lengths_, scores_.dtype.type(LARGEST[scores_.dtype]), heads, status


def _marginal_arrays(scores: Tensor, lengths: Tensor):
    """In float64: sums of exponentials are computed in it anyway, and kernels are compiled only once."""
    scores_, lengths_ = _array(scores.double()), _array(lengths)
    marginals, log_partition = np.empty_like(scores_), np.empty(len(scores_))
    status = np.empty(len(scores_), np.int8)
    return scores_, lengths_, scores_.dtype.type(LARGEST[scores_.dtype]), marginals, log_partition, status


def _sampling_arrays(scores: Tensor, lengths: Tensor, seeds: Tensor):
    heads = np.empty((*seeds.shape, scores.shape[1] - 1), np.int64)
    return _array(scores.double()), _array(lengths), _array(seeds).view(np.uint64), heads


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().numpy()


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)


def _project(
    projective: bool,
    points: Tensor,
    lengths: Tensor,
    multi_root: bool,
    start: Tensor,
    gap: float,
    max_steps: int,
) -> tuple[Tensor, ...]:
    """See :func:`diffdecode.structure.kernels.reference.project_projective`."""
    points_, lengths_, start_ = _array(points), _array(lengths), _array(start)
    results = np.zeros_like(points_), np.zeros(len(points)), np.zeros(len(points), np.int64)
    status = np.zeros(len(points), np.int8)
    inputs = points_, lengths_, projective, multi_root, LARGEST[points_.dtype], start_, gap, max_steps
    run_over_batch(PROJECT_TREES, 2e-7 * lengths_**3.0, *inputs, *results, status)
    return tuple(torch.from_numpy(result) for result in (*results, status))


def simplex(rows: Tensor) -> Tensor:
    """See :func:`diffdecode.structure.kernels.reference.simplex`, which does it on other devices."""
    if rows.device.type != "cpu":
        return reference.simplex(rows)
    return _project_rows(rows, EVERY_ROW)


def p_dep(point: Tensor, lengths: Tensor) -> Tensor:
    """See :func:`diffdecode.structure.kernels.reference.p_dep`, which does it on other devices."""
    if point.device.type != "cpu":
        return reference.p_dep(point, lengths)
    return _project_rows(point.flatten(0, 1), _array(lengths)).view(point.shape)


EVERY_ROW = np.empty(0, np.int64)


def _project_rows(rows: Tensor, lengths: np.ndarray) -> Tensor:
    rows_ = _array(rows)
    scratch, out = np.empty((2, rows_.shape[1]), rows_.dtype), np.empty_like(rows_)
    PROJECT_ROWS[rows.dtype](rows_, lengths, scratch, out)
    return torch.from_numpy(out)


BACKEND = Backend(
    name="numba",
    projective=TreeAlgorithms(
        best=eisner,
        marginals=inside_outside,
        log_partition=reference.inside_log_partition,
        covariance_product=inside_outside_covariance_product,
        sample=sample_projective,
        project=partial(_project, True),
    ),
    nonprojective=TreeAlgorithms(
        best=arborescence,
        marginals=matrix_tree,
        log_partition=reference.matrix_tree_log_partition,
        covariance_product=matrix_tree_covariance_product,
        sample=sample_arborescence,
        project=partial(_project, False),
    ),
    simplex=simplex,
    p_dep=p_dep,
    possible=reference.possible,
)
