"""A made-up language in which a tag depends on the two tags before it, so that searching for tags matters.

There are 12 tags and 30 word forms. After every pair of tags a few tags are likely and most are not; every
form is used with several tags, so that no word says what its tag is. The best tag at one position thus
depends on choices made earlier, and choices that look good one by one lead to sequences that are unlikely as
a whole: greedy decoding makes search errors that a beam repairs.
"""

import math
import random
from collections.abc import Iterable
from pathlib import Path

from diffdecode.files.atomic import write_text

Sentence = tuple[list[str], list[str]]
"""Words and tags."""

TAGS = [f"T{number:02d}" for number in range(12)]
FORMS = [first + second for first in "bdgklm" for second in "aeiou"]
LENGTHS = range(6, 15)
# Standard deviations of the log-weights: larger is a more predictable language.
TAG_CONTRAST, FORM_CONTRAST = 2.5, 1.5
LANGUAGE_SEED = 7


class Language:
    """Weights of the tags after each pair of tags and of the forms of each tag, fixed by *seed*."""

    def __init__(self, seed: int = LANGUAGE_SEED):
        rng = random.Random(seed)

        def weights(choices, contrast):
            return [math.exp(contrast * rng.gauss(0, 1)) for _ in choices]

        self.next_tag = {(a, b): weights(TAGS, TAG_CONTRAST) for a in TAGS for b in TAGS}
        self.forms = {tag: weights(FORMS, FORM_CONTRAST) for tag in TAGS}

    def sentence(self, rng: random.Random) -> Sentence:
        """One sentence, ``(words, tags)``, drawn with the :class:`random.Random` *rng*."""
        before, last = TAGS[0], TAGS[0]
        tags = []
        for _ in range(rng.choice(LENGTHS)):
            before, last = last, rng.choices(TAGS, self.next_tag[before, last])[0]
            tags.append(last)
        return [rng.choices(FORMS, self.forms[tag])[0] for tag in tags], tags


def corpus(sentences: int, seed: int, spans: bool = False) -> list[Sentence]:
    """*sentences* sentences as a list of ``(words, tags)``; the same for the same *seed*.

    With *spans*, the tags are those of entities: half of the language's tags are outside, the others make two
    types.
    """
    language, rng = Language(), random.Random(seed)
    drawn = [language.sentence(rng) for _ in range(sentences)]
    return [(words, as_spans(tags)) for words, tags in drawn] if spans else drawn


def as_spans(tags: list[str]) -> list[str]:
    """BIO tags: neighbours of one type are one span."""
    types = ["O", "O", "X", "Y"]
    found = [types[TAGS.index(tag) % 4] for tag in tags]
    before = ["O", *found]
    return [
        kind if kind == "O" else f"{'I' if kind == last else 'B'}-{kind}" for last, kind in zip(before, found)
    ]


def write_columns(sentences: Iterable[Sentence], path: Path) -> None:
    """Write sentences as two tab-separated columns, with a blank line after each sentence."""
    lines = ["".join(f"{word}\t{tag}\n" for word, tag in zip(*pair)) for pair in sentences]
    write_text(path, "\n".join(lines))
