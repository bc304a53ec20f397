"""The words of a batch of documents in one array."""

from collections.abc import Sequence

import numpy as np
from thinc.api import Model
from thinc.types import Floats2d, Ints1d


class FlatWords:
    """The words of all documents in one array, so that a layer costs a few kernels and not some per document.

    Documents without words count as ``[0, w]``, whatever their tok2vec makes of them.

    Args:
        model: the layer; its first layer made the vectors.
        vectors: ``[n, w]`` of each document.
    """

    def __init__(self, model: Model, vectors: Sequence[Floats2d]):
        self._ops = model.ops
        self.lengths = [rows.shape[0] for rows in vectors]
        self.flat: Floats2d = self._together(vectors, model.layers[0].maybe_get_dim("nO") or 0)
        """``[T, w]``"""

    def _together(self, rows: Sequence[Floats2d], width: int) -> Floats2d:
        filled = [part for part in rows if part.shape[0]]
        return self._ops.xp.concatenate(filled) if filled else self._ops.alloc2f(0, width)

    def positions(self, indices: Sequence[Ints1d]) -> Ints1d:
        """Positions within each document to positions in ``flat``, int32; negative ones become -1."""
        xp = self._ops.xp
        if not indices:
            return xp.zeros(0, dtype="i4")
        together = xp.concatenate(indices)
        starts = np.cumsum([0, *self.lengths[:-1]])
        start = self._ops.asarray(np.repeat(starts, [len(index) for index in indices]))
        found = xp.where(together >= 0, together + start, -1)
        return found.astype("i4")  # ops.scatter_add is slow with any other

    def columns(self, gradients: Sequence[Floats2d], widths: Sequence[int]) -> list[Floats2d]:
        """The gradient on the layer's output as new arrays ``[T, width]``, one for each of its parts."""
        together = self._together(gradients, sum(widths))
        stops = np.cumsum(widths).tolist()
        return [self._ops.xp.array(together[:, b - w : b], order="C") for w, b in zip(widths, stops)]

    def by_doc(self, flat, like: Sequence[Floats2d] | None = None) -> list:
        """One part per document; documents without words get the shape they have in ``like``."""
        parts, start = [], 0
        for i, length in enumerate(self.lengths):
            empty = like is not None and not length
            parts.append(self._ops.alloc2f(*like[i].shape) if empty else flat[start : start + length])
            start += length
        return parts
