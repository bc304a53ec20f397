"""Temperature scaling (Guo et al., ICML 2017, section 4.2): one number that scores are divided by.

It makes all probabilities of a parser more or less extreme, and changes none of its decisions.
"""

import math
from typing import Any

TEMPERATURE = "temperature"


class Tempered:
    """Mixin of a component: its temperature, which is a fitted parameter and saved with it in ``cfg``."""

    cfg: dict[str, Any]

    @property
    def temperature(self) -> float:
        """What scores are divided by wherever they become probabilities; 1 for a parser as it was trained.

        ``python -m spacy calibrate-parser`` fits it. To set another number than one above 0 is a
        ``ValueError``.
        """
        return checked(self.cfg.get(TEMPERATURE, 1.0))

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.cfg[TEMPERATURE] = float(checked(value))


def checked(value: float) -> float:
    """The temperature.

    Args:
        value: it.

    Raises:
        ValueError: it is no finite number above 0.
    """
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"temperature must be a number above 0, got {value!r}")
    return value
