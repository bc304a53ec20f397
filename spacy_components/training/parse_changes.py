"""What training through a parser did to its trees: Peng et al. (2018), section 5 and Table 3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from spacy_components.sdp_graph import DEFAULT_KEY, Arc, aligned_graph, has_graph, make_key
from spacy_components.training.scorers import cats_scores, parse_scores, sdp_scores

CASES = {
    "a": "the new head is a head of the word in the semantic graph",
    "b": "the new head is a dependent of the word in the semantic graph",
    "c": "the old head is a dependent of the word in the semantic graph",
}


@dataclass
class Sentence:
    """One sentence, parsed before and after: both documents have the same tokens."""

    before: Doc
    after: Doc
    reference: Doc
    changed: list[int] = field(init=False)

    def __post_init__(self) -> None:
        if [t.text for t in self.before] != [t.text for t in self.after]:
            raise ValueError(f"{self.before.text!r:.60} was tokenised in two different ways")
        self.changed = [a.i for a, b in zip(self.after, self.before) if a.head.i != b.head.i]

    def cases(self, token: int, key: str = DEFAULT_KEY) -> set[str]:
        """Which of ``CASES`` hold for a changed token, with the reference's graph."""
        graph = aligned_graph(Example(self.after, self.reference), key)
        arcs = _pairs(graph.arcs) if graph is not None else set()
        old, new = self.before[token].head.i, self.after[token].head.i
        holds = {"a": (new, token) in arcs, "b": (token, new) in arcs, "c": (token, old) in arcs}
        return {case for case, true in holds.items() if true}


@dataclass
class ParseChanges:
    """The sentences of a corpus, split by whether the tree (heads, not relations) stayed the same.

    ``rows()`` is Table 3; ``case_shares()`` the shares of changed heads in cases a, b, c of ``CASES``; both
    with the graphs that have the key.
    """

    sentences: list[Sentence]
    key: str = DEFAULT_KEY

    @property
    def same(self) -> list[Sentence]:
        """The sentences without a changed head."""
        return [sentence for sentence in self.sentences if not sentence.changed]

    @property
    def diff(self) -> list[Sentence]:
        """The sentences with a changed head."""
        return [sentence for sentence in self.sentences if sentence.changed]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of ``split, sentences, system`` and those of ``uas, lf, acc`` for which there is gold."""
        for split, sentences in (("SAME", self.same), ("DIFF", self.diff), ("ALL", self.sentences)):
            for system in ("before", "after"):
                examples = [Example(getattr(s, system), s.reference) for s in sentences]
                yield {
                    "split": split,
                    "sentences": len(sentences),
                    "system": system,
                    **_scores(examples, self.key),
                }

    def case_shares(self) -> dict[str, float] | None:
        """Shares of the changed heads in each case, ``any`` for at least one and ``changed`` their number.

        Counts only sentences whose reference has a graph; None if no head changed in them.
        """
        cases = [
            s.cases(token, self.key)
            for s in self.diff
            if has_graph(s.reference, self.key)
            for token in s.changed
        ]
        if not cases:
            return None
        shares = {case: sum(case in found for found in cases) / len(cases) for case in CASES}
        return shares | {"any": sum(map(bool, cases)) / len(cases), "changed": len(cases)}


def compare_parses(
    before: Iterable[Doc], after: Iterable[Doc], references: Iterable[Doc], key: str = DEFAULT_KEY
) -> ParseChanges:
    """Sets the parses of two systems side by side.

    Args:
        key: of the graphs with which they are compared.

    Raises:
        ValueError: the numbers of documents differ, or the tokens of a sentence, or a parse is missing.
    """
    triples = list(zip(before, after, references, strict=True))
    for old, new, _ in triples:
        for name, doc in (("before", old), ("after", new)):
            if len(doc) and not doc.has_annotation("DEP"):
                raise ValueError(f"{doc.text!r:.60} has no parse from the system '{name}'")
    return ParseChanges([Sentence(*triple) for triple in triples], make_key(key))


def _scores(examples: Sequence[Example], key: str) -> dict[str, float]:
    """UAS over all tokens, labelled F1 of graphs, accuracy of categories: of what both sides have."""
    labels = sorted({label for example in examples for label in example.reference.cats})
    classified = labels and all(example.predicted.cats for example in examples)
    drawn = any(has_graph(example.predicted, key) for example in examples)
    scores = {
        "uas": parse_scores(examples)["dep_uas"],
        "lf": sdp_scores(examples, key=key)[f"{key}_lf"] if drawn else None,
        "acc": cats_scores(examples, labels=labels)["cats_acc"] if classified else None,
    }
    return {name: score for name, score in scores.items() if score is not None}


def _pairs(arcs: Iterable[Arc]) -> set[tuple[int, int]]:
    return {(arc.head, arc.dep) for arc in arcs}
