"""How far a semantic parser has moved from what it was; see ``spacy_components.finetuning.drift``."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import pad

from diffdecode.structure import possible_arcs
from spacy_components.finetuning.drift import kl_of_rows, l2_of_rows
from spacy_components.ml.graphs.scorers import PartScores


def graph_drift(kind: str, now: PartScores, original: PartScores) -> Tensor:
    """Drift of all decisions, each by itself: is a word a predicate, and which label, or none, has an arc.

    Args:
        kind: a name in ``GRAPH_DRIFTS``.
        now: the parser's scores.
        original: the original's scores of the same segments.

    Returns:
        A scalar.
    """
    distance = GRAPH_DRIFTS[kind]
    before = _decisions(original)
    return sum(distance(rows, kept.detach()) for rows, kept in zip(_decisions(now), before))


def _decisions(scored: PartScores) -> tuple[Tensor, Tensor]:
    """Rows of scores, 0 for "no": of predicates ``[words, 2]``, and of arcs ``[arcs, L+1]``."""
    predicates, arcs, labels = scored.parts
    possible = possible_arcs(scored.lengths, arcs.shape[1])
    is_word = possible.any(2)
    labelled = labels[possible] + arcs[possible].unsqueeze(1)
    return pad(predicates[is_word].unsqueeze(1), (0, 1)), pad(labelled, (0, 1))


def _l2_of_finite(now: Tensor, original: Tensor) -> Tensor:
    possible = original.isfinite()
    return l2_of_rows(now.masked_fill(~possible, 0.0), original.masked_fill(~possible, 0.0))


GRAPH_DRIFTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"kl": kl_of_rows, "l2": _l2_of_finite}
