"""A toy language with free word order, in which only the parse tells what a sentence says.

Nouns and adjectives agree in their ending, as in Latin, and stand in any order::

    bonoth casara vidit librum altara latum urboth

Each sentence has one opinion (here ``bon-``, good). The class says whether it is praise or blame of the book
(``libr-``), or about something else: then the adjective agrees with another noun (``urb-``, the city). Words
alone cannot tell, and neither can their neighbours.

The treebank has trees but no classes, and only half of the endings. The reviews have classes but no trees,
and all endings. So what a parser does not learn from the treebank, it can learn from the reviews.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_components.sdp_graph import set_graph

TOPIC = "libr"
NOUNS = ("cas", "urb", "ros", "naut", "silv", "port")
OPINIONS = {"praise": ("bon", "dulc", "felic"), "blame": ("mal", "turp", "vil")}
NEUTRAL = ("alt", "grand", "human", "immens")
VERBS = ("quaerit", "optat", "expectat")
ENDINGS = ("ara", "sum", "oth", "ile", "enx", "uro", "yst", "abo", "imp", "ent", "olk", "urd")
KNOWN_ENDINGS = ENDINGS[:6]
PHRASES = 3
OTHER = "other"


def sentence(draw: random.Random, endings: tuple[str, ...] = ENDINGS) -> tuple[list[str], list[int], str]:
    """Words, head positions (the verb's own: it is the root) and the class."""
    polarity = draw.choice(sorted(OPINIONS))
    about_topic = draw.random() < 0.5
    target = 0 if about_topic else draw.randrange(1, PHRASES)
    adjectives = draw.sample(NEUTRAL, PHRASES)
    adjectives[target] = draw.choice(OPINIONS[polarity])
    tokens = [(draw.choice(VERBS), None)]
    nouns = [TOPIC, *draw.sample(NOUNS, PHRASES - 1)]
    for noun, adjective, ending in zip(nouns, adjectives, draw.sample(endings, PHRASES)):
        head = (noun + ending, tokens[0])
        tokens += [head, (adjective + ending, head)]
    order = draw.sample(tokens, len(tokens))
    heads = [order.index(head) if head else i for i, (_, head) in enumerate(order)]
    return [word for word, _ in order], heads, polarity if about_topic else OTHER


def corpus(
    vocab: Vocab, size: int, seed: int, *, trees: bool, classes: bool, endings: tuple[str, ...] = ENDINGS
) -> Iterator[Doc]:
    """Yields documents of one sentence with the annotations that are asked for."""
    draw = random.Random(seed)
    for _ in range(size):
        words, heads, label = sentence(draw, endings)
        doc = Doc(vocab, words=words, **(_tree(heads) if trees else {}))
        if classes:
            doc.cats = {name: float(name == label) for name in (*OPINIONS, OTHER)}
        yield doc


def with_graph(tree: Doc, key: str, far: bool = False) -> Doc:
    """The words of a tree with a graph instead: the tree's arcs and, if ``far``, those to grandparents.

    Args:
        tree: of the corpus.
        key: of the graph, ``doc._.KEY``.
        far: whether there are such.
    """
    doc = Doc(tree.vocab, words=[token.text for token in tree])
    arcs = [(token.head.i, token.i, token.dep_) for token in tree if token.head != token]
    if far:
        arcs += [(t.head.head.i, t.i, "far") for t in tree if len({t, t.head, t.head.head}) == 3]
    set_graph(doc, arcs, [token.i for token in tree if token.head == token], key)
    return doc


def _tree(heads: list[int]) -> dict[str, list]:
    root = next(i for i, head in enumerate(heads) if head == i)
    relations = ["ROOT" if i == root else "arg" if head == root else "amod" for i, head in enumerate(heads)]
    return {"heads": heads, "deps": relations}
