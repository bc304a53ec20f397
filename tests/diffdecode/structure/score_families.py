"""Random scores of every kind that breaks decoders: ties, forbidden arcs, huge, tiny and offset ones."""

import torch

FAMILIES = (
    "normal",
    "ties",
    "all_equal",
    "forbidden",
    "huge",
    "tiny",
    "offset",
    "peaked",
    "positive",
    "mixed",
)


def random_scores(family: str, batch: int, n: int, generator: torch.Generator) -> torch.Tensor:
    """``[batch, n+1, n+1]`` float32; ``forbidden`` and ``mixed`` may leave a sentence without any tree."""
    scores = torch.randn(batch, n + 1, n + 1, generator=generator)
    if family == "ties":
        return torch.randint(-1, 2, scores.shape, generator=generator).float()
    if family == "all_equal":
        return torch.full_like(scores, 0.1)
    if family == "forbidden":
        return scores.masked_fill(torch.rand(scores.shape, generator=generator) < 0.4, -torch.inf)
    if family == "mixed":
        ties = torch.randint(0, 3, scores.shape, generator=generator).float()
        return ties.masked_fill(torch.rand(scores.shape, generator=generator) < 0.3, -torch.inf)
    if family == "positive":
        return scores.abs() + 5
    factor = {"normal": 1.0, "huge": 1e37, "tiny": 1e-30, "offset": 1.0, "peaked": 300.0}[family]
    return scores * factor + (1000.0 if family == "offset" else 0.0)


def ragged(scores: torch.Tensor, extra: int = 2) -> torch.Tensor:
    """The same sentences padded, with NaN wherever nothing is read: padding, diagonal, the root's row."""
    batch, size = scores.shape[:2]
    padded = scores.new_full((batch, size + extra, size + extra), torch.nan)
    padded[:, :size, :size] = scores
    padded[:, 0] = torch.nan
    padded.diagonal(0, 1, 2).fill_(torch.nan)
    return padded
