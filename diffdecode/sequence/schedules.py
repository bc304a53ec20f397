"""Annealing schedules as pure functions of training progress: a resumed run needs no saved state.

``progress`` counts epochs or updates from 1, whichever the caller counts in.
"""

import math

MIXING_SCHEDULES = ("always", "never", "linear", "inverse_sigmoid")


def annealed_alpha(progress: int, initial: float, growth: float = 1.0, maximum: float = math.inf) -> float:
    """Peakedness that grows exponentially: ``min(maximum, initial * growth ** (progress - 1))``.

    Scheduled sampling 2017, section 5 and soft beam search 2018, section 2.3 ("exponential with the epochs").

    Args:
        progress: 1 in the first epoch (or update).
        initial: value at ``progress = 1``, > 0.
        growth: factor per epoch (or update), > 0; 1 keeps alpha constant.
        maximum: upper bound.

    Raises:
        ValueError: a value that is not positive.
    """
    if not (initial > 0 and growth > 0 and maximum > 0):
        raise ValueError(f"alpha schedule must be positive: {initial=}, {growth=}, {maximum=}")
    log_alpha = math.log(initial) + (progress - 1) * math.log(growth)
    # Compare logarithms first: growth ** progress may be larger than any float (about e^709).
    if log_alpha >= min(math.log(maximum), 700.0):
        return maximum
    return min(maximum, initial * growth ** (progress - 1))


def gold_probability(schedule: str, progress: int, decay: float = 10.0) -> float:
    """Probability of feeding the gold word instead of the model's own (Bengio et al. 2015, section 2.4).

    ======================  =====================================================================
    ``always``              1: cross entropy
    ``never``               0: the model always sees its own words
    ``linear``              ``max(0, 1 - (progress - 1) / decay)``: zero after ``decay`` epochs
    ``inverse_sigmoid``     ``k / (k + exp(i / k))`` with k = ``decay``, i = ``progress``; 1 at progress 1
                            (scheduled sampling 2017, section 5: the first epoch uses gold sequences)
    ======================  =====================================================================

    Raises:
        ValueError: unknown schedule or a decay that is not positive.
    """
    if schedule not in MIXING_SCHEDULES:
        raise ValueError(f"unknown mixing schedule {schedule!r}; known: {', '.join(MIXING_SCHEDULES)}")
    if not decay > 0:
        raise ValueError(f"decay={decay} must be positive")
    if schedule == "always" or (schedule == "inverse_sigmoid" and progress <= 1):
        return 1.0
    if schedule == "never":
        return 0.0
    if schedule == "linear":
        return max(0.0, 1.0 - (progress - 1) / decay)
    # The same value as k / (k + exp(i/k)), written as a sigmoid so that exp cannot overflow.
    z = math.log(decay) - progress / decay
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))
