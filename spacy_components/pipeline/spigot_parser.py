"""A dependency parser that is trained by its treebank and, through its trees, by the components after it."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from spacy.attrs import DEP, HEAD
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab
from thinc.api import Config, Model
from torch.nn.functional import cross_entropy

import spacy_components.sdp_graph  # noqa: F401  (makes doc._.sdp known)
from diffdecode.moves import moved
from diffdecode.structure import TreeKind, looked_at_once
from spacy_components.confidence import annotations
from spacy_components.confidence.annotations import ARC_PROBS, HEAD_PROBS
from spacy_components.confidence.decided import Decided
from spacy_components.confidence.distribution import ScoredTree, TreeDistribution
from spacy_components.confidence.measures import measure
from spacy_components.confidence.temperature import TEMPERATURE, Tempered
from spacy_components.finetuning.drift import drift
from spacy_components.ml.listening.standalone import replaced_parse_listener
from spacy_components.ml.segments import split_rows
from spacy_components.ml.thinc_glue.finite import culprit_named, require_finite
from spacy_components.ml.thinc_glue.hash_embed_cnn import warn_of_unused_vectors
from spacy_components.ml.trees.decisions import TreeDecision, TreeDecoder
from spacy_components.ml.trees.losses import TREE_LOSSES, likelihood
from spacy_components.ml.trees.models import DocScores
from spacy_components.ml.trees.scorers import TreeScores
from spacy_components.ml.trees.sentences import trees_of
from spacy_components.pipeline.gold_trees import aligned_tree, counted_through, gold_heads, offsets
from spacy_components.pipeline.listened_pipe import ListenedPipe
from spacy_components.settings import SpigotParserSettings, as_config, takes_settings, values_of

ROOT = "ROOT"
UNLABELLED = "dep"
"""Label of the arcs of a parser that was trained without labels, and of white space."""
default_parser_config = """
[model]
@architectures = "diffdecode.BiaffineParser.v1"
hidden_width = 96
label_width = 32
max_distance = 16
between_width = 16
lstm_width = 0
lstm_depth = 0

[model.segmenter]
@misc = "diffdecode.lazy_segments.v1"
max_length = 192

[model.tok2vec]
@architectures = "diffdecode.HashEmbedCNN.v1"
vectors = null
width = 96
depth = 4
embed_size = 2000
window_size = 1
maxout_pieces = 3
subword_features = true
"""
DEFAULT_PARSER_MODEL = Config().from_str(default_parser_config)["model"]


@Language.factory(
    "spigot_parser",
    assigns=["token.dep", "token.head", "token.is_sent_start", "doc.sents"],
    default_config={
        "model": DEFAULT_PARSER_MODEL,
        **as_config(values_of(SpigotParserSettings())),
        "scorer": {"@scorers": "diffdecode.parse_scorer.v1"},
    },
    default_score_weights={
        "dep_uas": 0.5,
        "dep_las": 0.5,
        "dep_las_per_type": None,
        "sents_p": None,
        "sents_r": None,
        "sents_f": 0.0,
    },
)
@takes_settings(SpigotParserSettings)
def make_spigot_parser(
    nlp: Language, name: str, model: Model, scorer: Callable | None, **settings: Any
) -> "SpigotParser":
    """Make a parser.

    Args:
        nlp: the pipeline.
        name: the component's name.
        model: scores of arcs and labels.
        scorer: the scoring method.
        **settings: see ``SpigotParserSettings``.
    """
    return SpigotParser(nlp.vocab, model, name, SpigotParserSettings.made(name, settings), scorer=scorer)


class SpigotParser(Tempered, ListenedPipe):
    """Graph-based dependency parser. Components after it can read its trees through
    ``diffdecode.ParseListener.v1``, and their gradients tune it (SPIGOT; Peng, Thomson and Smith, 2018).
    """

    kind = "parse"

    settings: SpigotParserSettings

    def __init__(
        self,
        vocab: Vocab,
        model: Model[list[Doc], DocScores],
        name: str = "spigot_parser",
        settings: SpigotParserSettings = SpigotParserSettings(),  # noqa: B008 - it is frozen
        *,
        scorer: Callable | None = None,
    ) -> None:
        """Initialize a parser.

        Args:
            vocab: the shared vocabulary.
            model: scores of arcs and labels.
            name: the component's name.
            settings: how it decides and learns.
            scorer: the scoring method.
        """
        super().__init__(vocab, model, name, settings)
        self.scorer = scorer
        self.cfg: dict[str, Any] = {"labels": [], TEMPERATURE: 1.0}

    def apply_settings(self) -> None:
        """Do what the settings say, after they have changed."""
        settings = self.settings
        self.trees = TreeKind(projective=settings.projective, multi_root=settings.multi_root)
        self.decoder = TreeDecoder(self.trees, settings.surrogate, settings.grad_factor)
        self.loss = TREE_LOSSES[settings.loss]
        self.model.attrs.update(replaced_parse_listener(settings))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of arcs between words; a root's is always ``ROOT``."""
        return tuple(self.cfg["labels"])

    @property
    def label_data(self) -> tuple[str, ...]:
        """What ``initialize`` takes as ``labels``."""
        return self.labels

    def add_label(self, label: str) -> int:
        """Add a label, before the component is initialized.

        Args:
            label: the label.

        Returns:
            0 if it was there already, else 1.
        """
        if label in self.labels:
            return 0
        if self.model.shims[0].module is not None:
            raise ValueError(
                f"'{self.name}' is initialized with {len(self.labels)} labels and cannot take more"
            )
        self.cfg["labels"].append(label)
        self.vocab.strings.add(label)
        return 1

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Build the model for the labels of the training data.

        Without any parse in the data the arcs stay unlabelled: the trees are then learned from the
        components downstream alone.

        Args:
            get_examples: a function that returns a sample of examples.
            nlp: the pipeline.
            labels: the labels, instead of those of the examples.

        Raises:
            ValueError: no examples, or nothing to learn from: no trees, and no component downstream.
        """
        docs = self.some_docs(get_examples, nlp)
        if labels is None:
            self._require_something_to_learn(get_examples, len(docs))
        warn_of_unused_vectors(nlp)
        found = self._labels_of(get_examples()) if labels is None else labels
        if "pretrained_labels" in self.model.attrs:
            self._take_labels(self.model.attrs["pretrained_labels"](self.model), found)
        else:
            for label in found:
                self.add_label(label)
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", max(1, len(self.labels)))
        self.model.initialize(X=docs)
        self.temperature = 1.0
        self.begin_training()
        self.require_place(nlp)

    def _take_labels(self, known: Sequence[str], wanted: Iterable[str]) -> None:
        """The labels of a pretrained model, which are fixed."""
        self.cfg["labels"] = list(known)
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            warnings.warn(
                f"'{self.name}' is pretrained with {len(known)} labels, and will not learn these others of "
                f"the training data: {', '.join(unknown)}",
                stacklevel=3,
            )

    def _labels_of(self, examples: Iterable[Example]) -> list[str]:
        found = {
            token.dep_
            for example in examples
            for token in example.reference
            if token.has_dep() and token.head.i != token.i
        }
        return sorted(found - {""})

    def _require_something_to_learn(self, get_examples: Callable, count: int) -> None:
        """Raises ValueError otherwise; one document is what ``nlp.initialize()`` makes up if it has none."""
        if count == 1 or self.listeners or "pretrained_labels" in self.model.attrs:
            return
        if not any(example.reference.has_annotation("DEP") for example in get_examples()):
            raise ValueError(
                f"'{self.name}': no example has a dependency tree, and no component listens to it: "
                "there is nothing to learn from. Is it the right corpus, and read with its trees?"
            )

    # Prediction

    def predict(self, docs: Iterable[Doc]) -> Decided:
        """Parse documents without changing them.

        Args:
            docs: the documents.

        Returns:
            For each document ``[n, 2]``: the position of each token's head (its own for a root), and its
            label's number (-1 for a root and for white space).
        """
        scores = self.model.predict(list(docs))
        with culprit_named(self.name, self.model):
            chosen = self.decoder.best(scores)
            heads, labels = self.decoder.joined(scores, chosen)
        measured = measure(self._written, scores, self.trees, chosen, self.temperature)
        within = heads - np.repeat(offsets(scores.segments.doc_lengths), scores.segments.doc_lengths)
        return Decided(scores.segments.by_doc(np.stack([within, labels], axis=1)), measured)

    def set_annotations(self, docs: Iterable[Doc], parses: Sequence[np.ndarray]) -> None:
        """Write heads, labels and, by the roots, sentence boundaries; and the confidence that was measured.

        Args:
            docs: the documents.
            parses: what ``predict`` returned.
        """
        docs = list(docs)
        add = self.vocab.strings.add
        hashes = np.array([add(name) for name in self._label_names], dtype=np.uint64)
        lengths = [len(doc) for doc in docs]
        heads, labels = np.concatenate([np.zeros((0, 2), dtype=np.int64), *parses]).T
        relative = heads - (np.arange(len(heads)) - np.repeat(offsets(lengths), lengths))
        rows = np.stack([relative.astype(np.uint64), hashes[_label_places(relative, labels)]], axis=1)
        for doc, of_doc in zip(docs, split_rows(rows, lengths)):
            if len(doc):
                doc.from_array([HEAD, DEP], of_doc)
        annotations.write(docs, getattr(parses, "confidence", {}))

    @property
    def _written(self) -> set[str]:
        """What is written on a document beside its tree: what the settings say, and what listeners read."""
        heard = {ARC_PROBS for listener in self.listeners if listener.attrs["mailbox"].soft}
        return {*self.settings.confidence, *heard}

    @property
    def _label_names(self) -> list[str]:
        return [*(self.labels or [UNLABELLED]), UNLABELLED, ROOT]

    # Confidence

    def k_best(self, doc: Doc, k: int = 10) -> list[ScoredTree]:
        """The likeliest trees of a document, likeliest first; the first is what the parser predicts.

        As in prediction, sentence starts that the document has already, by its parse or otherwise, are kept.
        If some tokens only are forbidden to begin a sentence, a tree can come from several decisions: the
        trees are then in the order of the likeliest decision for each.

        Args:
            doc: the document; it is not changed.
            k: how many trees; fewer come where there are no more.

        Returns:
            the trees, without two that are the same.

        Raises:
            ValueError: ``k`` below 1.
        """
        return [self._scored(*tree) for tree in self._distribution(doc).k_best(k)]

    def sample(self, doc: Doc, n: int = 1, *, generator: torch.Generator | None = None) -> list[ScoredTree]:
        """Independent samples from the parser's distribution over the trees of a document.

        Args:
            doc: the document; it is not changed, and sentence starts that it has are kept.
            n: how many.
            generator: of the random numbers, on the CPU; by default torch's own.

        Returns:
            the samples.

        Raises:
            ValueError: ``n`` below 1.
        """
        return [self._scored(*tree) for tree in self._distribution(doc).sample(n, generator)]

    def log_prob(self, doc: Doc, heads: Sequence[int] | None = None) -> float:
        """The natural logarithm of the probability that the parser gives to a tree's heads.

        Args:
            doc: the document. Sentence starts that it has are kept: of a parsed document this is the
                probability given its sentences; for that among all trees take a document without a parse.
            heads: for each token the position of its head, a root's being its own; by default those of the
                document. White space is not looked at.

        Returns:
            the logarithm; -inf for a tree that the parser cannot give, such as one with crossing arcs.

        Raises:
            ValueError: no heads and no parse, or heads that are not positions in the document.
        """
        if heads is None:
            if not doc.has_annotation("DEP"):
                raise ValueError(f"{doc.text!r:.60} has no dependency parse; say which heads you mean")
            heads = [token.head.i for token in doc]
        if len(heads) != len(doc) or not all(0 <= head < len(doc) for head in heads):
            raise ValueError(f"expected {len(doc)} heads from 0 to {len(doc) - 1}, got {list(heads)!r:.60}")
        return self._distribution(doc).log_prob(np.asarray(heads, dtype=np.int64))

    annotation: ClassVar[dict[str, Any]] = {"tree": True}
    """What readers have to read for the two methods below."""

    def verdicts(self, examples: Sequence[Example], scores: DocScores) -> tuple[np.ndarray, np.ndarray]:
        """How sure the parser is of each head that it decides on, and whether it is right.

        Args:
            examples: the examples; tokens without annotation, and white space, are left out.
            scores: the scores of their predicted documents.

        Returns:
            probabilities ``[n]``, and bool ``[n]``.
        """
        chosen = self.decoder.best(scores)
        heads, _ = self.decoder.joined(scores, chosen)
        probs = measure([HEAD_PROBS], scores, self.trees, chosen, self.temperature)[HEAD_PROBS]
        gold = counted_through([aligned_tree(example, projective=False)[0] for example in examples])
        counts = gold >= 0
        counts[scores.segments.spaces] = False
        return np.concatenate(probs)[counts], (heads == gold)[counts]

    def surprise(self, examples: Sequence[Example], scores: DocScores) -> Callable[[float], float]:
        """The negative log-likelihood of annotated trees, in nats, as a function of the temperature.

        Args:
            examples: the examples; what is not annotated is summed out.
            scores: the scores of their predicted documents.
        """
        trees = [aligned_tree(example, self.trees.projective) for example in examples]
        annotated = list(self._annotated(trees, scores))

        def at(temperature: float) -> float:
            losses = (self._surprise_of(part, gold, temperature) for part, gold in annotated)
            return float(sum(losses))

        return at

    def _surprise_of(self, part: TreeScores, gold: np.ndarray, temperature: float) -> torch.Tensor:
        heads = torch.from_numpy(gold).to(part.arcs.device)
        arcs = part.arcs.detach().double() / temperature
        return likelihood(arcs, part.lengths, heads, trees_of(part.batch, self.trees))

    def _distribution(self, doc: Doc) -> TreeDistribution:
        scores = self.model.predict([doc])
        with culprit_named(self.name, self.model):
            scores.require_finite()
        return TreeDistribution(self.decoder, scores, self.temperature)

    def _scored(self, heads: np.ndarray, labels: np.ndarray, log_prob: float) -> ScoredTree:
        names = self._label_names
        deps = [names[place] for place in _label_places(heads - np.arange(len(heads)), labels)]
        return ScoredTree(heads.tolist(), deps, log_prob)

    # Training

    def distance(self, kind: str, now: TreeScores, original: TreeScores) -> torch.Tensor:
        """How far the scores of a batch of segments are from what they were; see ``finetuning.drift``."""
        return drift(kind, now, original, trees_of(now.batch, self.trees))

    def decide(self, scores: DocScores) -> TreeDecision:
        """The trees for the listeners.

        Args:
            scores: the scores.

        Returns:
            the trees.
        """
        return self.decoder.decide(scores)

    def decide_as(self, soft: bool, scores: DocScores) -> TreeDecision:
        """What a listener is given: the trees, or if it is ``soft`` the probabilities of all arcs.

        Args:
            soft: which of the two.
            scores: the scores.
        """
        return self.decoder.decide_softly(scores, self.temperature) if soft else self.decide(scores)

    def get_loss(self, examples: Sequence[Example], scores: DocScores) -> tuple[float, list]:
        """The loss of the trees plus the cross-entropy of the labels of gold arcs, summed over the words.

        Args:
            examples: the examples; words without annotation add nothing.
            scores: the scores.

        Returns:
            the loss, and what the model's backward pass takes.
        """
        if not scores.scores or not any(example.reference.has_annotation("DEP") for example in examples):
            return 0.0, []
        total = looked_at_once(lambda: self._summed_loss(examples, scores))
        return (0.0, []) if total is None else (float(total.detach()), [(total, None)])

    def _summed_loss(self, examples: Sequence[Example], scores: DocScores) -> torch.Tensor | None:
        trees = [aligned_tree(example, self.trees.projective) for example in examples]
        labels = self._gold_labels(trees)
        losses = [self._loss_of(*annotated, labels) for annotated in self._annotated(trees, scores)]
        return require_finite(torch.stack(losses).sum(), "the loss") if losses else None

    def _annotated(
        self, trees: Sequence[tuple[np.ndarray, np.ndarray]], scores: DocScores
    ) -> Iterator[tuple[TreeScores, np.ndarray]]:
        """Batches of segments in which something is annotated, with their gold heads ``[B, N]``."""
        heads = counted_through([heads for heads, _ in trees])
        for part in scores.scores:
            gold = gold_heads(part.batch, heads, trees_of(part.batch, self.trees).multi_root)
            if (gold >= 0).any():
                yield part, gold

    def _gold_labels(self, trees: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Labels' numbers of all tokens; -1 = unknown."""
        heads = counted_through([heads for heads, _ in trees])
        values, place = np.unique(np.concatenate([labels for _, labels in trees]), return_inverse=True)
        number = {self.vocab.strings[label]: i for i, label in enumerate(self.labels)}
        labels = np.array([number.get(int(value), -1) for value in values])[place]
        roots = heads == np.arange(len(heads))
        labels[roots] = number.get(self.vocab.strings["root"], -1)  # a pretrained parser may label them, too
        return labels

    def _loss_of(self, part: TreeScores, gold: np.ndarray, labels: np.ndarray) -> torch.Tensor:
        device = part.arcs.device
        annotated = np.flatnonzero((gold >= 0).any(1))
        arcs, lengths, heads = part.arcs, part.batch.lengths, gold
        if len(annotated) < len(gold):
            arcs = arcs[moved(torch.from_numpy(annotated), device)]
            lengths, heads = lengths[annotated], heads[annotated]
        given = torch.from_numpy(lengths), torch.from_numpy(heads)  # looked at on the CPU, without a wait
        loss = self.loss(arcs, *given, trees_of(part.batch, self.trees))
        label = np.where(gold >= 0, labels[np.minimum(part.batch.tokens, len(labels) - 1)], -1)
        if (label >= 0).any():
            predicted = part.label_scores(moved(torch.from_numpy(gold), device)).flatten(0, 1)
            target = moved(torch.from_numpy(label), device).flatten()
            loss = loss + cross_entropy(predicted, target, ignore_index=-1, reduction="sum")
        return loss


def _label_places(relative: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``[n]``: where in ``_label_names`` each token's label is, by how far its head is from it."""
    return np.where(relative == 0, -1, np.where(labels < 0, -2, labels))
