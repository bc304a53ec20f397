"""A parser's distribution over the trees of a document."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from spacy.tokens import Doc
from torch import Tensor

from spacy_components.confidence.annotations import write
from spacy_components.confidence.joined import SegmentScores, score_of_decisions
from spacy_components.ml.trees.decisions import TreeDecoder
from spacy_components.ml.trees.models import DocScores
from spacy_components.ml.trees.scorers import TreeScores
from spacy_components.ml.trees.sentences import trees_of


class ScoredTree(NamedTuple):
    """A tree that a document may have.

    Attributes:
        heads: for each token the position of its head, a root's being its own.
        deps: for each token the best label for this head.
        log_prob: natural logarithm of the probability of the heads.
    """

    heads: list[int]
    deps: list[str]
    log_prob: float

    def on(self, doc: Doc) -> Doc:
        """A copy of the document that has this tree.

        Args:
            doc: the document that was asked about.
        """
        copy = doc.copy()
        relative = np.asarray(self.heads, dtype=np.int64) - np.arange(len(doc))
        labels = np.array([doc.vocab.strings.add(dep) for dep in self.deps], dtype=np.uint64)
        if len(doc):
            copy.from_array(["HEAD", "DEP"], np.stack([relative.astype(np.uint64), labels], axis=1))
        write([copy], {})
        return copy


class TreeDistribution:
    """``p(tree) ∝ exp(sum of arc scores / temperature)`` in every segment, and segments are independent.

    Args:
        decoder: of the parser.
        scores: of one document.
        temperature: what the scores are divided by.
    """

    def __init__(self, decoder: TreeDecoder, scores: DocScores, temperature: float = 1.0):
        self.decoder = decoder
        self.scores = scores
        self.temperature = temperature
        self._kinds = [trees_of(part.batch, decoder.trees) for part in scores.scores]
        self._segments: list[SegmentScores] = []
        self._log_partition = 0.0
        for part, kind in zip(scores.scores, self._kinds):
            arcs = self._arcs(part)
            self._log_partition += float(kind.log_partition(arcs, part.lengths).sum())
            for words, of_segment, length in zip(part.batch.tokens, arcs.cpu().numpy(), part.batch.lengths):
                here = of_segment[: length + 1, : length + 1]
                self._segments.append(SegmentScores(words[:length], here, kind))

    def _arcs(self, part: TreeScores) -> Tensor:
        return part.arcs.detach().double() / self.temperature

    def log_prob(self, heads: np.ndarray) -> float:
        """The logarithm of a tree's probability; white space is not looked at.

        Args:
            heads: ``[n]`` positions, a root's being its own.

        Returns:
            the logarithm; -inf for a tree that the parser cannot give.
        """
        segments = self.scores.segments
        heads = heads.copy()
        heads[segments.spaces] = segments.hosts
        total = score_of_decisions(self._segments, heads, segments.inner)
        return min(total - self._log_partition, 0.0)

    def k_best(self, k: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Different trees in the order of the likeliest decisions that give them.

        Args:
            k: how many.

        Returns:
            for each tree heads ``[n]``, labels' numbers ``[n]`` and log-probability; fewer than ``k`` where
            there are no more.

        Raises:
            ValueError: ``k`` below 1.
        """
        if k < 1:
            raise ValueError(f"k must be 1 or more, got {k}")
        wanted, found = k, {}
        while True:
            decisions = list(self._best_decisions(wanted))
            for chosen in decisions:
                heads, labels = self.decoder.joined(self.scores, chosen)
                found.setdefault(heads.tobytes(), (heads, labels))
            if len(found) >= k or len(decisions) < wanted:
                return [self._with_probability(*tree) for tree in list(found.values())[:k]]
            wanted *= 2

    def sample(self, n: int, generator: torch.Generator | None) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Independent samples.

        Args:
            n: how many.
            generator: of the random numbers, on the CPU.

        Returns:
            for each sample heads ``[n]``, labels' numbers ``[n]`` and log-probability.

        Raises:
            ValueError: ``n`` below 1.
        """
        if n < 1:
            raise ValueError(f"n must be 1 or more, got {n}")
        parts = [
            kind.sample(self._arcs(part), part.lengths, n, generator=generator)
            for kind, part in zip(self._kinds, self.scores.scores)
        ]
        drawn = (self.decoder.joined(self.scores, [heads[i] for heads in parts]) for i in range(n))
        return [self._with_probability(*tree) for tree in drawn]

    def _with_probability(self, heads: np.ndarray, labels: np.ndarray):
        return heads, labels, self.log_prob(heads)

    def _best_decisions(self, k: int) -> Iterator[list[Tensor]]:
        """Up to ``k`` times the heads ``[B, N]`` of all batches of segments, best first."""
        parts = [
            kind.k_best(part.arcs, part.lengths, k) for kind, part in zip(self._kinds, self.scores.scores)
        ]
        totals = [of_segment.cpu().numpy() for _, totals in parts for of_segment in totals.T]
        for ranks in best_sums(totals, k):
            chosen, start = [], 0
            for heads, _ in parts:
                stop = start + heads.shape[1]
                rank = torch.from_numpy(ranks[start:stop]).to(heads.device)
                chosen.append(heads[rank, torch.arange(len(rank), device=heads.device)])
                start = stop
            yield chosen


def best_sums(lists: Sequence[np.ndarray], k: int) -> np.ndarray:
    """The ``k`` best sums of one number from each list.

    Args:
        lists: ``S`` lists of numbers, each falling, up to the first -inf.
        k: how many.

    Returns:
        ``[M, S]``, ``M <= k``: which number of each list, best sum first.
    """
    sums, places = np.zeros(1), np.zeros((1, 0), dtype=np.int64)
    for numbers in lists:
        pairs = sums[:, None] + numbers[np.isfinite(numbers)]
        order = np.argsort(-pairs, axis=None, kind="stable")[:k]
        before, place = np.unravel_index(order, pairs.shape)
        sums, places = pairs[before, place], np.column_stack([places[before], place])
    return places
