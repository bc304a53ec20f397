"""Corpus readers for ``[corpora.*]`` blocks of a training config; all keep graphs."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

from spacy import registry
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.training.corpus import FILE_TYPE, walk_corpus
from spacy.vocab import Vocab

from diffdecode.files.text import FormatError
from spacy_components.sdp_graph import DEFAULT_KEY, as_doc, make_key
from spacy_components.training.formats import read_docs

Reader = Callable[[Language], Iterable[Example]]


class Corpus:
    """Turns documents with annotations into training examples.

    Args:
        read: the reference documents, given a vocabulary.
        path: where they come from, for messages.
        gold_tokens: predict on the reference's tokens, not on the pipeline's tokenisation of its text.
            Documents whose spaces are unknown are always read this way.
        max_length: a document with more tokens is split into its sentences, and sentences with more are
            left out; 0 for no limit.
        limit: read only so many documents; 0 for all.
        shuffle: read in random order.

    Raises:
        ValueError: a negative max_length or limit.
    """

    def __init__(
        self,
        read: Callable[[Vocab], Iterable[Doc]],
        path: Path,
        *,
        gold_tokens: bool = True,
        max_length: int = 0,
        limit: int = 0,
        shuffle: bool = False,
    ):
        for name, value in (("max_length", max_length), ("limit", limit)):
            if value < 0:
                raise ValueError(f"{name} is {value}, expected 0 (no limit) or more")
        self.read = read
        self.path = path
        self.gold_tokens = gold_tokens
        self.max_length = max_length
        self.limit = limit
        self.shuffle = shuffle

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Yields the examples.

        Raises ValueError where a document is too long and has no sentences, and where there is no example.
        """
        parts = self._references(nlp.vocab)
        first = next(parts, None)
        if first is None:
            limit = f" of at most max_length = {self.max_length} tokens" if self.max_length else ""
            raise FormatError(self.path, None, f"no documents with words{limit}, expected at least one")
        for part in chain([first], parts):
            yield make_example(nlp, part, self.gold_tokens)

    def _references(self, vocab: Vocab) -> Iterator[Doc]:
        references: Iterable[Doc] = (doc for doc in self.read(vocab) if len(doc))
        if self.limit:
            references = islice(references, self.limit)
        if self.shuffle:
            references = list(references)
            random.shuffle(references)
        for reference in references:
            yield from self._parts(reference)

    def _parts(self, reference: Doc) -> Iterator[Doc]:
        if not self.max_length or len(reference) <= self.max_length:
            yield reference
        elif not reference.has_annotation("SENT_START"):
            raise ValueError(
                f"a document of {len(reference)} tokens ({reference.text!r:.60}) is longer than max_length = "
                f"{self.max_length} and has no sentences to split it into"
            )
        else:
            yield from (as_doc(sent) for sent in reference.sents if len(sent) <= self.max_length)


def make_example(nlp: Language, reference: Doc, gold_tokens: bool) -> Example:
    """The example of a reference and an unannotated document of its tokens, or of its text."""
    if gold_tokens or reference.has_unknown_spaces:
        words, spaces = [t.text for t in reference], [bool(t.whitespace_) for t in reference]
        return Example(Doc(nlp.vocab, words=words, spaces=spaces), reference)
    return Example(nlp.make_doc(reference.text), reference)


@registry.readers("diffdecode.Corpus.v1")
def create_corpus(
    path: Path, gold_tokens: bool = True, max_length: int = 0, limit: int = 0, shuffle: bool = False
) -> Reader:
    """Reads ``.spacy`` files (one, or a folder) like ``spacy.Corpus.v1``, and keeps graphs when it splits.

    See ``Corpus`` for the options. Raises FileNotFoundError if there is no such file or folder, and
    ValueError if it is no ``.spacy`` file and holds none.
    """
    path = _existing(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # W090, the same as a warning
        files = walk_corpus(path, FILE_TYPE)
    if not files:
        raise FormatError(path, None, f"expected a {FILE_TYPE} file, or a folder that holds some")

    def read(vocab: Vocab) -> Iterator[Doc]:
        for file in files:
            yield from read_docs(file, vocab, format="spacy")

    return Corpus(read, path, gold_tokens=gold_tokens, max_length=max_length, limit=limit, shuffle=shuffle)


@registry.readers("diffdecode.Sdp2015.v1")
def create_sdp2015_corpus(
    path: Path, limit: int = 0, shuffle: bool = False, key: str = DEFAULT_KEY
) -> Reader:
    """Reads an ``.sdp`` file of SDP 2015 (``.gz`` too) without conversion, on its own tokens.

    See ``Corpus`` for limit and shuffle; key is that of the graph on the document.
    """
    path = _existing(path)
    read = partial(read_docs, path, format="sdp2015", key=make_key(key))
    return Corpus(read, path, limit=limit, shuffle=shuffle)


@registry.readers("diffdecode.Conllu.v1")
def create_conllu_corpus(
    path: Path,
    tree: bool = True,
    graph: bool = False,
    subtypes: bool = True,
    gold_tokens: bool = True,
    limit: int = 0,
    shuffle: bool = False,
    key: str = DEFAULT_KEY,
) -> Reader:
    """Reads a CoNLL-U file (``.gz`` too) without conversion: trees, enhanced graphs, or both.

    See ``read_conllu`` for tree, graph, subtypes and key, and ``Corpus`` for the rest.
    """
    path = _existing(path)
    options = {"tree": tree, "graph": graph, "subtypes": subtypes, "key": make_key(key)}
    read = partial(read_docs, path, format="conllu", **options)
    return Corpus(read, path, gold_tokens=gold_tokens, limit=limit, shuffle=shuffle)


@registry.readers("diffdecode.LabelledText.v1")
def create_labelled_text_corpus(
    path: Path, gold_tokens: bool = True, limit: int = 0, shuffle: bool = False
) -> Reader:
    """Reads ``label<TAB>text`` lines (``.gz`` too) without conversion, with exclusive categories."""
    path = _existing(path)
    read = partial(read_docs, path, format="labelled-text")
    return Corpus(read, path, gold_tokens=gold_tokens, limit=limit, shuffle=shuffle)


def _existing(path: Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no training data at {path} (relative paths start at {Path.cwd()})")
    return path
