"""A generated language for ``--quick``, in which tags can teach a parser what its treebank lacks.

Nouns and modifiers take turns; a modifier belongs to the noun on its left or on its right, always the same
side for the same modifier, and nothing but a treebank or the tags can tell which. The treebank shows half
of the modifiers. A modifier's tag is the class of its noun.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

CLASSES = {"hot": ("sana", "suno", "sile", "sora"), "cold": ("tana", "tuno", "tile", "tora")}
MODIFIERS = tuple(f"{first}{second}m" for first in "bdgklp" for second in "aeio")
SHOWN = MODIFIERS[::2]
NOUNS = 4
NOUN = "noun"


class Generated(NamedTuple):
    """Words with a tag each, and with heads, of which a root's is its own position, and relations."""

    words: list[str]
    tags: list[str]
    heads: list[int]
    relations: list[str]


def belongs_left(modifier: str) -> bool:
    """Whether the noun of a modifier is the one before it. The sum of two letters' numbers decides."""
    return (MODIFIERS.index(modifier) // 2 + MODIFIERS.index(modifier) // 4) % 2 == 0


def generate(draw: random.Random, modifiers: tuple[str, ...] = MODIFIERS) -> Generated:
    """A sentence: each noun belongs to the one before, and the first is the root.

    Args:
        draw: the random numbers.
        modifiers: those that may occur.
    """
    nouns = [draw.choice(sorted(CLASSES)) for _ in range(NOUNS)]
    words, tags, heads = [draw.choice(CLASSES[nouns[0]])], [NOUN], [0]
    for before, after in pairwise(nouns):
        modifier, place = draw.choice(modifiers), len(words)
        left = belongs_left(modifier)
        words += [modifier, draw.choice(CLASSES[after])]
        tags += [before if left else after, NOUN]
        heads += [place - 1 if left else place + 1, place - 1]
    relations = ["ROOT", *(NOUN if tag == NOUN else "mod" for tag in tags[1:])]
    return Generated(words, tags, heads, relations)
