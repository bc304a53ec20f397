"""The width of a tok2vec, which some know only after their first documents."""

from collections.abc import Sequence

from spacy.tokens import Doc
from thinc.api import Model


def initialize_tok2vec(tok2vec: Model, docs: Sequence[Doc] | None, layer: str) -> int:
    """Initialize a tok2vec and tell its width.

    Args:
        tok2vec: the tok2vec. A transformer's listener has no ``nO`` at first.
        docs: a sample of documents.
        layer: name of the layer that asks, for the error.

    Returns:
        the width of the vectors.
    """
    tok2vec.initialize(X=docs)
    return width_of(tok2vec, docs, layer)


def width_of(tok2vec: Model, docs: Sequence[Doc] | None, layer: str) -> int:
    """The width of an initialized tok2vec; arguments as above."""
    width = tok2vec.maybe_get_dim("nO")
    if width is None:
        with_words = [doc for doc in docs or [] if len(doc)]
        if not with_words:
            raise ValueError(f"{layer}: its tok2vec has no width yet, and there is no document to tell it")
        width = tok2vec.predict(with_words[:1])[0].shape[1]
    return int(width)
