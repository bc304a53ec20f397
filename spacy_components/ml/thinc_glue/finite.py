"""Scores and losses that are no numbers any more, and the parameter that is to blame."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from thinc.api import Model
from torch import Tensor

from diffdecode.checks import found
from spacy_components.ml.thinc_glue.parameters import named_parameters


class NotFinite(ValueError):
    """Scores or a loss that are NaN or infinite."""


def require_finite(scores: Tensor, what: str) -> Tensor:
    """Scores as they are, if each is a number; -inf is one, and means impossible.

    Args:
        scores: a tensor of any shape.
        what: what they are, for the message.

    Raises:
        NotFinite: one is NaN or inf.
    """
    if scores.numel() and found(lambda: ~(scores.detach().max() < math.inf)):  # of numbers and NaN, NaN
        raise NotFinite(f"{what} are no finite numbers")
    return scores


@contextmanager
def culprit_named(name: str, model: Model) -> Iterator[None]:
    """Have a ``NotFinite`` inside say which component it is, and which of its parameters.

    Args:
        name: the component.
        model: its model.

    Raises:
        NotFinite: the same, with the names.
    """
    try:
        yield
    except NotFinite as error:
        raise NotFinite(f"'{name}': {error}. {_culprit(model)}") from error


def _culprit(model: Model) -> str:
    for place, value in named_parameters(model):
        if not model.ops.xp.isfinite(value).all():
            return (
                f"Its parameter {place} is not finite. If that came of training, try a smaller learning rate "
                "or gradient clipping (grad_clip) from a pipeline that was saved before."
            )
    return (
        "All of its own parameters are finite: what it reads is not (a tok2vec or transformer that it "
        "shares, or word vectors), or its scores have grown beyond what a float holds."
    )
