"""Labelled spans in BIO tags, counted as the CoNLL evaluation script conlleval counts them.

Tjong Kim Sang and De Meulder (2003), "Introduction to the CoNLL-2003 Shared Task", section 2.3: a predicted
span is right if a gold span has the same type, the same start and the same end.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

BIO_TAG = re.compile(r"O|[BI](-.*)?")


def is_bio(tags: Iterable[str]) -> bool:
    """Whether *tags* look like BIO tags: each is ``O``, ``B-type`` or ``I-type``, and not all are ``O``."""
    tags = set(tags)
    return bool(tags - {"O"}) and all(BIO_TAG.fullmatch(tag) for tag in tags)


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The set of ``(type, start, end)`` in a sequence of tags; *end* is the position after the last word.

    Both IOB1 (B only between neighbours of one type) and IOB2 (B on every first word) are understood, and any
    sequence is accepted: an I that cannot continue the span before it starts a new one. A tag that is neither
    B nor I is outside.
    """
    found, start, current = set(), 0, None
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        if current is not None and (prefix != "I" or kind != current):
            found.add((current, start, i))
            current = None
        if current is None and prefix in ("B", "I"):
            start, current = i, kind
    return found


def f1(gold: int, predicted: int, correct: int) -> float:
    """Harmonic mean of precision and recall, from counts; 0 where it is undefined."""
    return 2 * correct / (gold + predicted) if gold + predicted else 0.0


@dataclass
class SpanCounts:
    """Numbers of gold, predicted and correctly predicted spans of each type."""

    gold: Counter = field(default_factory=Counter)
    predicted: Counter = field(default_factory=Counter)
    correct: Counter = field(default_factory=Counter)

    def add(self, gold_tags: Sequence[str], predicted_tags: Sequence[str]) -> None:
        """Count one sentence."""
        gold, predicted = spans(gold_tags), spans(predicted_tags)
        self.gold.update(kind for kind, _, _ in gold)
        self.predicted.update(kind for kind, _, _ in predicted)
        self.correct.update(kind for kind, _, _ in gold & predicted)

    @property
    def types(self) -> list[str]:
        """The types that occur, in gold or predicted spans."""
        return sorted(self.gold + self.predicted)

    def of(self, kind: str) -> tuple[int, int, int]:
        """``(gold, predicted, correct)`` of one type."""
        return self.gold[kind], self.predicted[kind], self.correct[kind]

    @property
    def total(self) -> tuple[int, int, int]:
        """``(gold, predicted, correct)`` over all types."""
        return self.gold.total(), self.predicted.total(), self.correct.total()

    def micro_f1(self) -> float:
        """F1 of all spans together: conlleval's overall FB1, as a fraction."""
        return f1(*self.total)

    def macro_f1(self) -> float:
        """Mean F1 of the types that occur, as a fraction."""
        types = self.types
        return sum(f1(*self.of(kind)) for kind in types) / len(types) if types else 0.0
