"""From arc scores to trees: for prediction, and for other layers that send a gradient back through them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from thinc.api import Ops, torch2xp, xp2torch
from thinc.types import Ints1d
from torch import Tensor
from torch.nn.functional import pad

from diffdecode.moves import moved, on_cpu
from diffdecode.structure import Surrogate, TreeKind, looked_at_once, tree_argmax
from diffdecode.structure.surrogates import Marginals
from spacy_components.ml.listening.gradients import ArcGradient
from spacy_components.ml.segments import SegmentBatch, SegmentedDocs
from spacy_components.ml.thinc_glue.finite import require_finite
from spacy_components.ml.trees.models import DocScores
from spacy_components.ml.trees.scorers import TreeScores
from spacy_components.ml.trees.sentences import join_trees, trees_of
from spacy_components.ml.trees.soft_trees import SoftTree, WordPairs


def gives_gradient(surrogate: Surrogate, factor: float) -> bool:
    """Whether anything comes back through a decision. Adam would make steps of a pipeline's zeros, too.

    Args:
        surrogate: the surrogate gradient.
        factor: what it is multiplied with.

    Returns:
        whether it can be other than 0.
    """
    return factor != 0 and surrogate.gives_gradient


@dataclass(frozen=True)
class TreeDecoder:
    """How scores become trees, and how a gradient on the trees becomes one on the scores.

    Attributes:
        trees: which trees there are.
        surrogate: the surrogate gradient.
        grad_factor: what the surrogate gradient is multiplied with.
    """

    trees: TreeKind
    surrogate: Surrogate
    grad_factor: float = 1.0

    def predict(self, scores: DocScores) -> tuple[np.ndarray, np.ndarray]:
        """The best trees of all segments, without gradient.

        Args:
            scores: the scores.

        Returns:
            for each token the position of its head (its own for the root) and the number of its label (-1
            for the root and for white space).
        """
        return self.joined(scores, self.best(scores))

    def best(self, scores: DocScores) -> list[Tensor]:
        """The best trees of all segments, without gradient.

        Args:
            scores: the scores.

        Returns:
            for each batch of segments heads ``[B, N]`` within them, 0 for the root.
        """
        return looked_at_once(lambda: self._best(scores))

    def _best(self, scores: DocScores) -> list[Tensor]:
        scores.require_finite()
        return [trees_of(part.batch, self.trees).best(part.arcs, part.lengths) for part in scores.scores]

    def joined(self, scores: DocScores, chosen: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Trees of segments as trees of the documents, with the best labels for their arcs.

        Args:
            scores: the scores.
            chosen: for each batch of segments heads ``[B, N]``.

        Returns:
            as ``predict``.
        """
        heads, labels = np.arange(scores.segments.size), np.full(scores.segments.size, -1)
        heads[scores.segments.spaces] = scores.segments.hosts
        decided = looked_at_once(lambda: [_labelled(*pair) for pair in zip(scores.scores, chosen)])
        for part, found in zip(scores.scores, on_cpu(decided)):
            of_part, label = found.numpy()
            words = part.batch.tokens[part.batch.is_word]
            heads[words] = head_positions(part.batch, of_part)[part.batch.is_word]
            labels[words] = label[part.batch.is_word]
        return join_trees(heads, scores.segments.inner), labels

    def decide(self, scores: DocScores) -> "TreeDecision":
        """Decide, and be ready for a gradient on the decision.

        Args:
            scores: scores made in training.

        Returns:
            the trees.
        """
        batches = looked_at_once(lambda: [self._decide(part, self.surrogate) for part in scores.scores])
        return TreeDecision(self, scores.segments, batches)

    def decide_softly(self, scores: DocScores, temperature: float = 1.0) -> "SoftTreeDecision":
        """The probabilities of all arcs, ready for a gradient: that of the marginals, which is exact.

        Args:
            scores: scores made in training.
            temperature: what they are divided by.

        Returns:
            the average tree.
        """
        exact = Marginals()
        batches = looked_at_once(lambda: [self._decide(part, exact, temperature) for part in scores.scores])
        return SoftTreeDecision(self, scores.segments, batches)

    def _decide(self, part: TreeScores, surrogate: Surrogate, temperature: float = 1.0) -> "_DecidedBatch":
        leaf = part.arcs.detach().requires_grad_()
        trees = trees_of(part.batch, self.trees)
        scores = leaf if temperature == 1 else leaf / temperature
        z = tree_argmax(scores, part.lengths, surrogate=surrogate, **asdict(trees))
        return _DecidedBatch(part, leaf, z)


def _labelled(part: TreeScores, heads: Tensor) -> Tensor:
    """``[2, B, N]``: heads, and the best label for each, -1 for a root's."""
    of_labels = require_finite(part.label_scores(heads), "the scores of labels")
    return torch.stack([heads, torch.where(heads > 0, of_labels.argmax(2), -1)])


def head_positions(batch: SegmentBatch, heads: np.ndarray) -> np.ndarray:
    """Heads within segments (0 = root) as token positions, a root's being its own.

    Args:
        batch: the segments.
        heads: ``[B, N]``.

    Returns:
        ``[B, N]``; padding is meaningless.
    """
    of_head = np.take_along_axis(batch.tokens, np.maximum(heads - 1, 0), axis=1)
    return np.where(heads > 0, of_head, batch.tokens)


@dataclass
class _DecidedBatch:
    """Trees ``z [B, N+1, N+1]``, a function of the detached arc scores ``leaf``, and the gradient so far."""

    scores: TreeScores
    leaf: Tensor
    z: Tensor
    gradient: Tensor | None = None

    def heads(self) -> Tensor:
        """``[B, N]`` token positions, -1 for the root."""
        heads = self.z.detach()[:, 1:].argmax(2)
        tokens = moved(torch.from_numpy(self.scores.batch.tokens), heads.device)
        return torch.where(heads > 0, tokens.gather(1, (heads - 1).clamp(min=0)), -1)

    def add(self, dependents: Tensor, heads: Tensor, *sides: Tensor) -> None:
        """Add ``dL/dz``, given as the factors of an ``ArcGradient``, ``[T+1, ...]`` of all tokens; the root
        has no vector and gets 0."""
        tokens = moved(torch.from_numpy(self.scores.batch.tokens), dependents.device)
        between_words = dependents[tokens] @ heads[tokens].transpose(1, 2)
        if sides:
            children, left, right = (rows[tokens] for rows in sides)
            between_words = between_words + (children @ left.transpose(1, 2)).triu(1)
            between_words = between_words + (children @ right.transpose(1, 2)).tril(-1)
        gradient = pad(between_words, (1, 0, 1, 0))
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


@dataclass
class TreeDecision:
    """The trees of a list of documents, and the gradients that came back on them."""

    decoder: TreeDecoder
    segments: SegmentedDocs
    batches: list[_DecidedBatch] = field(repr=False)

    def outputs(self, ops: Ops) -> list[Ints1d]:
        """For each document the heads of its tokens within it, -1 for the root."""
        size = self.segments.size
        device = self.batches[0].z.device if self.batches else torch.device("cpu")

        def here(positions: np.ndarray) -> Tensor:
            return moved(torch.from_numpy(positions), device)

        heads = torch.full((size + 1,), -1, device=device)  # the last place takes what is said of padding
        heads[here(self.segments.spaces)] = here(self.segments.hosts)
        for batch in self.batches:
            heads[here(batch.scores.batch.tokens)] = batch.heads()
        own = torch.arange(size, device=device)
        heads = torch.where(heads[:size] < 0, own, heads[:size])
        if len(self.segments.inner):
            heads = here(join_trees(heads.cpu().numpy(), self.segments.inner))
        starts = np.cumsum(self.segments.doc_lengths) - self.segments.doc_lengths
        start = here(np.repeat(starts, self.segments.doc_lengths))
        within = ops.asarray(torch2xp(torch.where(heads == own, -1, heads - start)))
        return self.segments.by_doc(within)

    def add(self, gradients: Sequence[ArcGradient]) -> None:
        """Take a gradient on the trees; those of several listeners add up.

        Args:
            gradients: one per document.
        """
        if not self.batches:
            return
        given = [factor for factor in zip(*gradients) if factor[0] is not None]
        factors = [flat_rows(factor) for factor in given]
        for batch in self.batches:
            batch.add(*factors)

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Arc scores and the surrogate gradient on them, for the model's backward pass."""
        factor = self.decoder.grad_factor
        if not gives_gradient(self.decoder.surrogate, factor):
            return []
        decided = [batch for batch in self.batches if batch.gradient is not None]
        surrogate = [torch.autograd.grad(batch.z, batch.leaf, batch.gradient)[0] for batch in decided]
        return [(batch.scores.arcs, factor * gradient) for batch, gradient in zip(decided, surrogate)]


@dataclass
class SoftTreeDecision(TreeDecision):
    """The average trees of a list of documents: ``z`` of a batch of segments holds probabilities.

    A word of which the trees, and not the segments, have to see that no sentence begins with it keeps the
    probability that it is a root of a segment's tree.
    """

    def outputs(self, ops: Ops) -> list[SoftTree]:
        """For each document its arcs with their probabilities."""
        pairs = WordPairs(self.segments)
        probs = pairs.probs([batch.z.detach() for batch in self.batches])
        return pairs.by_doc(ops, ops.asarray(torch2xp(probs)))


def flat_rows(rows: Sequence) -> Tensor:
    """Rows of all documents in one tensor ``[T+1, w]``, the last row 0 for padding."""
    filled = [xp2torch(part) for part in rows if part.shape[0]]
    return pad(torch.cat(filled), (0, 0, 0, 1))
