"""Several corpora as one, with a fresh random share of each in every epoch.

Peng et al. (2018), section 4.2.1, train a parser and a classifier together on their union and draw 20 % of
the parser's sentences anew each epoch::

    [corpora.train]
    @readers = "diffdecode.MixedCorpus.v1"
    fractions = {"graphs": 0.2, "reviews": 1.0}

    [corpora.train.corpora]

    [corpora.train.corpora.graphs]
    @readers = "diffdecode.Sdp2015.v1"
    path = "train.sdp"

    [corpora.train.corpora.reviews]
    @readers = "diffdecode.LabelledText.v1"
    path = "train.tsv"

    [training]
    max_epochs = -1

spaCy reads the corpus once for each epoch only with ``max_epochs = -1``; with any other value it reads it
once for all epochs, which here is an error. But with -1 it initialises components on the first 100 examples
of the corpus alone. So every draw contains at least one example of each label, and until a first epoch is
through, a small set of examples with all labels comes first: as few as can be found, and a warning if those
are still too many.
"""

from __future__ import annotations

import heapq
import random
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from spacy import registry
from spacy.language import Language
from spacy.training import Example

from spacy_components.sdp_graph import get_graph, graph_keys
from spacy_components.training.corpus import Reader

NAME = "diffdecode.MixedCorpus.v1"
LOOKED_AT = 100
"""Examples of a streamed corpus that spaCy initialises components on."""


@registry.readers(NAME)
def create_mixed_corpus(corpora: dict[str, Any], fractions: dict[str, float], seed: int = 0) -> Reader:
    """Mixes readers by name; see ``MixedCorpus``.

    (``corpora`` is annotated loosely because spaCy checks types before it has made the readers inside of it.)
    """
    return MixedCorpus(corpora, fractions, seed)


class MixedCorpus:
    """A union of corpora, redrawn and shuffled each time that it is read.

    Args:
        corpora: a reader per name. fractions (dict): for each name, how often an epoch has the corpus:
            0.2 is a random fifth of it, 2.5 is all of it twice and a random half. seed (int): of the
            draws.

    Raises:
        ValueError: the two do not have the same names or a fraction is negative.
    """

    def __init__(self, corpora: dict[str, Reader], fractions: dict[str, float], seed: int = 0):
        if set(corpora) != set(fractions) or not corpora:
            raise ValueError(
                f"corpora {sorted(corpora)} and fractions {sorted(fractions)} need the same names"
            )
        for name, fraction in fractions.items():
            if not 0 <= fraction < float("inf"):
                raise ValueError(f"the fraction of corpus '{name}' is {fraction}, expected 0 or more")
        self.corpora = corpora
        self.fractions = fractions
        self.random = random.Random(seed)
        self.epochs_read = 0
        self._examples: dict[str, list[Example]] = {}
        self._vocab = None

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Yields the examples of one epoch. Raises ValueError where spaCy would not ask for a second one."""
        self._check_streamed(nlp)
        self._read(nlp)
        drawn, covering = self._draw()
        epoch = [*covering, *drawn]
        if self.epochs_read:
            self.random.shuffle(epoch)
        yield from epoch
        self.epochs_read += 1

    def _draw(self) -> tuple[list[Example], list[Example]]:
        """One epoch in random order, and apart from it a set of examples with all labels of all corpora."""
        drawn, covering, labels = [], [], set()
        split = split_by_new_labels if self.epochs_read else split_off_few_with_all_labels
        for name, examples in self._examples.items():
            if not self.fractions[name]:
                continue
            order = self.random.sample(examples, len(examples))
            first, rest = split(order, labels)
            covering += first
            drawn += take([*first, *rest], self.fractions[name])[len(first) :]
        self.random.shuffle(drawn)
        if not self.epochs_read and len(covering) > LOOKED_AT:
            warnings.warn(
                f"[D006] It takes {len(covering)} examples to show all labels of "
                f"{', '.join(self._examples)}, and spaCy initialises components on the first {LOOKED_AT}: "
                "some labels will be unknown. Give them to the components (python -m spacy init labels; "
                "[initialize.components.NAME.labels])",
                stacklevel=2,
            )
        return drawn, covering

    def _read(self, nlp: Language) -> None:
        """Reads the corpora once per vocabulary: training works on copies of the predicted documents."""
        if self._vocab is nlp.vocab:
            return
        self._examples = {name: list(reader(nlp)) for name, reader in self.corpora.items()}
        self._vocab = nlp.vocab
        for name, examples in self._examples.items():
            if not examples:
                raise ValueError(f"corpus '{name}' of {NAME} has no examples")

    @staticmethod
    def _check_streamed(nlp: Language) -> None:
        reader = nlp.config.get("corpora", {}).get("train", {})
        max_epochs = nlp.config.get("training", {}).get("max_epochs", -1)
        if isinstance(reader, dict) and reader.get("@readers") == NAME and max_epochs != -1:
            raise ValueError(
                f"{NAME} draws anew in every epoch, but with max_epochs = {max_epochs} spaCy reads "
                "it once. Set max_epochs = -1 and limit the training with max_steps or patience."
            )


def take(examples: list[Example], fraction: float) -> list[Example]:
    """The list repeated as often as ``fraction`` says, then its beginning for the rest (never nothing)."""
    whole = int(fraction)
    rest = round((fraction - whole) * len(examples))
    return examples * whole + examples[: rest if whole else max(rest, 1)]


def split_by_new_labels(
    examples: Iterable[Example], seen: set[tuple[str, str]]
) -> tuple[list[Example], list[Example]]:
    """Examples that show a label for the first time, and the others; adds the labels to ``seen``."""
    first, rest = [], []
    for example in examples:
        new = labels_of(example) - seen
        seen |= new
        (first if new else rest).append(example)
    return first, rest


def split_off_few_with_all_labels(
    examples: Iterable[Example], seen: set[tuple[str, str]]
) -> tuple[list[Example], list[Example]]:
    """As :func:`split_by_new_labels`, with few examples: each time the one with most new labels."""
    examples = list(examples)
    labels = [labels_of(example) for example in examples]
    most = [(-len(found), i) for i, found in enumerate(labels)]
    heapq.heapify(most)
    chosen: dict[int, Example] = {}
    while most:
        _, i = heapq.heappop(most)
        new = len(labels[i] - seen)
        if most and -new > most[0][0]:
            heapq.heappush(most, (-new, i))
        elif new:
            chosen[i] = examples[i]
            seen |= labels[i]
    return list(chosen.values()), [one for i, one in enumerate(examples) if i not in chosen]


def labels_of(example: Example) -> set[tuple[str, str]]:
    """What a component could take from the reference as a label, with the kind of annotation.

    Not the morphology: its combinations are too many to show in a hundred examples (``spacy init labels``).
    """
    doc = example.reference
    labels = {("dep", token.dep_) for token in doc} | {("tag", token.tag_) for token in doc}
    labels |= {("ent", ent.label_) for ent in doc.ents} | {("cat", name) for name in doc.cats}
    labels |= {(f"spans {key}", span.label_) for key, spans in doc.spans.items() for span in spans}
    for key in graph_keys(doc):
        labels |= {(key, arc.label) for arc in get_graph(doc, key).arcs}
    return {(kind, label) for kind, label in labels if label}
