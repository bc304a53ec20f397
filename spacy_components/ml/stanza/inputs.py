"""What Stanza's parsers read: the words of documents as numbers of Stanza's vocabularies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from spacy.tokens import Doc, Token
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spacy_components.ml.segments import SegmentBatch

NONE = "_"
"""How Stanza, like CoNLL-U, writes that a word has no such attribute."""


class Word(NamedTuple):
    """A word as Stanza sees it."""

    text: str
    upos: str = NONE
    xpos: str = NONE
    feats: str = NONE
    lemma: str = NONE


class Attribute(NamedTuple):
    """Where an input beside the text comes from.

    Attributes:
        spacy: spaCy's name of the attribute.
        component: the spaCy component that sets it.
        read: from a token to Stanza's string.
    """

    spacy: str
    component: str
    read: Callable[[Token], str]


ATTRIBUTES = {
    "upos": Attribute("POS", "morphologizer", lambda token: token.pos_),
    "xpos": Attribute("TAG", "tagger", lambda token: token.tag_),
    "feats": Attribute("MORPH", "morphologizer", lambda token: str(token.morph)),
    "lemma": Attribute("LEMMA", "lemmatizer", lambda token: token.lemma_),
}


def attributes_used(config: dict[str, Any], vocab) -> list[str]:
    """Which inputs beside the text a parser learned from.

    One that its treebank left empty, so that its vocabulary knows no value, does not count.

    Args:
        config: Stanza's settings.
        vocab: Stanza's vocabularies.

    Returns:
        names in ``ATTRIBUTES``.
    """
    tags = config["tag_emb_dim"] > 0
    switched_on = {
        "upos": tags and config.get("use_upos", True),
        "xpos": tags and config.get("use_xpos", True),
        "feats": tags and config.get("use_ufeats", True),
        "lemma": config["word_emb_dim"] > 0,
    }
    return [name for name, on in switched_on.items() if on and _values(vocab[name]) - {NONE}]


def _values(vocab) -> set[str]:
    """What a vocabulary knows, without its special entries."""
    from stanza.models.common.vocab import VOCAB_PREFIX, CompositeVocab

    parts = vocab._id2unit.values() if isinstance(vocab, CompositeVocab) else [vocab._id2unit]
    return {unit for units in parts for unit in units} - set(VOCAB_PREFIX)


def read_words(docs: Sequence[Doc], attributes: Sequence[str]) -> list[Word]:
    """All tokens of the documents, counted through.

    Args:
        docs: the documents.
        attributes: names in ``ATTRIBUTES``.

    Returns:
        the words; attributes that are not asked for stay empty.

    Raises:
        ValueError: a document has none of an attribute's values.
    """
    for name in attributes:
        for doc in docs:
            _require(doc, name)
    read = [(name, ATTRIBUTES[name].read) for name in attributes]
    return [
        Word(_plain_punctuation(token.text), **{name: value(token) or NONE for name, value in read})
        for doc in docs
        for token in doc
    ]


def _require(doc: Doc, name: str) -> None:
    attribute = ATTRIBUTES[name]
    if not doc.has_annotation(attribute.spacy) and not all(token.is_space for token in doc):
        raise ValueError(
            f"this Stanza parser was trained with {name}, but {doc.text!r:.60} has none (token attribute "
            f"{attribute.spacy}). Put a component that sets it before the parser, such as spaCy's "
            f"{attribute.component}, and for training list it in [training.annotating_components] too "
            "(annotates=... of nlp.update). Its values have to be those of the parser's treebank."
        )


def _plain_punctuation(text: str) -> str:
    """``?!`` and the like become one mark, as in Stanza's training."""
    if len(text) < 2 or text.isalnum():
        return text
    from stanza.models.common.utils import simplify_punct

    return simplify_punct([[[text]]])[0][0][0]


@dataclass(frozen=True)
class WordBatch:
    """Segments, longest first, and their words."""

    segments: SegmentBatch
    sentences: list[list[Word]]


def word_batches(batches: Sequence[SegmentBatch], words: Sequence[Word]) -> list[WordBatch]:
    """Looks the words of segments up."""
    return [WordBatch(batch, [[words[i] for i in row] for row in _rows(batch)]) for batch in batches]


def _rows(batch: SegmentBatch) -> list:
    """The positions in each segment, without padding."""
    return [row[:length].tolist() for row, length in zip(batch.tokens, batch.lengths)]


def stanza_batch(
    sentences: Sequence[Sequence[Word]], vocab, pretrain_vocab, device: torch.device
) -> dict[str, Any]:
    """The arguments of Stanza's ``forward_scores``.

    Sentences come longest first, each with an artificial root before its words. The words' characters come
    apart from the sentences, longest word first, with the order that leads back.

    Args:
        sentences: ``B`` sentences.
        vocab: Stanza's vocabularies.
        pretrain_vocab: the vocabulary of the word vectors, or None.
        device: where to.

    Returns:
        tensors ``[B, N+1]``, or ``[B, N+1, P]`` for tags that have parts, and lists.
    """
    from stanza.models.common.vocab import PAD_ID, ROOT_ID

    def numbers(part, of: Callable[[Word], str]) -> Tensor:
        return _padded([part.map([of(word) for word in sentence]) for sentence in sentences], ROOT_ID)

    chars = [
        ids
        for sentence in sentences
        for ids in ([ROOT_ID], *(vocab["char"].map(word.text) for word in sentence))
    ]
    order = sorted(range(len(chars)), key=lambda i: -len(chars[i]))
    wordchars = pad_sequence([torch.tensor(chars[i]) for i in order], batch_first=True)
    word = numbers(vocab["word"], lambda word: word.text)
    vectors = torch.full_like(word, PAD_ID)
    if pretrain_vocab is not None:
        vectors = numbers(pretrain_vocab, lambda word: word.text.lower())
    tensors = {
        "word": word,
        "word_mask": word == PAD_ID,
        "wordchars": wordchars,
        "wordchars_mask": wordchars == PAD_ID,
        "upos": numbers(vocab["upos"], lambda word: word.upos),
        "xpos": numbers(vocab["xpos"], lambda word: word.xpos),
        "ufeats": numbers(vocab["feats"], lambda word: word.feats),
        "pretrained": vectors,
        "lemma": numbers(vocab["lemma"], lambda word: word.lemma),
        "head": torch.zeros_like(word[:, 1:]),  # only its shape is looked at
        "deprel": torch.zeros_like(word[:, 1:]),
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()} | {
        "word_orig_idx": order,
        "sentlens": [len(sentence) + 1 for sentence in sentences],
        "wordlens": [len(chars[i]) for i in order],
        "text": [[word.text for word in sentence] for sentence in sentences],
    }


def _padded(sentences: Sequence[list], root: int) -> Tensor:
    """Numbers, or lists of numbers, with the root before them; padding is 0 as in Stanza."""
    with_root = [[[root] * len(ids[0]) if isinstance(ids[0], list) else root, *ids] for ids in sentences]
    return pad_sequence([torch.tensor(ids) for ids in with_root], batch_first=True)
