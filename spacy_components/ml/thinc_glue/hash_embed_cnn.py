"""spaCy's usual tok2vec, with word vectors by one switch."""

from __future__ import annotations

import warnings

from spacy import registry
from spacy.language import Language
from spacy.ml.models.tok2vec import build_hash_embed_cnn_tok2vec
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

from spacy_components.ml.thinc_glue.torch_products import with_torch_products


@registry.architectures("diffdecode.HashEmbedCNN.v1")
def build_hash_embed_cnn(
    width: int = 96,
    depth: int = 4,
    embed_size: int = 2000,
    window_size: int = 1,
    maxout_pieces: int = 3,
    subword_features: bool = True,
    vectors: str | None = None,
) -> Model[list[Doc], list[Floats2d]]:
    """``spacy.HashEmbedCNN.v2`` that reads the word vectors that a pipeline is initialized with, if any.

    A config says ``vectors = ${paths.vectors}``, so that ``--paths.vectors`` switches them on everywhere.
    spaCy's own takes a boolean, which no path can stand for.

    Args:
        width: size of the vectors that come out.
        depth: convolutional layers.
        embed_size: rows of the tables that words and their parts are hashed into.
        window_size: words on each side that a layer sees.
        maxout_pieces: pieces of the maxout layers.
        subword_features: whether prefix, suffix and shape are embedded too.
        vectors: where the pipeline's word vectors come from; null for none. It is ``[initialize]`` that reads
            them.
    """
    tok2vec = build_hash_embed_cnn_tok2vec(
        width=width,
        depth=depth,
        embed_size=embed_size,
        window_size=window_size,
        maxout_pieces=maxout_pieces,
        subword_features=subword_features,
        pretrained_vectors=bool(vectors),
    )
    return with_torch_products(tok2vec)


def warn_of_unused_vectors(nlp: Language | None) -> None:
    """Warn where a pipeline is initialized with word vectors and no component reads them.

    Args:
        nlp: the pipeline, if it is known.
    """
    vectors = None if nlp is None else nlp.config.interpolate()["initialize"].get("vectors")
    models = [getattr(pipe, "model", None) for _, pipe in nlp.components] if vectors else []
    nodes = (node.name for model in models if isinstance(model, Model) for node in model.walk())
    if vectors and "static_vectors" not in nodes:
        warnings.warn(
            f"[D003] The pipeline is initialized with the word vectors of {vectors}, but no component reads "
            "them. Where a config has a tok2vec: vectors = ${paths.vectors} (diffdecode.HashEmbedCNN.v1), "
            "pretrained_vectors = true (spacy.HashEmbedCNN.v2) or include_static_vectors = true "
            "(spacy.MultiHashEmbed.v2).",
            UserWarning,
            stacklevel=3,
        )
