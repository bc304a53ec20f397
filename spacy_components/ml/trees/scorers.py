"""Arc-factored scorers of dependency trees, as torch modules.

Notation: ``B`` segments, ``N`` words, ``L`` labels; position 0 is the root, so arc scores are
``[B, N+1, N+1]`` (dependent, head).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, pad

from diffdecode.moves import moved
from diffdecode.recurrent import lstm_states
from spacy_components.ml.segments import SegmentBatch

WORDS_IN_CACHE = 256
"""How many words have their labels scored at once on a CPU."""


@dataclass(frozen=True)
class TreeScores:
    """Scores of a batch of segments.

    Attributes:
        batch: which words these are.
        lengths: ``[B]``, on the device of the scores.
        arcs: ``[B, N+1, N+1]``.
        label_scores: from heads ``[B, N]`` (0 = root; anything beyond the length) to label scores ``[B,
            N, L]``. Labels are scored for given heads only, which saves a factor of ``N``.
    """

    batch: SegmentBatch
    lengths: Tensor
    arcs: Tensor
    label_scores: Callable[[Tensor], Tensor]

    @property
    def by_name(self) -> dict[str, Tensor]:
        """The scores that are there already, under the names that messages give them."""
        return {"arcs": self.arcs}


class SegmentEncoder(nn.Module):
    """Word vectors of a padded batch, read by a BiLSTM if ``depth`` > 0, and a root vector before them.

    Dropout before, between and after the layers has one mask for all words of a segment (Gal and Ghahramani,
    NeurIPS 2016).
    """

    def __init__(self, width: int, lstm_width: int = 0, lstm_depth: int = 0):
        super().__init__()
        self.width = 2 * lstm_width if lstm_depth else width
        widths = [width] + [self.width] * (lstm_depth - 1)
        self.layers = nn.ModuleList(
            nn.LSTM(size, lstm_width, batch_first=True, bidirectional=True) for size in widths[:lstm_depth]
        )
        self.root = nn.Parameter(torch.randn(self.width) * self.width**-0.5)

    def forward(self, vectors: Tensor, batch: SegmentBatch, drop: float) -> Tensor:
        """``vectors [T+1, d]``, the last row 0 for padding, to ``[B, N+1, width]``."""
        words = vectors[moved(torch.from_numpy(batch.tokens), vectors.device)]
        for layer in self.layers:
            words = self._dropout(words, drop)
            words = lstm_states(layer, words, torch.from_numpy(batch.lengths))
        if self.layers:
            words = self._dropout(words, drop)
        return torch.cat([self.root.expand(len(words), 1, -1), words], 1)

    def _dropout(self, words: Tensor, drop: float) -> Tensor:
        return words * dropout(words.new_ones(len(words), 1, words.shape[2]), drop, self.training)


class TreeScorer(nn.Module, ABC):
    """Segments of concatenated word vectors to their :class:`TreeScores`."""

    def __init__(self, encoder: SegmentEncoder):
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def score(self, words: Tensor, drop: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """``words [B, N+1, width]`` to arcs ``[B, N, N+1]`` and the function that scores labels."""

    def forward(self, vectors: Tensor, batches: Sequence[SegmentBatch], drop: float) -> list[TreeScores]:
        """``vectors [T, d]`` of all words and the segments to scores; ``drop`` is the dropout rate."""
        vectors = pad(vectors, (0, 0, 0, 1))
        scores = []
        for batch in batches:
            arcs, label_scores = self.score(self.encoder(vectors, batch, drop), drop)
            lengths = moved(torch.from_numpy(batch.lengths), vectors.device)
            scores.append(TreeScores(batch, lengths, pad(arcs, (0, 0, 1, 0)), label_scores))
        return scores


class BiaffineScorer(TreeScorer):
    """Biaffine arcs and labels (Dozat and Manning, ICLR 2017, equations 4 to 9).

    Added to the arcs, for encoders that see a few words only, such as spaCy's CNN: a dependent's score for
    each signed distance to its head (those beyond ``max_distance`` count as that), and for the words
    in between.
    """

    def __init__(
        self,
        encoder: SegmentEncoder,
        hidden: int,
        label_hidden: int,
        max_distance: int,
        between: int,
        labels: int,
    ):
        super().__init__(encoder)
        self.dependent = nn.Linear(encoder.width, hidden)
        self.head = nn.Linear(encoder.width, hidden)
        self.arc = nn.Linear(hidden, hidden)
        self.distance = DistanceScores(hidden, max_distance) if max_distance else None
        self.between = BetweenScores(encoder.width, hidden, between) if between else None
        self.label_dependent = nn.Linear(encoder.width, label_hidden)
        self.label_head = nn.Linear(encoder.width, label_hidden)
        self.label = nn.Linear(label_hidden + 1, labels * (label_hidden + 1), bias=False)
        nn.init.zeros_(self.label.weight)
        nn.init.normal_(self.arc.weight, std=1 / hidden)  # scores near 0, whatever the vectors' scale

    def score(self, words, drop):
        dependents = self._view(self.dependent, words[:, 1:], drop)
        arcs = self.arc(dependents) @ self._view(self.head, words, drop).transpose(1, 2)
        if self.distance is not None:
            arcs = arcs + self.distance(dependents)
        if self.between is not None:
            arcs = arcs + self.between(words[:, 1:], dependents)
        label_dependents = self._view(self.label_dependent, words[:, 1:], drop)
        label_heads = self._view(self.label_head, words, drop)

        def label_scores(heads: Tensor) -> Tensor:
            pairs = (label_dependents, _rows(label_heads, heads))
            pairs = (pad(side.flatten(0, 1), (0, 1), value=1.0) for side in pairs)
            return self._label_scores(*pairs).unflatten(0, heads.shape)

        return arcs, label_scores

    def _view(self, layer: nn.Linear, words: Tensor, drop: float) -> Tensor:
        return dropout(torch.relu(layer(words)), drop, self.training)

    def _label_scores(self, dependents: Tensor, heads: Tensor) -> Tensor:
        """Views of ``n`` words and of their heads, ``[n, d]`` each, to ``[n, L]``.

        The products of all pairs of features, times one matrix for all words; by so many words at a time that
        they stay in a CPU's cache.
        """
        weight = self.label.weight.view(-1, dependents.shape[1] ** 2)
        at_once = WORDS_IN_CACHE if dependents.device.type == "cpu" else max(1, len(dependents))
        pairs = zip(dependents.split(at_once), heads.split(at_once))
        return torch.cat([linear((h.unsqueeze(2) * d.unsqueeze(1)).flatten(1), weight) for d, h in pairs])


class BetweenScores(nn.Module):
    """What a word expects of all the words between itself and its head (McDonald et al., ACL 2005, in-between
    features), with a learned feature vector for each word.

    Its sum over a stretch of words is a difference of running sums, so all pairs cost one matrix product.
    """

    def __init__(self, width: int, hidden: int, features: int):
        super().__init__()
        self.feature = nn.Linear(width, features)
        self.to_left = nn.Linear(hidden, features, bias=False)
        self.to_right = nn.Linear(hidden, features, bias=False)
        for layer in (self.to_left, self.to_right):
            nn.init.normal_(layer.weight, std=0.1 / hidden)

    def forward(self, words: Tensor, dependents: Tensor) -> Tensor:
        """``words [B, N, width]`` and ``dependents [B, N, hidden]`` to ``[B, N, N+1]``."""
        through = pad(torch.relu(self.feature(words)).cumsum(1), (0, 0, 1, 0))  # words 1 to i, for i = 0 to N
        before = pad(through, (0, 0, 1, 0))[:, :-1]  # words 1 to i - 1
        left, right = self.to_left(dependents), self.to_right(dependents)
        to_left = (left * before[:, 1:]).sum(2, keepdim=True) - left @ through.transpose(1, 2)
        to_right = right @ before.transpose(1, 2) - (right * through[:, 1:]).sum(2, keepdim=True)
        position = torch.arange(words.shape[1] + 1, device=words.device)
        return torch.where(position[None, :] < position[1:, None], to_left, to_right)


class DistanceScores(nn.Module):
    """What a word expects of the signed distance to its head; the root counts as position 0."""

    def __init__(self, hidden: int, max_distance: int):
        super().__init__()
        self.max_distance = max_distance
        self.by_distance = nn.Linear(hidden, 2 * max_distance + 1, bias=False)

    def forward(self, dependents: Tensor) -> Tensor:
        """``[B, N, hidden]`` to ``[B, N, N+1]``."""
        position = torch.arange(dependents.shape[1] + 1, device=dependents.device)
        distance = position[None, :] - position[1:, None]  # head - dependent
        bucket = distance.clamp(-self.max_distance, self.max_distance) + self.max_distance
        return self.by_distance(dependents).gather(2, bucket.expand(len(dependents), -1, -1))


class MlpScorer(TreeScorer):
    """Arcs and labels scored by a perceptron with one tanh layer (Kiperwasser and Goldberg, TACL 2016)."""

    def __init__(self, encoder: SegmentEncoder, hidden: int, label_hidden: int, labels: int):
        super().__init__(encoder)
        self.dependent = nn.Linear(encoder.width, hidden)
        self.head = nn.Linear(encoder.width, hidden, bias=False)
        self.arc = nn.Linear(hidden, 1, bias=False)
        self.label_dependent = nn.Linear(encoder.width, label_hidden)
        self.label_head = nn.Linear(encoder.width, label_hidden, bias=False)
        self.label = nn.Linear(label_hidden, labels)
        self.numbers_per_arc = 4 * hidden

    def score(self, words, drop):
        dependents, heads = self.dependent(words[:, 1:]), self.head(words)
        hidden = torch.tanh(dependents.unsqueeze(2) + heads.unsqueeze(1))
        arcs = self.arc(dropout(hidden, drop, self.training)).squeeze(3)
        label_dependents, label_heads = self.label_dependent(words[:, 1:]), self.label_head(words)

        def label_scores(heads: Tensor) -> Tensor:
            hidden = torch.tanh(label_dependents + _rows(label_heads, heads))
            return self.label(dropout(hidden, drop, self.training))

        return arcs, label_scores


def _rows(vectors: Tensor, index: Tensor) -> Tensor:
    """``vectors [B, M, d]`` at ``index [B, N]`` (negative: row 0) to ``[B, N, d]``."""
    return vectors.gather(1, index.clamp(min=0).unsqueeze(2).expand(-1, -1, vectors.shape[2]))
