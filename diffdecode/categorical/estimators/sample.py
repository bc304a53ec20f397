"""``sample``: one call for every gradient estimator of a categorical choice, picked by name."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from diffdecode.categorical.estimators.base import ESTIMATORS
from diffdecode.categorical.estimators.draws import first_row
from diffdecode.checks import found


class Sample:
    """What ``sample`` returns: a pair (one_hot, probs).

    Attributes:
        one_hot: the decision, with its gradient (a dense row if the estimator is not ``hard``).
        probs: softmax(logits), with its ordinary gradient.  The Gumbel methods do not need it: for them it
            is computed when first asked for.
    """

    def __init__(self, one_hot: Tensor, probs: Callable[[], Tensor]):
        self.one_hot = one_hot
        self._probs = probs
        self._with_grad = torch.is_grad_enabled()

    @functools.cached_property
    def probs(self) -> Tensor:
        with torch.set_grad_enabled(self._with_grad):
            return self._probs()

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.one_hot, self.probs))


def sample(
    logits: Tensor,
    estimator: str = "reinmax",
    tau: float | None = None,
    *,
    mask: Tensor | None = None,
    dim: int = -1,
    generator: torch.Generator | None = None,
    index: Tensor | None = None,
    noise: Tensor | None = None,
    **options: Any,
) -> Sample:
    """Choose one category, with a gradient.

    Args:
        logits: ``[..., V]`` (categories along ``dim``), floating point, any strides; -inf = impossible.
            float16 and bfloat16 are computed in float32; results and gradients have the dtype of ``logits``.
        estimator: a name in ``ESTIMATORS``; its function's docstring has formula, source and temperature.
        tau: temperature > 0; default: the estimator's own (1, but gumbel_rao 0.5 and gapped_st 0.7).
        mask: boolean, broadcastable to ``logits``, True = possible.  The others get probability exactly 0
            forward and gradient exactly 0 backward.
        dim: dimension of the categories.
        generator: source of randomness, on the device of ``logits``; without effect where nothing is drawn.
        index: decision to use instead of a drawn one, int64, shape of ``logits`` without ``dim``
            (``[K, ...]`` if the estimator's ``index_has_k``).
        noise: Exp(1) variates to use instead of drawn ones (-log of them is Gumbel noise), shape of
            ``logits``; ``[K, *logits.shape]`` if its ``noise_has_k``.
        options: the estimator's own, such as ``samples`` = K of several draws, or a ``gap``.

    Returns:
        ``one_hot``, the decision, with the estimated gradient, and ``probs`` = softmax(logits), with its
        ordinary gradient; both like ``logits``.  With ``index_has_k`` ``one_hot`` has a leading dimension K.

    Raises:
        ValueError: unknown estimator, an option it does not have, bad shapes, tau <= 0; NaN or +inf in a row,
            or a row without any possible category (the message names the row).
        TypeError: logits not floating point, or mask not boolean.
    """
    chosen = ESTIMATORS[estimator]
    given = _options(estimator, tau=tau, generator=generator, index=index, noise=noise, **options)
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if not -logits.dim() <= dim < logits.dim() or logits.shape[dim] == 0:
        raise ValueError(f"logits need at least one category along dim {dim}, got shape {list(logits.shape)}")
    if tau is not None and not 0 < tau < math.inf:
        raise ValueError(f"tau must be positive and finite, got {tau}")

    from_end = dim if dim < 0 else dim - logits.dim()  # the same dimension if K comes in front
    scores = _moved(_masked(logits, mask), from_end, -1)
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    if noise is not None:
        given["noise"] = _checked_noise(_moved(noise, from_end, -1), scores, chosen.noise_has_k)
    if index is not None:
        _check_index(index, scores, chosen.index_has_k)
    one_hot, probs = chosen.function(scores, **given)

    def restore(result: Tensor) -> Tensor:
        return _moved(result, -1, from_end).to(logits.dtype)

    return Sample(restore(one_hot), lambda: restore(scores.softmax(-1) if probs is None else probs))


def _options(estimator: str, **given: Any) -> dict[str, Any]:
    """The given options, after checking that the estimator has them; ``None`` is its default."""
    known = ESTIMATORS[estimator].options
    options = {name: value for name, value in given.items() if value is not None}
    if "generator" not in known:
        options.pop("generator", None)
    unknown = [name for name in options if name not in known]
    if unknown:
        its_own = ", ".join(known) or "none"
        raise ValueError(f"estimator {estimator!r} has no option {', '.join(unknown)}; it has: {its_own}")
    return options


def _moved(tensor: Tensor, source: int, target: int) -> Tensor:
    """``movedim``, without a view (and a node of autograd) where nothing moves."""
    return tensor if source == target else tensor.movedim(source, target)


def _masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return logits
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean (True = possible), got {mask.dtype}")
    # The mask of a vocabulary is seen at once; the general question takes as long as a small step's softmax.
    if mask.shape != logits.shape[logits.dim() - mask.dim() :] and (
        torch.broadcast_shapes(mask.shape, logits.shape) != logits.shape
    ):
        raise ValueError(f"mask {list(mask.shape)} does not broadcast to logits {list(logits.shape)}")
    return logits.masked_fill(~mask, -torch.inf)


def _checked_noise(noise: Tensor, scores: Tensor, has_k: bool) -> Tensor:
    K = int(has_k)
    if noise.dim() != scores.dim() + K or noise.shape[K:] != scores.shape:
        wanted = ["K", *scores.shape] if K else list(scores.shape)
        raise ValueError(f"noise must have shape {wanted} (categories last), got {list(noise.shape)}")
    if found(lambda: ~(noise > 0).all()):
        raise ValueError("noise must be positive: Exp(1) variates, not Gumbel variates")
    return noise.to(scores.dtype)


def _check_index(index: Tensor, scores: Tensor, has_k: bool) -> None:
    rows, V = scores.shape[:-1], scores.shape[-1]
    if index.dtype != torch.int64:
        raise TypeError(f"index must be int64, got {index.dtype}")
    K = int(has_k)
    if index.dim() != len(rows) + K or index.shape[K:] != rows:
        wanted = ["K", *rows] if K else list(rows)
        raise ValueError(f"index must have shape {wanted}, got {list(index.shape)}")
    outside = (index < 0) | (index >= V)
    if outside.any():
        raise ValueError(f"index row {first_row(outside)} is not in [0, {V})")
    impossible = (
        scores.detach().expand(*index.shape, V).gather(-1, index.unsqueeze(-1)).squeeze(-1) == -torch.inf
    )
    if impossible.any():
        raise ValueError(f"index row {first_row(impossible)} picks an impossible category (-inf or masked)")
