"""How much the rows of a top-k are the same choice: the first sign of a collapsing beam."""

import torch
from torch import Tensor


def beam_overlap(rows: Tensor) -> Tensor:
    """Largest mass that two rows share, ``max_{i<j} sum_v min(p_iv, p_jv)``.

    Two beam elements with equal rows continue with equal states, and stay equal ever after. Log this number
    in training: near 1 means that the beam is narrower than its size.

    Args:
        rows: ``[B, K, ...]`` rows of a top-k operator, over candidates in any shape.

    Returns:
        ``[B]`` in [0, 1]: 0 for disjoint rows and for K = 1, 1 for two equal rows.
    """
    rows, k = rows.flatten(2), rows.size(1)
    if k == 1:
        return rows.new_zeros(rows.size(0))
    first, second = torch.triu_indices(k, k, offset=1, device=rows.device)
    return torch.minimum(rows[:, first], rows[:, second]).sum(-1).amax(1)
