"""The data: trees of UD English EWT, and CCG categories of other sentences of it; or a generated language."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from diffdecode.files.atomic import atomic_folder, write_bytes, write_text
from diffdecode.files.text import Block, FormatError, blocks
from examples._shared.data import file_in
from examples.papers.teach_parser.generated import SHOWN, Generated, generate
from spacy_components.training.formats import read_conllu

TREEBANK, CATEGORIES = "ud_english_ewt/en_ewt-ud-{}.conllu.gz", "ccg_ewt/{}.tsv.gz"
IDS = "ccg_ewt/{}.ids.gz"
LONGEST = 60
"""Longer sentences are not trained on."""
RARE = 5
"""A category of fewer training words is not learned; on dev it counts as every other."""
GENERATED_DEV = 200


class Sentence(NamedTuple):
    """Words with tags or with a tree, of which ``heads`` has a root's own position."""

    name: str
    words: list[str]
    tags: list[str] | None = None
    heads: list[int] | None = None
    relations: list[str] | None = None
    pos: list[str] | None = None


@dataclass(frozen=True)
class Draw:
    """What is drawn: how many trees, how many tagged sentences of others, and the seed.

    Attributes:
        data: the folder with the data; None for the generated language.
        trees: sentences with a tree.
        sentences: sentences with tags.
        seed: of the draw.
    """

    data: Path | None
    trees: int
    sentences: int
    seed: int

    def write(self, folder: Path) -> None:
        """Make ``folder`` with ``trees.spacy``, ``tags.spacy`` and ``aside.spacy``, if it is not there.

        ``aside`` has tags of training sentences that are not drawn, a tenth as many as those that are.

        Raises:
            FileNotFoundError: there is no such data.
            ValueError: it is damaged, or there are not so many sentences.
        """
        if folder.exists():
            return
        trees, tagged = (self._generated if self.data is None else self._real)()
        aside = max(self.sentences // 10, 1)
        if len(trees) < self.trees or len(tagged) < self.sentences + aside:
            raise ValueError(
                f"there are {len(trees):,} trees and {len(tagged):,} tagged sentences of at most {LONGEST} "
                f"words: too few for {self.trees:,} and {self.sentences:,} + {aside:,}"
            )
        parts = {"trees": trees[: self.trees], "tags": _without_rare(tagged[: self.sentences])}
        parts["aside"] = tagged[self.sentences :][:aside]
        with _made(folder) as made:
            for name, sentences in parts.items():
                _save(made / f"{name}.spacy", sentences)

    def _real(self) -> tuple[list[Sentence], list[Sentence]]:
        draw = random.Random(self.seed)
        named = dict(_named(file_in(self.data, TREEBANK.format("train"))))
        names = draw.sample(sorted(named), min(len(named), self.trees + self.trees // 10 + 10))
        drawn = _short(_trees([named[name] for name in names]))[: self.trees]
        taken = {tree.name for tree in drawn}
        tagged = [each for each in _categories(self.data, "train") if each.name not in taken]
        draw.shuffle(tagged)
        return drawn, _short(tagged)

    def _generated(self) -> tuple[list[Sentence], list[Sentence]]:
        draw = random.Random(self.seed)
        trees = [_with_tree(generate(draw, SHOWN)) for _ in range(self.trees)]
        number = self.sentences + max(self.sentences // 10, 1)
        return trees, [_with_tags(generate(draw)) for _ in range(number)]


def write_dev(data: Path | None, folder: Path) -> None:
    """Make ``folder`` with ``trees.spacy`` and ``tags.spacy`` of all dev sentences, if it is not there.

    Args:
        data: the folder with the data; None for the generated language.
        folder: to be made.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: it is damaged.
    """
    if folder.exists():
        return
    if data is None:
        draw = random.Random("dev")
        sentences = [generate(draw) for _ in range(GENERATED_DEV)]
        trees, tagged = [_with_tree(each) for each in sentences], map(_with_tags, sentences)
    else:
        trees = _trees([block for _, block in _named(file_in(data, TREEBANK.format("dev")))])
        tagged = _categories(data, "dev")
    with _made(folder) as made:
        _save(made / "trees.spacy", trees)
        _save(made / "tags.spacy", tagged)


def write_given(path: Path, target: Path) -> None:
    """Sentences of a column file, ``word<TAB>category``, as a .spacy file; ValueError for another."""
    _save(target, [_tagged(path, block) for block in blocks(path)])


def words_in(path: Path) -> int:
    """How many words the documents of a .spacy file have."""
    return sum(map(len, DocBin().from_disk(path).get_docs(Vocab())))


def _short(sentences: list[Sentence]) -> list[Sentence]:
    return [each for each in sentences if len(each.words) <= LONGEST]


def _without_rare(sentences: list[Sentence]) -> list[Sentence]:
    """An empty tag is one that spaCy does not learn from."""
    counts = Counter(tag for each in sentences for tag in each.tags or ())
    return [
        each._replace(tags=[tag if counts[tag] >= RARE else "" for tag in each.tags or ()])
        for each in sentences
    ]


def _named(path: Path) -> Iterator[tuple[str, Block]]:
    """The sentences of a treebank by their names, as text."""
    for block in blocks(path):
        names = [line.partition("=")[2].strip() for line in block.lines if line.startswith("# sent_id")]
        if not names:
            raise FormatError(path, block.start, "a sentence without # sent_id")
        yield names[0], block


def _trees(sentences: list[Block]) -> list[Sentence]:
    """Trees, without the subtypes of relations: few trees show few of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trees.conllu"
        write_text(path, "".join("\n".join([*block.lines, "", ""]) for block in sentences))
        docs = list(read_conllu(path, Vocab()))
        names = [name for name, _ in _named(path)]
    return [
        Sentence(
            name,
            [word.text for word in doc],
            heads=[word.head.i for word in doc],
            relations=[word.dep_.partition(":")[0] for word in doc],
            pos=[word.pos_ for word in doc],
        )
        for name, doc in zip(names, docs, strict=True)
    ]


def _categories(data: Path, split: str) -> Iterator[Sentence]:
    path, ids = file_in(data, CATEGORIES.format(split)), file_in(data, IDS.format(split))
    names = [line for block in blocks(ids) for line in block.lines]
    sentences = list(blocks(path))
    if len(names) != len(sentences):
        raise FormatError(ids, None, f"{len(names):,} names for {len(sentences):,} sentences")
    for name, block in zip(names, sentences):
        yield _tagged(path, block, name)


def _tagged(path: Path, block: Block, name: str = "") -> Sentence:
    rows = [line.split("\t") for line in block.lines]
    for number, row in enumerate(rows, block.start):
        if len(row) != 2 or not all(row):
            raise FormatError(path, number, "expected word<TAB>category")
    return Sentence(name, [word for word, _ in rows], tags=[tag for _, tag in rows])


def _with_tree(sentence: Generated) -> Sentence:
    return Sentence("", sentence.words, heads=sentence.heads, relations=sentence.relations)


def _with_tags(sentence: Generated) -> Sentence:
    return Sentence("", sentence.words, tags=sentence.tags)


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as made:
        yield made


def _save(path: Path, sentences: Iterable[Sentence]) -> None:
    vocab = Vocab()
    docs = [
        Doc(vocab, each.words, tags=each.tags, heads=each.heads, deps=each.relations, pos=each.pos)
        for each in sentences
    ]
    write_bytes(path, DocBin(docs=docs).to_bytes())
