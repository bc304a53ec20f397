"""What a parser decided for a batch of documents, and how sure it is."""

from collections.abc import Iterable

import numpy as np


class Decided(list[np.ndarray]):
    """An array for each document; what is in it, ``predict`` of the parser says.

    Attributes:
        confidence: by the names in the setting ``confidence``, a value for each document.
    """

    confidence: dict[str, list]

    def __init__(self, decisions: Iterable[np.ndarray], confidence: dict[str, list]):
        super().__init__(decisions)
        self.confidence = confidence
