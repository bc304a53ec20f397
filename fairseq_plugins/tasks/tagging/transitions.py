"""Which label may follow which: ``I-X`` continues a span of X, in BIO (IOB2)."""

import torch
from torch import Tensor

from fairseq_plugins.scoring.span_f1 import is_bio


def bio_transitions(labels: list[str]) -> Tensor:
    """``[L + 1, L]`` booleans: whether label j may follow label i, and, in the last row, may come first.

    Raises:
        ValueError: labels that are not BIO, or all of which continue something.
    """
    if not is_bio(labels) or all(label.startswith("I-") for label in labels):
        shown = f"{', '.join(labels[:5])}{' ...' if labels[5:] else ''}"
        raise ValueError(
            f"--valid-transitions needs the labels O, B-... and I-...; these are {shown}: remove it"
        )

    def may_follow(before: str, label: str) -> bool:
        return not label.startswith("I-") or before in (label, f"B-{label[2:]}")

    return torch.tensor([[may_follow(before, label) for label in labels] for before in [*labels, "O"]])
