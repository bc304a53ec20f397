"""First-order scorers of semantic dependency graphs, as torch modules.

Notation: ``B`` segments, ``N`` words, ``L`` labels; position 0 is the root. Arcs are ``[B, N+1, N+1]``
(argument, predicate). An arc from the root marks a top word; it has the last label, and no other arc has it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad

from diffdecode.moves import moved
from diffdecode.structure import GraphParts
from spacy_components.ml.segments import SegmentBatch
from spacy_components.ml.trees.scorers import DistanceScores, SegmentEncoder


@dataclass(frozen=True)
class PartScores:
    """Scores of a batch of segments.

    Attributes:
        batch: which words these are.
        lengths: ``[B]``, on the device of the scores.
        parts: predicates ``[B, N+1]``, arcs ``[B, N+1, N+1]`` and labelled arcs ``[B, N+1, N+1, L]``.
    """

    batch: SegmentBatch
    lengths: Tensor
    parts: GraphParts

    @property
    def by_name(self) -> dict[str, Tensor]:
        """The scores, under the names that messages give them."""
        return self.parts._asdict()


class GraphScorer(nn.Module, ABC):
    """Segments of concatenated word vectors to their :class:`PartScores`.

    An argument has a bias for each signed distance to its predicate, as in ``BiaffineScorer``, unless
    ``max_distance`` is 0.
    """

    def __init__(self, encoder: SegmentEncoder, max_distance: int):
        super().__init__()
        self.encoder = encoder
        self.distance = DistanceScores(encoder.width, max_distance) if max_distance else None

    @abstractmethod
    def score(self, words: Tensor, drop: float) -> GraphParts:
        """``words [B, N+1, width]`` to scores whose arguments are the ``N`` words only."""

    def forward(self, vectors: Tensor, batches: Sequence[SegmentBatch], drop: float) -> list[PartScores]:
        """``vectors [T, d]`` of all words and the segments to scores; ``drop`` is the dropout rate."""
        vectors = pad(vectors, (0, 0, 0, 1))
        scores = []
        for batch in batches:
            words = self.encoder(vectors, batch, drop)
            predicates, arcs, labels = self.score(words, drop)
            if self.distance is not None:
                arcs = arcs + self.distance(words[:, 1:])
            labels = labels.masked_fill(_wrong_kind(labels), -torch.inf)
            parts = GraphParts(predicates, pad(arcs, (0, 0, 1, 0)), pad(labels, (0, 0, 0, 0, 1, 0)))
            lengths = moved(torch.from_numpy(batch.lengths), vectors.device)
            scores.append(PartScores(batch, lengths, parts))
        return scores


def _wrong_kind(labels: Tensor) -> Tensor:
    """``[N+1, L]`` bool: the label of tops at a word, or another one at the root."""
    wrong = torch.zeros(labels.shape[2:], dtype=torch.bool, device=labels.device)
    wrong[1:, -1] = True
    wrong[0, :-1] = True
    return wrong


class NeurboScorer(GraphScorer):
    """Perceptrons with two tanh layers for predicates, arcs and labelled arcs (Peng et al., ACL 2017).

    The model of the SPIGOT paper's semantic parser (Peng, Thomson and Smith, 2018, section 4.1.1), but for
    the scores of distances: without them it takes many times as long until the perceptrons know what is near.
    """

    def __init__(self, encoder: SegmentEncoder, hidden: int, max_distance: int, labels: int):
        super().__init__(encoder, max_distance)
        width = encoder.width
        self.predicate = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )
        self.arc = PairPerceptron(width, hidden, 1)
        self.label = PairPerceptron(width, hidden, labels)
        self.numbers_per_arc = 8 * hidden + 16 * labels

    def score(self, words, drop):
        arcs, labels = self.arc(words[:, 1:], words, drop), self.label(words[:, 1:], words, drop)
        return GraphParts(self.predicate(words).squeeze(2), arcs.squeeze(3), labels)


class PairPerceptron(nn.Module):
    """Every pair of an argument and a predicate through a perceptron with two tanh layers."""

    def __init__(self, width: int, hidden: int, outputs: int):
        super().__init__()
        self.argument = nn.Linear(width, hidden)
        self.predicate = nn.Linear(width, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, arguments: Tensor, predicates: Tensor, drop: float) -> Tensor:
        """``[B, N, d]`` and ``[B, M, d]`` to ``[B, N, M, outputs]``."""
        first = torch.tanh(self.argument(arguments).unsqueeze(2) + self.predicate(predicates).unsqueeze(1))
        second = torch.tanh(self.second(dropout(first, drop, self.training)))
        return self.output(second)


class BiaffineGraphScorer(GraphScorer):
    """Biaffine arcs and labels (Dozat and Manning, ACL 2018), with linear predicate scores: much faster."""

    def __init__(
        self, encoder: SegmentEncoder, hidden: int, label_hidden: int, max_distance: int, labels: int
    ):
        super().__init__(encoder, max_distance)
        self.predicate = nn.Linear(encoder.width, 1)
        self.arc = PairBiaffine(encoder.width, hidden, 1)
        self.label = PairBiaffine(encoder.width, label_hidden, labels)
        self.numbers_per_arc = 16 * labels

    def score(self, words, drop):
        arcs = self.arc(words[:, 1:], words, drop).squeeze(3)
        return GraphParts(self.predicate(words).squeeze(2), arcs, self.label(words[:, 1:], words, drop))


class PairBiaffine(nn.Module):
    """Every pair of an argument and a predicate through a biaffine form for each output."""

    def __init__(self, width: int, hidden: int, outputs: int):
        super().__init__()
        self.argument = nn.Linear(width, hidden)
        self.predicate = nn.Linear(width, hidden)
        self.form = nn.Parameter(torch.randn(hidden + 1, outputs, hidden + 1) / hidden)

    def forward(self, arguments: Tensor, predicates: Tensor, drop: float) -> Tensor:
        """``[B, N, d]`` and ``[B, M, d]`` to ``[B, N, M, outputs]``."""
        arguments = self._view(self.argument, arguments, drop)
        by_argument = (arguments @ self.form.flatten(1)).unflatten(2, self.form.shape[1:])
        predicates = self._view(self.predicate, predicates, drop)
        scores = by_argument.flatten(1, 2) @ predicates.transpose(1, 2)  # [B, N * outputs, M]
        return scores.unflatten(1, by_argument.shape[1:3]).transpose(2, 3)

    def _view(self, layer: nn.Linear, words: Tensor, drop: float) -> Tensor:
        return pad(dropout(torch.relu(layer(words)), drop, self.training), (0, 1), value=1.0)
