"""Is a parser right as often as it says? A reliability table, and the temperature that makes it so.

The expected calibration error is that of Guo et al. (ICML 2017, section 2): decisions are put into bins of
equal width by their probability, and it is the mean distance between a bin's accuracy and its mean
probability, weighted by the decisions in it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

COLDEST, HOTTEST = 0.05, 20.0
"""Between which a temperature is looked for."""


@dataclass(frozen=True)
class Bin:
    """Decisions whose probability lies in ``(low, high]`` (the first bin has 0, too).

    Attributes:
        low: end of the bin.
        high: end of the bin.
        count: how many.
        confidence: their mean probability; None if there are none.
        accuracy: the share that is right; None if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """A reliability table.

    Attributes:
        bins: the table.
        count: how many decisions.
        accuracy: the share of them that is right.
        confidence: their mean probability: above the accuracy, the parser is too sure of itself.
        error: the expected calibration error.
        largest_error: the largest distance between accuracy and mean probability in a bin.
    """

    bins: tuple[Bin, ...]
    count: int
    accuracy: float
    confidence: float
    error: float
    largest_error: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def reliability(probabilities: Sequence[float], right: Sequence[bool], bins: int = 10) -> Calibration:
    """The reliability table of decisions.

    Args:
        probabilities: of the decisions, ``[n]``.
        right: whether each of them is right, ``[n]``.
        bins: how many, of equal width.

    Raises:
        ValueError: no decisions, fewer than one bin, or a number that is no probability.
    """
    p, is_right = np.asarray(probabilities, dtype=float), np.asarray(right, dtype=bool)
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, got {bins}")
    if not len(p) or len(p) != len(is_right):
        raise ValueError(
            f"expected a verdict on each of 1 or more decisions, got {len(is_right)} on {len(p)}"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("expected probabilities from 0 to 1")
    place = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    table = []
    for number in range(bins):
        here = place == number
        means = (float(p[here].mean()), float(is_right[here].mean())) if here.any() else (None, None)
        table.append(Bin(number / bins, (number + 1) / bins, int(here.sum()), *means))
    gaps = [(b.count, abs(b.confidence - b.accuracy)) for b in table if b.count]
    error = sum(count * gap for count, gap in gaps) / len(p)
    largest = max(gap for _, gap in gaps)
    return Calibration(tuple(table), len(p), float(is_right.mean()), float(p.mean()), error, largest)


def fit_temperature(negative_log_likelihood: Callable[[float], float]) -> float:
    """The temperature with the least negative log-likelihood.

    In its inverse that is convex where all of a structure is annotated: there is one minimum.

    Args:
        negative_log_likelihood: of annotated data, as a function of the temperature.

    Returns:
        it, to four decimals.

    Raises:
        ValueError: the least is at an end of the range: there is no best temperature, as where every decision
            is right.
    """
    from scipy.optimize import minimize_scalar  # slow to import

    ends = math.log(COLDEST), math.log(HOTTEST)
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(math.exp(log_t)),
        bounds=ends,
        method="bounded",
        options={"xatol": 1e-4},
    )
    if min(found.x - ends[0], ends[1] - found.x) < 1e-2:
        raise ValueError(
            f"no temperature from {COLDEST} to {HOTTEST:.0f} is best, the likelihood grows towards "
            f"{math.exp(found.x):.3g}: are these data the parser's training data, or are they too few?"
        )
    return round(math.exp(found.x), 4)
