"""Costs of single labels, as they are written on a command line."""

import torch
from fairseq.data import Dictionary
from torch import Tensor


def label_costs(text: str | None, dictionary: Dictionary) -> Tensor | None:
    """Costs ``[V]`` of predicting each symbol wrongly, from ``LABEL=COST,LABEL=COST``; others cost 1.

    In named entities the soft beam paper (2018, section 3.1) lets a wrong ``O`` cost 2. ``None`` or an empty
    text is ``None``.

    Raises:
        ValueError: text that cannot be read, an unknown label or a negative cost.
    """
    if not text:
        return None
    costs = torch.ones(len(dictionary))
    for item in text.split(","):
        label, equals, cost = item.strip().rpartition("=")
        index = dictionary.index(label)
        if not equals or not label:
            raise ValueError(f"--wrong-label-costs: {item!r} is not of the form LABEL=COST")
        if index == dictionary.unk():
            raise ValueError(f"--wrong-label-costs: the label {label!r} is not in the target dictionary")
        try:
            costs[index] = float(cost)
        except ValueError:
            raise ValueError(f"--wrong-label-costs: the cost {cost!r} of {label} is not a number") from None
        if not costs[index] >= 0:
            raise ValueError(f"--wrong-label-costs: the cost {cost} of {label} must not be negative")
    return costs
