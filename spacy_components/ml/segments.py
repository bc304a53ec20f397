"""Segments: the stretches of a document that are parsed as one, and batches of them.

A parser's time and memory grow with the square of a segment's length, so a segmenter says where to cut. It
is a function from a document and the positions of words in it (white space is never parsed) to a list of
arrays of positions.

Sentence starts that are set already are kept, as spaCy's own parser keeps them: where ``token.is_sent_start``
is true (1) a segment begins, so a segmenter gets the words of one stretch between two such places; where it
is false (-1) no sentence may begin; where it is None (0) the trees decide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from spacy import registry
from spacy.attrs import IS_PUNCT, IS_SPACE, ORTH, SENT_START
from spacy.tokens import Doc

Segmenter = Callable[[Doc, np.ndarray], list[np.ndarray]]

SENTENCE_END = (".", "!", "?", "…", "。", "！", "？", "।", "؟")
WEAKER = 3
"""By how much a boundary that nobody wants is weaker than any other (see ``_boundary_strength``)."""
ARCS_PER_BATCH = 50_000
"""How many arcs a padded batch of segments may have: few enough to stay in a CPU's cache."""


@registry.misc("diffdecode.whole_docs.v1")
def whole_docs() -> Segmenter:
    """Every document is one segment, whatever its length."""
    return _whole


def _whole(doc: Doc, words: np.ndarray) -> list[np.ndarray]:
    return [words]


@registry.misc("diffdecode.sentences.v1")
def sentences(required: bool = True) -> Segmenter:
    """Every sentence is a segment: something before the parser has to find the sentences.

    Args:
        required: whether a document without sentence boundaries is an error; otherwise it is one segment.

    Returns:
        The function that cuts; it raises ValueError where boundaries are required and there are none.
    """
    return _sentences if required else _sentences_if_any


def _sentences_if_any(doc: Doc, words: np.ndarray) -> list[np.ndarray]:
    return (_sentences if doc.has_annotation("SENT_START") else _whole)(doc, words)


def _sentences(doc: Doc, words: np.ndarray) -> list[np.ndarray]:
    if not doc.has_annotation("SENT_START"):
        raise ValueError(
            f"the parser works sentence by sentence (diffdecode.sentences.v1), but {doc.text!r:.60} has no "
            "sentence boundaries. Put a component that sets them (sentencizer, senter) before the parser, "
            "and into [training.annotating_components] for training; or choose diffdecode.lazy_segments.v1."
        )
    if "sents" in doc.user_hooks:
        starts = [sentence.start for sentence in doc.sents][1:]
    else:
        starts = np.flatnonzero(sentence_starts(doc)[1:] == 1) + 1
    return [part for part in np.split(words, np.searchsorted(words, starts)) if len(part)]


def sentence_starts(doc: Doc) -> np.ndarray:
    """Whether each token begins a sentence, ``[n]`` int64: 1 yes, -1 no, 0 nobody has said."""
    return doc.to_array(SENT_START).astype(np.int64)


@registry.misc("diffdecode.lazy_segments.v1")
def lazy_segments(max_length: int = 192) -> Segmenter:
    """Documents of up to ``max_length`` words are one segment; longer ones are cut in two, again and again.

    The cut is made in the middle half: after the end of a sentence if there is one, else after punctuation,
    else in the middle, and nearest to the middle in each case. Where it is set that no sentence may begin,
    it is made only if there is no other place; the trees of the two parts are then joined to one.

    Args:
        max_length: words in the longest segment.

    Returns:
        The function that cuts.

    Raises:
        ValueError: ``max_length`` below 1.
    """
    if max_length < 1:
        raise ValueError(f"diffdecode.lazy_segments.v1: max_length must be 1 or more, got {max_length}")
    return _LazySegments(max_length)


@dataclass(frozen=True)
class _LazySegments:
    max_length: int

    def __call__(self, doc: Doc, words: np.ndarray) -> list[np.ndarray]:
        if len(words) <= self.max_length:
            return [words]
        ends = _boundary_strength(doc)[words]
        ends[:-1] -= WEAKER * (sentence_starts(doc)[words[1:]] == -1)
        agenda, segments = [(0, len(words))], []
        while agenda:
            start, end = agenda.pop()
            if end - start <= self.max_length:
                segments.append(words[start:end])
            else:
                middle = _best_cut(ends, start, end)
                agenda += [(middle, end), (start, middle)]
        return segments


def _boundary_strength(doc: Doc) -> np.ndarray:
    """For each token how well a segment may end after it: 2 end of a sentence, 1 punctuation, 0 neither."""
    orths = doc.to_array(ORTH)
    strength = (doc.to_array(IS_PUNCT) > 0).astype(np.int64)
    marks = [doc.vocab.strings[mark] for mark in SENTENCE_END if mark in doc.vocab.strings]
    strength[np.isin(orths, np.asarray(marks, dtype=orths.dtype))] = 2
    if doc.has_annotation("SENT_START"):
        strength[[sentence.end - 1 for sentence in doc.sents]] = 2
    return strength


def _best_cut(ends: np.ndarray, start: int, end: int) -> int:
    quarter = (end - start) // 4
    cuts = np.arange(start + max(quarter, 1), end - quarter)
    distance = np.abs(cuts - (start + end) / 2)
    return int(cuts[np.lexsort((distance, -ends[cuts - 1]))[0]])


@dataclass(frozen=True)
class SegmentBatch:
    """Segments of similar length, as positions in the concatenated documents.

    Args:
        tokens: ``[B, N]`` int64, padded with the number of tokens of all documents.
        lengths: ``[B]`` int64, falling.
        one_sentence: whether each of them is a sentence by what was set before, and so has one tree.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    one_sentence: bool = False

    @property
    def is_word(self) -> np.ndarray:
        """``[B, N]`` bool: no padding."""
        return np.arange(self.tokens.shape[1]) < self.lengths[:, None]


@dataclass(frozen=True)
class SegmentedDocs:
    """How a list of documents is parsed.

    Args:
        doc_lengths: ``[D]`` tokens per document; positions count through all documents.
        batches: the segments.
    """

    doc_lengths: np.ndarray
    batches: list[SegmentBatch]
    spaces: np.ndarray
    """Positions of white space; each belongs to the position in ``hosts``."""
    hosts: np.ndarray
    inner: np.ndarray
    """Positions of words where no sentence may begin, rising, as far as the segments do not see to it."""

    @property
    def size(self) -> int:
        """Tokens in all documents."""
        return int(self.doc_lengths.sum())

    def by_doc(self, values) -> list:
        """An array or tensor ``[size, ...]`` to one view per document."""
        return split_rows(values, self.doc_lengths.tolist())


def split_rows(values, lengths: Sequence[int]) -> list:
    """Views of so many rows each, of an array on any device."""
    stops = accumulate(lengths)
    return [values[stop - length : stop] for stop, length in zip(stops, lengths)]


def segment_docs(
    docs: Sequence[Doc], segmenter: Segmenter, arcs: int = ARCS_PER_BATCH, *, keep_sentences: bool = True
) -> SegmentedDocs:
    """Cut documents into segments, longest first, and batch them by length.

    Args:
        docs: the documents.
        segmenter: where to cut.
        arcs: the most arcs, padding included, that a batch of more than one segment may have.
        keep_sentences: whether sentence starts that are set already are kept.

    Returns:
        The batches.
    """
    lengths = np.array([len(doc) for doc in docs], dtype=np.int64)
    offsets = np.cumsum(lengths) - lengths
    columns = [doc.to_array([IS_SPACE, SENT_START]).reshape(-1, 2) for doc in docs]
    is_space, starts = np.concatenate(columns or [np.zeros((0, 2))]).astype(np.int64).T
    is_space = is_space.astype(bool)
    begins = np.zeros(len(starts), dtype=bool)
    begins[offsets[lengths > 0]] = True
    are_set = keep_sentences and bool(starts[~begins].any())
    if are_set:
        begins |= starts == 1
    free, whole, inner = [], [], [np.zeros(0, dtype=np.int64)]
    for doc, offset, length in zip(docs, offsets, lengths):
        here = slice(offset, offset + length)
        words = np.flatnonzero(~is_space[here])
        cuts = np.flatnonzero(begins[here])[1:] if are_set else ()
        for stretch in np.split(words, np.searchsorted(words, cuts)) if len(cuts) else [words]:
            parts = [part + offset for part in segmenter(doc, stretch)] if len(stretch) else []
            if not are_set:
                free += parts
                continue
            later = stretch[1:] + offset
            forbidden = later[starts[later] == -1]
            if len(parts) == 1 and 0 < len(forbidden) == len(later):
                whole += parts
            else:
                free += parts
                inner.append(forbidden)
    size = int(lengths.sum())
    batches = [*_batch(free, size, arcs), *_batch(whole, size, arcs, one_sentence=True)]
    spaces = np.flatnonzero(is_space)
    hosts = _hosts(spaces, is_space, np.flatnonzero(begins))
    return SegmentedDocs(lengths, batches, spaces, hosts, np.concatenate(inner))


def _batch(
    segments: list[np.ndarray], padding: int, arcs: int, one_sentence: bool = False
) -> list[SegmentBatch]:
    segments = sorted(segments, key=len, reverse=True)
    batches, start = [], 0
    while start < len(segments):
        longest = len(segments[start])
        part = segments[start : start + max(1, arcs // (longest + 1) ** 2)]
        lengths = np.array([len(segment) for segment in part], dtype=np.int64)
        tokens = np.full((len(part), longest), padding, dtype=np.int64)
        tokens[np.arange(longest) < lengths[:, None]] = np.concatenate(part)
        batches.append(SegmentBatch(tokens, lengths, one_sentence))
        start += len(part)
    return batches


def _hosts(spaces: np.ndarray, is_space: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """White space hangs on the word before it, or else after it, between two places where something
    ``begins`` (a document, a sentence that was set); where there are no words, on its first token."""
    words = np.flatnonzero(~is_space)
    if not len(spaces):
        return spaces
    stretch = np.searchsorted(begins, spaces, side="right") - 1
    first, last = begins[stretch], np.append(begins[1:], len(is_space))[stretch]
    if not len(words):
        return first
    rank = np.searchsorted(words, spaces)
    before, after = words[np.maximum(rank - 1, 0)], words[np.minimum(rank, len(words) - 1)]
    host = np.where((rank > 0) & (before >= first), before, after)
    return np.where((host >= first) & (host < last), host, first)
