"""What criterions know about the search of their task: candidates, costs, one pass of the encoder."""

from contextlib import contextmanager

import torch
from torch import Tensor

from diffdecode.sequence import SearchSpace


def search_space(task) -> SearchSpace:
    """What the task's decoder may emit.

    A task with ``label_ids`` (``sequence_tagging``) emits one label per word. Any other emits every symbol
    but BOS, and EOS ends a hypothesis of at least one word, as fairseq-generate has it.
    """
    if hasattr(task, "label_ids"):
        return SearchSpace(task.label_ids)
    words = task.target_dictionary
    every = torch.arange(len(words))
    return SearchSpace(every[every != words.bos()], words.eos(), words.pad(), shortest=1)


def label_costs(text: str | None, dictionary) -> Tensor | None:
    """Costs ``[V]`` of predicting each symbol wrongly, from ``LABEL=COST,LABEL=COST``; others cost 1.

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


@contextmanager
def keep_encoder_output(model):
    """Within the block, collect what ``model.encoder`` returns, so that a search need not encode again."""
    collected = []
    handle = model.encoder.register_forward_hook(lambda module, arguments, output: collected.append(output))
    try:
        yield collected
    finally:
        handle.remove()


def encode(model, sample):
    """What the model's encoder returns for a batch.

    With several workers the model is called as a whole: only then are its gradients exchanged.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        with keep_encoder_output(model) as collected:
            model(**sample["net_input"])
        return collected[0]
    return model.encoder.forward_torchscript(sample["net_input"])
