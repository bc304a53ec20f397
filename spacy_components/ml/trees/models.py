"""thinc architectures of arc-factored parsers: any tok2vec, and a scorer of trees on top."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from spacy import registry
from spacy.tokens import Doc
from thinc.api import ArgsKwargs, Model, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import nn

from spacy_components.ml.batch_size import arcs_per_batch
from spacy_components.ml.listening.mailbox import listens
from spacy_components.ml.segments import SegmentedDocs, Segmenter, segment_docs
from spacy_components.ml.thinc_glue.finite import require_finite
from spacy_components.ml.thinc_glue.tok2vec_width import initialize_tok2vec
from spacy_components.ml.thinc_glue.torch_shim import TorchShim
from spacy_components.ml.trees.scorers import BiaffineScorer, MlpScorer, SegmentEncoder


class DocScores:
    """Scores of all segments of a list of documents.

    Args:
        segments: the words of the segments.
        scores: one entry per batch of segments: ``TreeScores`` or ``PartScores``.
    """

    def __init__(self, segments: SegmentedDocs, scores: Sequence[Any]):
        self.segments = segments
        self.scores = list(scores)

    def require_finite(self) -> None:
        """Check that each score is a number; raises NotFinite otherwise."""
        for part in self.scores:
            for name, values in part.by_name.items():
                require_finite(values, f"the scores of {name}")


@registry.architectures("diffdecode.BiaffineParser.v1")
def build_biaffine_parser(
    tok2vec: Model[list[Doc], list[Floats2d]],
    segmenter: Segmenter,
    hidden_width: int = 96,
    label_width: int = 32,
    max_distance: int = 16,
    between_width: int = 16,
    lstm_width: int = 0,
    lstm_depth: int = 0,
) -> Model[list[Doc], DocScores]:
    """Biaffine parser (Dozat and Manning, 2017) over any tok2vec, with a BiLSTM in between if asked for.

    Args:
        tok2vec: word vectors.
        segmenter: which stretches of a document are parsed as one.
        hidden_width: size of the views of a word as dependent and as head.
        label_width: the same for the label of an arc.
        max_distance: signed distances to the head that have a score of their own; 0 for none at all.
        between_width: size of the features of the words between two words; 0 for none at all.
        lstm_width: size of each direction of the BiLSTM.
        lstm_depth: layers of the BiLSTM; 0 for none.

    Returns:
        the model.
    """

    sizes = {
        "hidden": hidden_width,
        "label_hidden": label_width,
        "max_distance": max_distance,
        "between": between_width,
    }
    build = partial(build_scorer, BiaffineScorer, sizes, lstm_width, lstm_depth)
    return segment_scorer("biaffine_parser", tok2vec, segmenter, build)


@registry.architectures("diffdecode.BiLstmMlpParser.v1")
def build_bilstm_mlp_parser(
    tok2vec: Model[list[Doc], list[Floats2d]],
    segmenter: Segmenter,
    hidden_width: int = 100,
    label_width: int = 100,
    lstm_width: int = 125,
    lstm_depth: int = 2,
) -> Model[list[Doc], DocScores]:
    """Graph-based parser of Kiperwasser and Goldberg (2016): BiLSTM, and a perceptron for every arc.

    It is the intermediate parser of the SPIGOT paper (Peng, Thomson and Smith, 2018, section 4.1.1).

    Args:
        tok2vec: word vectors.
        segmenter: which stretches of a document are parsed as one.
        hidden_width: hidden size of the perceptron for arcs.
        label_width: hidden size of the perceptron for labels.
        lstm_width: size of each direction of the BiLSTM.
        lstm_depth: layers of the BiLSTM; 0 for none.

    Returns:
        the model.
    """

    sizes = {"hidden": hidden_width, "label_hidden": label_width}
    build = partial(build_scorer, MlpScorer, sizes, lstm_width, lstm_depth)
    return segment_scorer("bilstm_mlp_parser", tok2vec, segmenter, build)


def build_scorer(
    scorer: Callable[..., nn.Module],
    sizes: dict[str, int],
    lstm_width: int,
    lstm_depth: int,
    width: int,
    labels: int,
) -> nn.Module:
    """A scorer of segments, once the width of the word vectors and the number of labels are known.

    Args:
        scorer: its class, which takes an encoder, ``labels`` and the sizes by name.
        sizes: its sizes.
        lstm_width: size of each direction of the BiLSTM.
        lstm_depth: layers of the BiLSTM; 0 for none.
        width: width of the word vectors.
        labels: number of labels.

    Returns:
        the scorer.
    """
    return scorer(SegmentEncoder(width, lstm_width, lstm_depth), **sizes, labels=labels)


def segment_scorer(
    name: str,
    tok2vec: Model,
    segmenter: Segmenter,
    build: Callable[..., nn.Module],
    *,
    keep_sentences: bool = True,
) -> Model[list[Doc], DocScores]:
    """A tok2vec and a torch module that scores segments, as one model.

    The backward pass takes pairs ``(tensor, gradient)`` of tensors that the module made (``None`` as
    the gradient of a scalar is 1), and sends one gradient to the tok2vec. Where there are no pairs that is
    zero if the tok2vec is shared, as it waits for every component that listens to it, and none otherwise, as
    Adam would step on zeros.

    Args:
        name: name of the model.
        tok2vec: word vectors.
        segmenter: which stretches of a document are scored as one.
        build: from ``width`` of the vectors and number of ``labels`` to the module; the module is called
            with vectors ``[T, d]``, batches of segments and the dropout rate. No closure, so that the
            model can be pickled.
        keep_sentences: whether sentence starts that are set on the documents already bound the segments.

    Returns:
        the model; its dimension ``nO`` is the number of labels.
    """
    model: Model = Model(
        name,
        _forward,
        init=_init,
        layers=[tok2vec],
        shims=[TorchShim(build)],
        dims={"nO": None},
        attrs={"segmenter": segmenter, "keep_sentences": keep_sentences, "dropout_rate": 0.0},
        refs={"tok2vec": tok2vec},
    )
    return model


def _init(model: Model, X=None, Y=None) -> None:
    width = initialize_tok2vec(model.layers[0], X, model.name)
    model.shims[0].materialize(width=width, labels=model.maybe_get_dim("nO") or 1)


def _forward(model: Model, docs: Sequence[Doc], is_train: bool):
    segments = segment_docs(
        docs,
        model.attrs["segmenter"],
        arcs_per_batch(model.shims[0].module),
        keep_sentences=model.attrs["keep_sentences"],
    )
    if not segments.size:
        return DocScores(segments, []), lambda pairs: []
    vectors, backprop_tok2vec = model.layers[0](docs, is_train)
    filled = [rows for rows in vectors if rows.shape[0]]
    flat = xp2torch(model.ops.xp.concatenate(filled), requires_grad=is_train)
    inputs = ArgsKwargs((flat, segments.batches, model.attrs["dropout_rate"]), {})
    scores, backprop_module = model.shims[0](inputs, is_train)

    def backprop(pairs) -> list:
        pairs = list(pairs)
        if not pairs and not listens(model.layers[0]):
            return []
        if pairs:
            tensors, gradients = zip(*pairs)
            backprop_module(ArgsKwargs((list(tensors),), {"grad_tensors": list(gradients)}))
        gradient = model.ops.alloc2f(*flat.shape) if flat.grad is None else torch2xp(flat.grad)
        return backprop_tok2vec(_by_doc(model, gradient, vectors))

    return DocScores(segments, scores), backprop


def _by_doc(model: Model, flat: Floats2d, vectors: list[Floats2d]) -> list[Floats2d]:
    parts, start = [], 0
    for rows in vectors:
        stop = start + rows.shape[0]
        parts.append(flat[start:stop] if rows.shape[0] else model.ops.alloc2f(*rows.shape))
        start = stop
    return parts
