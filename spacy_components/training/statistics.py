"""What is in a corpus of trees, graphs and categories, and what looks wrong in which of its documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from spacy.tokens import Doc

from spacy_components.pipeline.gold_trees import crossing_arcs, tree_of
from spacy_components.sdp_graph import SdpGraph, get_graph, graph_keys
from spacy_components.training.graph_labels import TOP, label_inventory


@dataclass(frozen=True)
class Problem:
    """Something to look at.

    Attributes:
        document: its number in the corpus, from 1: of a treebank's file the number of the sentence.
        text: how it begins.
        what: is wrong.
    """

    document: int
    text: str
    what: str


@dataclass
class Trees:
    """Counts over the documents that have a tree.

    Attributes:
        documents: how many they are.
        words: how many words of theirs have a head, or are roots.
        without_head: and how many do not.
        sentences: how many sentences they have.
        crossing_arcs: arcs that cross another; that of a root comes from before the first word.
        crossing_trees: documents that have such arcs.
        roots: numbers of roots of a document, and how often they occur.
        labels: relations of words that are no roots, and how often they occur.
    """

    documents: int = 0
    words: int = 0
    without_head: int = 0
    sentences: int = 0
    crossing_arcs: int = 0
    crossing_trees: int = 0
    roots: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, doc: Doc) -> int:
        """Counts a document, and returns how many of its words have no head."""
        heads, labels = tree_of(doc)
        known = labels != 0
        crossing = int(crossing_arcs(heads, known).sum())
        is_root = known & (heads == np.arange(len(doc)))
        self.documents += 1
        self.words += int(known.sum())
        self.without_head += len(doc) - int(known.sum())
        self.sentences += len(list(doc.sents))
        self.crossing_arcs += crossing
        self.crossing_trees += crossing > 0
        self.roots[int(is_root.sum())] += 1
        self.labels.update(doc[i].dep_ for i in np.flatnonzero(known & ~is_root).tolist())
        return len(doc) - int(known.sum())


@dataclass
class Graphs:
    """Counts over the documents that have a graph of one key.

    Attributes:
        documents: how many they are.
        words: how many words they have.
        arcs: between words.
        several_heads: words with more than one head.
        unattached: words that are no part of any arc, and no top.
        tops: numbers of tops of a document, and how often they occur.
        labels: of the arcs, and how often they occur.
        deterministic: labels that no word gives to two dependents.
    """

    documents: int = 0
    words: int = 0
    arcs: int = 0
    several_heads: int = 0
    unattached: int = 0
    tops: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    deterministic: list[str] = field(default_factory=list)

    def add(self, graph: SdpGraph, words: int) -> None:
        """Counts a graph over so many words."""
        heads = Counter(dep for _, dep in {arc[:2] for arc in graph.arcs})
        attached = {token for arc in graph.arcs for token in arc[:2]} | set(graph.top)
        self.documents += 1
        self.words += words
        self.arcs += len(graph.arcs)
        self.several_heads += sum(count > 1 for count in heads.values())
        self.unattached += words - len(attached)
        self.tops[len(graph.top)] += 1
        self.labels.update(arc.label for arc in graph.arcs)


@dataclass
class Statistics:
    """Counts over a corpus.

    Attributes:
        lengths: of the documents, in tokens.
        trees: of the trees.
        graphs: of the graphs, by their key.
        cats: categories, and how many documents have them (with more than 0).
        with_cats: documents with categories.
        vocabulary: tokens, and how often they occur.
        texts: of the documents, and which is the first to have it.
        first: by kind of label and label, the first document that has it.
        problems: what looks wrong.
    """

    lengths: list[int] = field(default_factory=list)
    trees: Trees = field(default_factory=Trees)
    graphs: dict[str, Graphs] = field(default_factory=dict)
    cats: Counter[str] = field(default_factory=Counter)
    with_cats: int = 0
    vocabulary: Counter[str] = field(default_factory=Counter)
    texts: dict[str, int] = field(default_factory=dict)
    first: dict[tuple[str, str], int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, docs: Iterable[Doc], max_length: int = 0) -> Statistics:
        """Counts the documents.

        Args:
            docs: the documents.
            max_length: words of the longest stretch that a parser will see as one; 0 for any length.

        Raises:
            ValueError: a negative length.
        """
        if max_length < 0:
            raise ValueError(f"max_length is {max_length}, expected 0 (no limit) or more")
        made, docs = cls(), list(docs)
        for number, doc in enumerate(docs, start=1):
            for what in made._add(doc, number, max_length):
                made.problems.append(Problem(number, doc.text[:60], what))
        for key, graphs in made.graphs.items():
            readable = (doc for doc in docs if _graph_or_why_not(doc, key)[0] is not None)
            inventory = label_inventory(readable, key)
            graphs.deterministic = [label for label in inventory["deterministic"] if label != TOP]
        return made

    @property
    def labels(self) -> dict[str, Counter[str]]:
        """Labels by the kind of annotation, and how often they occur."""
        kinds = {"relation": self.trees.labels, "category": self.cats}
        kinds |= {f"label of graph {key}": graphs.labels for key, graphs in self.graphs.items()}
        return {kind: labels for kind, labels in kinds.items() if labels}

    def _add(self, doc: Doc, number: int, max_length: int) -> Iterator[str]:
        """Counts a document and yields what is wrong with it."""
        self.lengths.append(len(doc))
        self.vocabulary.update(token.text for token in doc)
        self.texts.setdefault(doc.text, number)
        if not len(doc):
            yield "no words"
            return
        yield from _too_long(doc, max_length)
        has_tree, keys = doc.has_annotation("DEP"), graph_keys(doc)
        if has_tree:
            missing = self.trees.add(doc)
            if missing:
                yield f"{missing} of {len(doc)} words have no head"
        for key in keys:
            graph, why_not = _graph_or_why_not(doc, key)
            if graph is None:
                yield why_not
            else:
                self.graphs.setdefault(key, Graphs()).add(graph, len(doc))
        if doc.cats:
            self.with_cats += 1
            self.cats.update(name for name, value in doc.cats.items() if value > 0)
            yield from (f"category {name!r} is {value:g}, neither 0 nor 1" for name, value in _odd(doc.cats))
        if not (has_tree or keys or doc.cats):
            yield "no tree, no graph and no category"
        for kind, labels in self.labels.items():
            for label in labels:
                self.first.setdefault((kind, label), number)


def _odd(cats: dict[str, float]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in cats.items() if value not in (0, 1)]


def _graph_or_why_not(doc: Doc, key: str) -> tuple[SdpGraph | None, str]:
    try:
        return get_graph(doc, key), ""
    except ValueError as error:
        return None, str(error)


def _too_long(doc: Doc, max_length: int) -> Iterator[str]:
    if not max_length or len(doc) <= max_length:
        return
    if not doc.has_annotation("SENT_START"):
        yield f"{len(doc)} words and no sentence boundaries: a parser will cut it after {max_length}"
        return
    longest = max(len(sent) for sent in doc.sents)
    if longest > max_length:
        yield f"a sentence of {longest} words: a parser will cut it after {max_length}"


@dataclass(frozen=True)
class Coverage:
    """What a corpus has that the training corpus lacks.

    Attributes:
        absent: kinds of annotation that training does not have at all.
        labels: by other kind and label, how often it occurs, and the first document that has it.
        unseen_words: share of its tokens, from 0 to 1, that do not occur in training.
        repeated: documents whose text is one of the training corpus: (the first of these there, here).
    """

    absent: list[str]
    labels: dict[tuple[str, str], tuple[int, int]]
    unseen_words: float
    repeated: list[tuple[int, int]]

    @classmethod
    def of(cls, train: Statistics, other: Statistics) -> Coverage:
        """Compares two corpora."""
        known = train.labels
        labels = {
            (kind, label): (count, other.first[kind, label])
            for kind, counts in other.labels.items()
            for label, count in counts.items()
            if kind in known and label not in known[kind]
        }
        unseen = sum(count for word, count in other.vocabulary.items() if word not in train.vocabulary)
        repeated = [(train.texts[text], here) for text, here in other.texts.items() if text in train.texts]
        absent = [kind for kind in other.labels if kind not in known]
        return cls(absent, labels, unseen / max(other.vocabulary.total(), 1), repeated)


def as_rows(statistics: Statistics) -> list[tuple[str, str]]:
    """A table of names and values. What a corpus does not have is left out."""
    lengths, trees = statistics.lengths, statistics.trees
    rows: list[tuple[str, Any]] = [("documents", len(lengths)), ("tokens", sum(lengths))]
    if lengths:
        rows += [
            (
                "tokens of a document (median, 95 %, longest)",
                f"{np.median(lengths):g}, {np.percentile(lengths, 95):g}, {max(lengths)}",
            )
        ]
    if trees.documents:
        rows += [
            ("documents with a tree", trees.documents),
            ("sentences of these", trees.sentences),
            ("their words without a head", _share(trees.without_head, trees.words + trees.without_head)),
            ("crossing arcs", _share(trees.crossing_arcs, trees.words)),
            ("documents with crossing arcs", _share(trees.crossing_trees, trees.documents)),
            ("roots of a document", _often(trees.roots)),
            ("relations", _labels(trees.labels)),
        ]
    for key, graphs in sorted(statistics.graphs.items()):
        rows += [
            (f"documents with a graph {key}", graphs.documents),
            (f"{key}: arcs of a word", f"{graphs.arcs / graphs.words:.2f}"),
            (f"{key}: words with several heads", _share(graphs.several_heads, graphs.words)),
            (f"{key}: words without any arc", _share(graphs.unattached, graphs.words)),
            (f"{key}: tops of a document", _often(graphs.tops)),
            (f"{key}: labels", _labels(graphs.labels)),
            (f"{key}: deterministic labels", str(len(graphs.deterministic))),
        ]
    if statistics.with_cats:
        rows += [
            ("documents with categories", statistics.with_cats),
            ("categories", ", ".join(f"{name}: {count}" for name, count in statistics.cats.most_common(10))),
        ]
    return [(name, str(value)) for name, value in rows]


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / max(whole, 1):.2f} %)"


def _often(counts: Counter[int]) -> str:
    shown = ", ".join(f"{number}: {count}" for number, count in sorted(counts.items())[:5])
    return shown + (f", up to {max(counts)}" if len(counts) > 5 else "")


def _labels(counts: Counter[str]) -> str:
    rare = sum(count < 10 for count in counts.values())
    common = ", ".join(label for label, _ in counts.most_common(3))
    return f"{len(counts)}, {rare} of them fewer than 10 times (most often {common})"
