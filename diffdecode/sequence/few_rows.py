"""Products of one large weight matrix with few rows at a time: many of them, in a search.

A general matrix product rearranges the matrix in each call, which few rows do not pay for: with 16 rows on a
CPU it takes three times as long a row as with 300. oneDNN can be given the matrix rearranged.
"""

import torch
from torch import Tensor

# With more rows than this a general product is as fast.
FEW = 128


class FewRows:
    """``hidden [R, H] -> hidden @ weight.T + bias``, ``[R, V]``, for calls with few rows each.

    Args:
        weight: ``[V, H]``, without gradient.
        bias: ``[V]`` or ``None``.
        wait: how many calls are general products before the matrix is rearranged, which takes about as long
            as the next few would lose. 0 for a matrix so large that there will be enough calls.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, wait: int = 0):
        self.weight, self.bias = weight, bias
        self._calls_left = wait
        self._arranged: Tensor | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        if not self._pays(hidden) or self._waits():
            return torch.nn.functional.linear(hidden, self.weight, self.bias)
        if self._arranged is None:
            self._arranged = torch.ops.mkldnn._reorder_linear_weight(self.weight, len(hidden))
        return torch.ops.mkldnn._linear_pointwise(hidden, self._arranged, self.bias, "none", [], "")

    def forget(self) -> None:
        """Give back the memory of the rearranged matrix, as large as the weight; it comes again if needed."""
        self._arranged = None

    def _waits(self) -> bool:
        self._calls_left -= 1
        return self._calls_left >= 0

    def _pays(self, hidden: Tensor) -> bool:
        return (
            has_arranged_products()
            and hidden.device.type == "cpu"
            and hidden.dtype == self.weight.dtype == torch.float32
            and 0 < len(hidden) <= FEW
        )


def has_arranged_products() -> bool:
    """Whether this torch was built with oneDNN and offers the two operators that its compiler uses."""
    wanted = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in wanted)
