"""Embeddings of words by hashed features, with word dropout, and by pretrained vectors if there are any."""

from collections.abc import Sequence

import numpy
from spacy import registry
from spacy.ml.featureextractor import FeatureExtractor
from spacy.ml.staticvectors import StaticVectors
from spacy.tokens import Doc
from thinc.api import (
    HashEmbed,
    Maxout,
    Model,
    chain,
    concatenate,
    list2ragged,
    ragged2list,
    to_numpy,
    with_array,
)
from thinc.types import Floats2d, Ints2d

from spacy_components.ml.segments import split_rows

NO_WORD = 0


@registry.architectures("diffdecode.WordDropoutEmbed.v1")
def build_word_dropout_embed(
    width: int, attrs: list[str], rows: list[int], word_dropout: float, vectors: str | None = None
) -> Model[list[Doc], list[Floats2d]]:
    """``spacy.MultiHashEmbed.v2`` that in training does not see the first attribute of some tokens.

    A model that has read ``NORM`` of every token in training has never had to guess what an unknown word is
    by its prefix, suffix and shape. Hiding it makes the model do so; and later it is hidden of words that
    were not in the training data, which in a plain hash table look like a mixture of words that were. A
    pretrained vector is never hidden: it is what is known of a word that training has not seen.

    Args:
        width: size of the output, and of each attribute's table.
        attrs: token attributes; the first is the one to hide, usually ``NORM``.
        rows: rows of each attribute's table.
        word_dropout: how many tokens have it hidden, in 0 to 1; the ``dropout`` of the training settings
            does not change it.
        vectors: where the pipeline's word vectors come from; null for none. It is ``[initialize]`` that reads
            them.

    Returns:
        the model.

    Raises:
        ValueError: not as many rows as attributes, or an impossible ``word_dropout``.
    """
    if len(attrs) != len(rows):
        raise ValueError(
            f"diffdecode.WordDropoutEmbed.v1: {len(attrs)} attrs and {len(rows)} rows; give as many rows"
        )
    if not 0 <= word_dropout < 1:
        raise ValueError(
            f"diffdecode.WordDropoutEmbed.v1: word_dropout must be in 0 to 1 (excluded), got {word_dropout}"
        )
    tables = [
        HashEmbed(width, size, column=i, seed=8 + i, dropout=0.0)  # as spaCy: no two collide alike
        for i, size in enumerate(rows)
    ]
    embed = [
        FeatureExtractor(attrs),
        _hide_words(word_dropout),
        list2ragged(),
        with_array(concatenate(*tables)),
    ]
    if vectors:
        embed = [concatenate(chain(*embed), StaticVectors(width, dropout=0.0))]
    parts = len(tables) + bool(vectors)
    mixed = Maxout(width, width * parts, nP=3, dropout=0.0, normalize=True)
    return chain(*embed, with_array(mixed), ragged2list())


def _hide_words(rate: float) -> Model[list[Ints2d], list[Ints2d]]:
    return Model("hide_words", _hide, attrs={"rate": rate, "seen": numpy.zeros(0, dtype=numpy.uint64)})


def _hide(model: Model, features: Sequence[Ints2d], is_train: bool):
    if not features:
        return [], lambda gradient: []
    xp, together = model.ops.xp, model.ops.xp.concatenate(features)
    words = to_numpy(together[:, 0])
    if is_train:
        model.attrs["seen"] = numpy.unique(numpy.concatenate([model.attrs["seen"], words]))
        hidden = model.ops.get_dropout_mask(words.shape, model.attrs["rate"]) == 0
    else:
        hidden = model.ops.asarray(~numpy.isin(words, model.attrs["seen"]))
    together[:, 0] = xp.where(hidden, xp.zeros_like(together[:, 0]) + NO_WORD, together[:, 0])
    return split_rows(together, [len(rows) for rows in features]), lambda gradient: []
