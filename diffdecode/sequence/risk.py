"""Expected risk over a set of candidate sequences (Shen et al. 2016, "Minimum Risk Training for NMT")."""

import torch
from torch import Tensor


def candidate_weights(scores: Tensor, sharpness: float) -> Tensor:
    """Q ``[B, N]``, proportional to p(y)^a over the candidates of each sentence (section 3.3).

    Args:
        scores: ``[B, N]`` log p of N distinct candidates; ``-inf`` where a sentence has fewer.
        sharpness: a > 0; 1 is p itself, renormalised, and close to 0 all candidates weigh the same.

    Raises:
        ValueError: a sharpness that is not positive, or a sentence without candidates (names the row).
    """
    if not sharpness > 0:
        raise ValueError(f"sharpness {sharpness} must be positive")
    none = scores.isneginf().all(1)
    if none.any():
        raise ValueError(f"sentence {int(none.nonzero()[0])} of the batch has no candidate")
    return torch.softmax(sharpness * scores, 1)


def expected_risk(scores: Tensor, risks: Tensor, sharpness: float) -> Tensor:
    """``sum_k Q(y_k) risk_k`` ``[B]``, differentiable in the scores (section 3.3).

    Its gradient is a times the covariance under Q of the risk and the gradient of log p: divided by the
    sharpness, it keeps its size at any sharpness.

    Args:
        scores: ``[B, N]`` log p of N distinct candidates; ``-inf`` where a sentence has fewer.
        risks: ``[B, N]``; whatever stands where there is no candidate is ignored.
        sharpness: a > 0.

    Raises:
        ValueError: as ``candidate_weights``.
    """
    weights = candidate_weights(scores, sharpness)
    return (weights * risks.masked_fill(scores.isneginf(), 0.0)).sum(1)


def first_occurrences(sequences: Tensor) -> Tensor:
    """``[B, N]`` boolean: which of ``sequences [B, N, T]`` (ids) differ from all before them."""
    same = (sequences[:, :, None] == sequences[:, None]).all(3)
    return ~same.tril(-1).any(2)
