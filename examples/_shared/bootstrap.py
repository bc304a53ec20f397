"""A paired bootstrap over sentences (Koehn 2004; Efron and Tibshirani 1993)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

DRAWS, LEVEL = 1000, 0.95


def paired_interval(
    mine: np.ndarray, theirs: np.ndarray, score: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[float, float]:
    """The interval of 95 % of the difference in score, over draws of the same sentences for both.

    It says how far the difference depends on the sentences; seeds are averaged over, not drawn.

    Args:
        mine: counts of each sentence, ``[S, N, P]`` for S seeds, N sentences and P counts.
        theirs: those of the other system.
        score: from sums of counts ``[..., P]`` to scores ``[...]``.
        seed: of the draws.

    Returns:
        Its lower and upper end.

    Raises:
        ValueError: the two have different sentences.
    """
    if mine.shape != theirs.shape:
        raise ValueError(f"counts of the same sentences are compared, not {mine.shape} and {theirs.shape}")
    N = mine.shape[1]
    # How often each sentence is drawn, [draws, N].
    weights = np.random.default_rng(seed).multinomial(N, np.full(N, 1 / N), DRAWS).astype(float)
    gains = score(weights @ mine) - score(weights @ theirs)  # [S, draws]
    low, high = np.quantile(gains.mean(0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
