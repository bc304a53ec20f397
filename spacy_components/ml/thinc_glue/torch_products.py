"""thinc's layers on a CPU with torch's matrix products, which take less than half of the time of its own."""

import numpy as np
import torch
from thinc.api import Model, NumpyOps
from torch.nn.functional import pad

FEWEST_ROWS = 16
"""Of fewer rows (of up to 3, with MKL), a product's last digits depend on how many they are."""


class TorchProducts(NumpyOps):
    """``NumpyOps`` that multiply matrices by torch: as the layers around do, and with as many threads."""

    def gemm(self, x, y, out=None, trans1: bool = False, trans2: bool = False):
        """Matrix product of arrays ``[n, m]`` and ``[m, k]``, each transposed before if asked for.

        Args:
            x: the left one.
            y: the right one.
            out: where the product is written to; by default a new array.
            trans1: whether to transpose the left one.
            trans2: whether to transpose the right one.

        Returns:
            ``[n, k]``.
        """
        left, right = (torch.utils.dlpack.from_dlpack(self.as_contig(array)) for array in (x, y))
        left, right = left.T if trans1 else left, right.T if trans2 else right
        rows = len(left)
        if rows < FEWEST_ROWS:
            left = pad(left, (0, 0, 0, FEWEST_ROWS - rows))
        product = torch.mm(left, right)[:rows].numpy()
        if out is None:
            return product
        np.copyto(out, product)
        return out


def with_torch_products(model: Model) -> Model:
    """Have the layers of a model multiply by torch, where they would by thinc's own product for any CPU.

    On a GPU, and where thinc has a product made for the processor (Apple's), that one stays.

    Args:
        model: the model; its layers are changed in place.

    Returns:
        the model.
    """
    for node in model.walk():
        if type(node.ops) is NumpyOps:
            node.ops = TorchProducts()
    return model
