"""Scorer, decisions and thinc architecture of two semantic parsers with parts across their formalisms.

FREDA3 and SHARED3 of Peng, Thomson and Smith (ACL 2017), for two formalisms, and in the way of this package:
the parts of each graph are biaffine, those of two arcs between the same words have low rank, as in the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from spacy import registry
from spacy.tokens import Doc
from thinc.api import Model, Ops, concatenate
from thinc.types import Floats2d, Ints2d
from torch import Tensor, nn
from torch.nn.functional import dropout, pad

from diffdecode.moves import moved
from diffdecode.structure import (
    JointParts,
    SemanticGraph,
    Surrogate,
    given_the_other,
    joint_semantic_graphs,
    looked_at_once,
    possible_arcs,
)
from spacy_components.ml.graphs.decisions import GraphDecision, GraphDecoder, arcs_of
from spacy_components.ml.graphs.scorers import BiaffineGraphScorer, PartScores
from spacy_components.ml.listening.gradients import GraphGradient
from spacy_components.ml.segments import SegmentBatch, Segmenter
from spacy_components.ml.thinc_glue.tok2vec_width import width_of
from spacy_components.ml.trees.models import DocScores, segment_scorer
from spacy_components.ml.trees.scorers import SegmentEncoder

LABELS = "label_counts"
"""Attribute of the model: how many labels each formalism has, that of the tops among them."""


@dataclass(frozen=True)
class JointScores:
    """Scores of a batch of segments.

    Attributes:
        batch: which words these are.
        lengths: ``[B]``, on the device of the scores.
        parts: of both graphs, and of pairs of arcs.
    """

    batch: SegmentBatch
    lengths: Tensor
    parts: JointParts

    @property
    def by_name(self) -> dict[str, Tensor]:
        """The scores, under the names that messages give them."""
        first, second = self.parts.first._asdict(), self.parts.second._asdict()
        return {
            **{f"{name} (first graph)": scores for name, scores in first.items()},
            **{f"{name} (second graph)": scores for name, scores in second.items()},
            "pairs": self.parts.pairs,
        }


class JointGraphScorer(nn.Module):
    """Segments of concatenated word vectors to their :class:`JointScores`.

    Args:
        widths: of the vectors that both formalisms read, and of those that each of them has to itself, which
            stand in this order in a word's vector; the last two may be 0.
        labels: numbers of labels.
        hidden: size of the views of a word as argument and as predicate.
        label_hidden: the same for the labels.
        max_distance: signed distances to the predicate that have a score of their own; 0 for none at all.
        lstm_width: size of each direction of a BiLSTM of each formalism.
        lstm_depth: its layers; 0 for none.
        rank: of the scores of pairs.
        pair_heads: how many predicates of an argument have such scores.
    """

    def __init__(
        self,
        widths: Sequence[int],
        labels: Sequence[int],
        hidden: int,
        label_hidden: int,
        max_distance: int,
        lstm_width: int,
        lstm_depth: int,
        rank: int,
        pair_heads: int,
    ):
        super().__init__()
        self.widths = list(widths)
        shared, *own = widths
        self.first, self.second = (
            BiaffineGraphScorer(
                SegmentEncoder(shared + width, lstm_width, lstm_depth),
                hidden,
                label_hidden,
                max_distance,
                count,
            )
            for width, count in zip(own, labels)
        )
        self.pair = PairScorer(sum(widths), rank, labels)
        self.pair_heads = pair_heads
        # Each word has pair_heads tables of labels by labels, and some sixteen arcs.
        self.numbers_per_arc = 16 * sum(labels) + 4 * pair_heads * labels[0] * labels[1] // 16

    def forward(self, vectors: Tensor, batches: Sequence[SegmentBatch], drop: float) -> list[JointScores]:
        """``vectors [T, d]`` of all words and the segments to scores; ``drop`` is the dropout rate."""
        shared, first, second = vectors.split(self.widths, 1)
        views = torch.cat([shared, first], 1), torch.cat([shared, second], 1)
        scored = [scorer(view, batches, drop) for scorer, view in zip((self.first, self.second), views)]
        vectors = pad(vectors, (0, 0, 0, 1))
        return [self._with_pairs(vectors, one, other, drop) for one, other in zip(*scored)]

    def _with_pairs(self, vectors: Tensor, first: PartScores, second: PartScores, drop: float) -> JointScores:
        words = vectors[moved(torch.from_numpy(first.batch.tokens), vectors.device)]
        places = likely_places(first, second, self.pair_heads)
        pairs = self.pair(words, places, drop)
        return JointScores(first.batch, first.lengths, JointParts(first.parts, second.parts, places, pairs))


@torch.no_grad()
def likely_places(first: PartScores, second: PartScores, heads: int) -> Tensor:
    """``[P, 3]``: each argument with the ``heads`` predicates to which its best arcs in both graphs add most.

    The paper, too, scores pairs of such arcs only as a first-order parser finds likely.
    """
    best = sum(one.parts.arcs + one.parts.labels.amax(3) for one in (first, second))
    best = best.masked_fill(~possible_arcs(first.lengths, best.shape[1]), -torch.inf)
    chosen = torch.zeros_like(best, dtype=torch.bool)
    top = best.topk(min(heads, best.shape[2]), 2)
    chosen.scatter_(2, top.indices, top.values > -torch.inf)
    return chosen.nonzero()


class PairScorer(nn.Module):
    """What two arcs between the same words add, by their labels: ``sum_r a_r(i) p_r(j) e_r(l1) f_r(l2)``."""

    def __init__(self, width: int, rank: int, labels: Sequence[int]):
        super().__init__()
        self.argument, self.predicate = nn.Linear(width, rank), nn.Linear(width, rank)
        self.root = nn.Parameter(torch.ones(rank))
        # At first, words say nothing and labels alone a little.
        for view in (self.argument, self.predicate):
            nn.init.ones_(view.bias)
        self.first, self.second = (
            nn.Parameter(0.3 * torch.randn(count, rank) * rank**-0.5) for count in labels
        )

    def forward(self, words: Tensor, places: Tensor, drop: float) -> Tensor:
        """``words [B, N, d]`` and ``places [P, 3]`` to ``[P, L1, L2]``."""
        sentence, argument, predicate = places.T
        arguments = self.argument(words)
        predicates = torch.cat([self.root.expand(len(words), 1, -1), self.predicate(words)], 1)
        weights = arguments[sentence, argument - 1] * predicates[sentence, predicate]
        weights = dropout(weights, drop, self.training)
        return (weights.unsqueeze(1) * self.first) @ self.second.T


@dataclass(frozen=True)
class JointDecoder:
    """How scores become two graphs, and how a gradient on either becomes one on the scores.

    Attributes:
        surrogate: the surrogate gradient.
        grad_factor: what it is multiplied with.
    """

    surrogate: Surrogate
    grad_factor: float = 1.0

    def best(self, scores: DocScores) -> list[tuple[SemanticGraph, SemanticGraph]]:
        """The best two graphs of all segments, without gradient: for each batch of segments."""

        def best() -> list[tuple[SemanticGraph, SemanticGraph]]:
            scores.require_finite()
            return [joint_semantic_graphs(part.parts, part.lengths) for part in scores.scores]

        return looked_at_once(best)

    def arcs(self, scores: DocScores) -> list:
        """The best two graphs, ``[arcs, 3]`` each: head (-1: a top) and dependent in all documents, label."""
        batches = [part.batch for part in scores.scores]
        chosen = self.best(scores)
        return [arcs_of(batches, [graphs[which] for graphs in chosen]) for which in range(2)]

    def decide(self, which: int, scores: DocScores) -> "JointDecision":
        """Decide, and be ready for a gradient on the graph ``which``.

        The other one is taken as it is: a pair of arcs gets the gradient of its arc in this graph.
        """
        chosen = self.best(scores)
        given = [
            PartScores(part.batch, part.lengths, given_the_other(part.parts, which, graphs[1 - which]))
            for part, graphs in zip(scores.scores, chosen)
        ]
        decoder = GraphDecoder(self.surrogate, self.grad_factor)
        sources = {id(one.parts.labels): part.parts for one, part in zip(given, scores.scores)}
        return JointDecision(decoder.decide(DocScores(scores.segments, given), []), which, sources)


@dataclass
class JointDecision:
    """One of the two graphs of a list of documents, and the gradients that came back on it."""

    decision: GraphDecision
    which: int
    sources: dict[int, JointParts]
    """What the labels' scores, given the other graph, were made of; by the identity of their tensor."""

    def outputs(self, ops: Ops) -> list[Ints2d]:
        """For each document rows (head, dependent, label), tops left out."""
        return self.decision.outputs(ops)

    def add(self, gradients: Sequence[GraphGradient]) -> None:
        """Take a gradient on the graphs, one per document; those of several listeners add up."""
        self.decision.add(gradients)

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Scores and the surrogate gradient on them, for the model's backward pass."""
        found = []
        for scores, gradient in self.decision.pairs():
            source = self.sources.get(id(scores))
            own = [scores] if source is None else [source[self.which].labels, source.pairs]
            of_own = [gradient] if source is None else torch.autograd.grad(scores, own, gradient)
            found += zip(own, of_own)
        return found


@registry.architectures("diffdecode.JointGraphParser.v1")
def build_joint_graph_parser(
    tok2vec: Model[list[Doc], list[Floats2d]],
    segmenter: Segmenter,
    first: Model[list[Doc], list[Floats2d]] | None = None,
    second: Model[list[Doc], list[Floats2d]] | None = None,
    hidden_width: int = 128,
    label_width: int = 48,
    max_distance: int = 16,
    lstm_width: int = 0,
    lstm_depth: int = 0,
    rank: int = 16,
    pair_heads: int = 4,
) -> Model[list[Doc], DocScores]:
    """Two semantic dependency parsers with parts across formalisms (Peng, Thomson and Smith, ACL 2017).

    Args:
        tok2vec: word vectors that both read.
        segmenter: which stretches of a document are parsed as one.
        first: further word vectors for the first formalism alone (FREDA3); null for none (SHARED3).
        second: the same for the second.
        hidden_width: size of the views of a word as argument and as predicate.
        label_width: the same for the label of an arc.
        max_distance: signed distances to the predicate that have a score of their own; 0 for none at all.
        lstm_width: size of each direction of a BiLSTM of each formalism.
        lstm_depth: its layers; 0 for none.
        rank: of the scores of two arcs between the same words.
        pair_heads: how many predicates of a word, the likeliest by both graphs, have such scores.

    Returns:
        the model.
    """
    sizes = {"hidden": hidden_width, "label_hidden": label_width, "max_distance": max_distance}
    sizes |= {"lstm_width": lstm_width, "lstm_depth": lstm_depth, "rank": rank, "pair_heads": pair_heads}
    parts = {"shared": tok2vec, "first": first, "second": second}
    vectors = concatenate(*(layer for layer in parts.values() if layer is not None))
    build = partial(JointGraphScorer, **sizes)
    model = segment_scorer("joint_graph_parser", vectors, segmenter, build, keep_sentences=False)
    for name, layer in parts.items():
        model.set_ref(name, layer)
    model.attrs[LABELS] = []
    model.init = _init
    return model


def _init(model: Model, X=None, Y=None) -> None:
    model.layers[0].initialize(X=X)
    parts = [model.maybe_get_ref(name) for name in ("shared", "first", "second")]
    widths = [0 if part is None else width_of(part, X, model.name) for part in parts]
    model.shims[0].materialize(widths=widths, labels=model.attrs[LABELS] or [1, 1])
