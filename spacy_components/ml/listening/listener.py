"""Listeners: leaf layers that deliver another component's hard decision and take the gradient on it back.

A listener works like spaCy's ``Tok2VecListener``, with its traps removed. In training it hands out what the
component upstream decided for this very batch; in prediction, or if the component upstream is frozen, it
reads the annotation on the documents. So a gold parse, or one from elsewhere, can be used just as well.

A document without the annotation is never taken for one without heads or arcs. If the component upstream is
known and needs no other component, it is asked for its decision, with a warning; otherwise it is an error.
"""

from collections.abc import Sequence
from weakref import WeakSet

from spacy import registry
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Ints1d, Ints2d

from spacy_components.ml.listening.absence import nothing_to_read, warn_of_asking, warn_of_no_gradient
from spacy_components.ml.listening.mailbox import SOFT_LISTENER, Mailbox, annotation_of, batch_identity
from spacy_components.ml.trees.soft_trees import SoftTree
from spacy_components.sdp_graph import make_key


@registry.architectures("diffdecode.ParseListener.v1")
def build_parse_listener(upstream: str = "*") -> Model[list[Doc], list[Ints1d]]:
    """The hard parse of another component: for each token its head, -1 for the root.

    The backward pass takes one ``ArcGradient`` per document.

    Args:
        upstream: name of the parser, or ``"*"`` for the nearest one before.

    Returns:
        The layer.

    Raises:
        ValueError: when it is called with a document of two or more words without a parse, and the parser
            cannot be asked.
    """
    return _listener("parse_listener", Mailbox(upstream, "parse"))


@registry.architectures(SOFT_LISTENER)
def build_soft_parse_listener(upstream: str = "*") -> Model[list[Doc], list[SoftTree]]:
    """The probabilities that another component gives to all arcs: marginals of its distribution over trees.

    The backward pass takes one ``ArcGradient`` per document. It is that of the marginals, whatever surrogate
    the parser has for its decisions; ``grad_factor`` holds for it, too. The parser writes the probabilities
    on documents as long as somebody listens to them, as its ``confidence`` can say as well: ``arc_probs``.

    Args:
        upstream: name of the parser, or ``"*"`` for the nearest one before.

    Returns:
        The layer.

    Raises:
        ValueError: when it is called with a document of two or more words without probabilities, and the
            parser cannot be asked.
    """
    return _listener("soft_parse_listener", Mailbox(upstream, "parse", soft=True))


@registry.architectures("diffdecode.GraphListener.v1")
def build_graph_listener(
    upstream: str = "*",
    labels: list[str] = [],  # noqa: B006
    key: str = "",
) -> Model[list[Doc], list[Ints2d]]:
    """The semantic graph of another component: rows (head, dependent, label number) per document.

    The backward pass takes one ``GraphGradient`` per document.

    Args:
        upstream: name of the component, or ``"*"`` for the nearest one before.
        labels: the labels, in the order of their numbers. Usually left empty: then they are those of the
            component upstream, which tells them when it is initialized. An arc with another label gets the
            number -1.
        key: which of a document's graphs. Usually left empty: then it is the one that the component upstream
            makes, or ``sdp`` where that is none of this package.

    Returns:
        The layer.

    Raises:
        ValueError: when it is called with a document of two or more words without a graph, and the component
            upstream cannot be asked.
    """
    model = _listener("graph_listener", Mailbox(upstream, "graph", key))
    model.attrs.update({"labels": list(labels), "key": make_key(key) if key else ""})
    return model


def _listener(name: str, mailbox: Mailbox) -> Model:
    # the component's name is known, and saved with the model, once it has been linked
    return Model(name, _forward, init=_init, attrs={"mailbox": mailbox, "component": ""})


def _init(model: Model, X: Sequence[Doc] | None = None, Y=None) -> None:
    """Whoever initializes a model goes on to predict with it to find its widths, long before anything
    upstream can have made a decision: ``X`` are the documents for which that is no mistake."""
    mailbox = model.attrs["mailbox"]
    mailbox.sample = WeakSet(X or ())
    if X and mailbox.pipe is None:
        warn_of_no_gradient(model, "at initialization")


def _forward(model: Model, docs: Sequence[Doc], is_train: bool):
    mailbox = model.attrs["mailbox"]
    if is_train and mailbox.batch_id is not None:
        return _delivered(model, docs)
    annotation = annotation_of(model)
    missing = [i for i, doc in enumerate(docs) if annotation.is_missing(doc)]
    outputs = _read(model, docs)
    if is_train and mailbox.pipe is None and any(annotation.is_on(doc) for doc in docs if len(doc)):
        warn_of_no_gradient(model, "in training")
    if missing and not (not is_train and mailbox.sample.issuperset(docs)):
        for i, decision in zip(missing, _ask(model, [docs[i] for i in missing])):
            outputs[i] = decision
    return outputs, _no_backprop


def _delivered(model: Model, docs: Sequence[Doc]):
    """What the component upstream decided for the batch that is being trained on."""
    mailbox = model.attrs["mailbox"]
    if batch_identity(docs) != mailbox.batch_id:
        raise ValueError(
            f"the {model.name} of '{mailbox.upstream}' got other documents, or the same ones in another "
            "order, than the component upstream was just updated with. Update all components of a pipeline "
            "on the same batch, as nlp.update does."
        )
    outputs, send = mailbox.outputs, mailbox.backprop

    def backprop(gradients) -> list:
        mailbox.clear()
        send(gradients)
        return []

    return outputs, backprop


def _no_backprop(gradients) -> list:
    return []


def _read(model: Model, docs: Sequence[Doc]) -> list:
    """What is on the documents, brought to the layer's device in one piece."""
    annotation = annotation_of(model)
    return annotation.together(model.ops, [annotation.read(model, doc) for doc in docs])


def _ask(model: Model, docs: Sequence[Doc]) -> list:
    """The decisions of the component upstream as it is, for documents that do not have them: it is disabled,
    or frozen and not annotating, or this component is called alone (``nlp.rehearse``)."""
    mailbox = model.attrs["mailbox"]
    pipe = mailbox.pipe
    if pipe is None or not pipe.stands_alone:
        raise ValueError(nothing_to_read(model, docs[0]))
    warn_of_asking(model, docs[0])
    return pipe.decide_as(pipe.wish(model), pipe.model.predict(list(docs))).outputs(model.ops)
