"""Costs of labels, as they are written on a command line, and what is known of BIO labels."""

import torch
from fairseq.data import Dictionary
from torch import Tensor

from diffdecode.sequence import SearchSpace
from fairseq_plugins.scoring.span_f1 import is_bio

# A table of costs for each pair of symbols is for labels: with words it would not fit into memory.
MOST_LABELS = 4096


def label_costs(text: str | None, dictionary: Dictionary) -> Tensor | None:
    """Costs of predicting each symbol wrongly, from ``LABEL=COST,GOLD>LABEL=COST``; others cost 1.

    In named entities the soft beam paper (2018, section 3.1) lets a wrong ``O`` cost 2. ``None`` or an empty
    text is ``None``.

    Returns:
        ``[V]``, or, if a cost depends on the right label, ``[V, V]``, right labels first. The later of two
        costs for the same labels counts.

    Raises:
        ValueError: text that cannot be read, an unknown label, a negative cost, or a cost that depends on the
            right label among more than 4096 symbols.
    """
    if not text:
        return None
    costs = torch.ones(len(dictionary))
    for item in text.split(","):
        label, equals, number = item.strip().rpartition("=")
        if not equals or not label:
            raise ValueError(f"--wrong-label-costs: {item!r} is not of the form LABEL=COST")
        *gold, label = [label] if label in dictionary else label.split(">", 1)
        cost = _cost(number, label)
        if gold and costs.dim() == 1:
            if len(dictionary) > MOST_LABELS:
                raise ValueError(
                    f"--wrong-label-costs: {item!r} needs a cost for each pair of {len(dictionary):,} "
                    "symbols: give LABEL=COST"
                )
            costs = costs.repeat(len(dictionary), 1)
        columns = _index(label, dictionary)
        costs[(_index(*gold, dictionary), columns) if gold else (..., columns)] = cost
    return costs


def span_tables(dictionary: Dictionary, space: SearchSpace) -> tuple[Tensor, Tensor]:
    """What ``diffdecode.sequence.SpanCost`` knows of labels, from their names.

    Args:
        dictionary: of V symbols.
        space: what may be predicted.

    Returns:
        ``[V, X]`` booleans, whether a label is inside a span of each of X types, and ``[V]``, whether it is a
        ``B-`` label. Symbols that cannot be predicted are outside.

    Raises:
        ValueError: labels that are not BIO.
    """
    names = {i: dictionary[i] for i in space.symbols.tolist()}
    if space.eos is not None or not is_bio(names.values()):
        shown = f"{', '.join(list(names.values())[:5])}{' ...' if len(names) > 5 else ''}"
        raise ValueError(
            "--cost spans needs --task sequence_tagging and the labels O, B-... and I-...; these are "
            f"{shown}: use --cost labels"
        )
    inside_of = {i: name.partition("-")[2] for i, name in names.items() if name != "O"}
    types = sorted(set(inside_of.values()))
    inside = torch.zeros(len(dictionary), len(types), dtype=torch.bool)
    begins = torch.zeros(len(dictionary), dtype=torch.bool)
    for i, kind in inside_of.items():
        inside[i, types.index(kind)] = True
        begins[i] = names[i].startswith("B")
    return inside, begins


def _index(label: str, dictionary: Dictionary) -> int:
    index = dictionary.index(label)
    if index == dictionary.unk():
        raise ValueError(f"--wrong-label-costs: the label {label!r} is not in the target dictionary")
    return index


def _cost(number: str, label: str) -> float:
    try:
        cost = float(number)
    except ValueError:
        raise ValueError(f"--wrong-label-costs: the cost {number!r} of {label} is not a number") from None
    if not cost >= 0:
        raise ValueError(f"--wrong-label-costs: the cost {number} of {label} must not be negative")
    return cost
