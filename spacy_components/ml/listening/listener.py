"""Listeners: leaf layers that deliver another component's hard decision and take the gradient on it back.

A listener works like spaCy's ``Tok2VecListener``, with its traps removed. In training it hands out what the
component upstream decided for this very batch; in prediction, or if the component upstream is frozen, it
reads the annotation on the documents. So a gold parse, or one from elsewhere, can be used just as well.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from spacy import registry
from spacy.attrs import HEAD
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats1d, Floats2d, Ints1d, Ints2d

from spacy_components.ml.segments import split_rows
from spacy_components.sdp_graph import get_graph


class ArcGradient(NamedTuple):
    """Gradient of the loss in the arcs of one document's tree, ``dL/dz [n, n]``, as a product.

    ``dL/dz[j, i] = dependents[j] . heads[i]``: the arc from ``i`` to ``j``, no artificial root. (A dense
    gradient ``d`` is ``ArcGradient(d, identity)``.)
    """

    dependents: Floats2d
    """``[n, w]``"""
    heads: Floats2d
    """``[n, w]``"""


class GraphGradient(NamedTuple):
    """Gradient of the loss in the arcs of one document's graph, in factors, never ``[n, n, L]``.

    ``dL/dz[j, i] = dependents[j] . heads[i] - mean[j]`` for the arc from ``i`` to ``j``, and for its label
    ``l``, on top of that, ``labels[j, l]``.
    """

    dependents: Floats2d
    """``[n, w]``"""
    heads: Floats2d
    """``[n, w]``"""
    labels: Floats2d
    """``[n, L]``"""
    mean: Floats1d
    """``[n]``"""


class Mailbox:
    """What a listener knows: whom it listens to, and the batch that was delivered last.

    upstream (str): Name of the component upstream, or ``"*"`` for any of the right kind.
    kind (str): What it listens for: ``"parse"`` or ``"graph"``.
    pipe (Any): The component upstream, where it is one that can take a gradient.
    """

    def __init__(self, upstream: str, kind: str, pipe: Any = None):
        self.upstream = upstream
        self.kind = kind
        self.pipe = pipe
        self.warned = False
        self.clear()

    def clear(self) -> None:
        """Forget the batch."""
        self.batch_id: tuple | None = None
        self.outputs: Any = None
        self.backprop: Callable[[Any], None] | None = None

    def receive(self, batch_id: tuple, outputs: Any, backprop: Callable[[Any], None]) -> None:
        """Take the decisions for a batch, and whom to call with the gradient on them.

        batch_id (tuple): The output of ``batch_identity``.
        outputs: One decision per document.
        backprop (Callable): Takes one gradient per document.
        """
        self.batch_id, self.outputs, self.backprop = batch_id, outputs, backprop

    def __deepcopy__(self, memo: dict) -> "Mailbox":
        """A copy without the batch; in a copy of the whole pipeline it knows the copied component."""
        return Mailbox(self.upstream, self.kind, memo.get(id(self.pipe), self.pipe))

    def __getstate__(self) -> dict[str, Any]:
        """What ``pickle`` keeps: all but the batch."""
        return vars(self) | dict.fromkeys(("batch_id", "outputs", "backprop"))


def delivered_to(node: Model) -> Any:
    """Where a layer keeps the outputs of another component that is updated on the same batch.

    node (Model): Any layer.
    RETURNS (Any): An object, for the listeners of this package and those of spacy, spacy-transformers and
        spacy-curated-transformers; None for any other layer.
    """
    if hasattr(node, "_batch_id"):
        return node
    if not node.attrs.get("_USE_DOC_ANNOTATIONS_FOR_PREDICTION", True):
        return None  # spacy-curated-transformers: a listener with a transformer of its own
    box = node.attrs.get("mailbox", node.attrs.get("_state"))
    return box if hasattr(box, "batch_id") else None


def listens(model: Model) -> bool:
    """Whether a model has a layer that waits for the outputs of another component.

    model (Model): The model.
    RETURNS (bool): Whether it has.
    """
    return any(delivered_to(node) is not None for node in model.walk())


def got_batch(node: Model) -> bool:
    """Whether a layer has the outputs of another component for a batch in training.

    node (Model): Any layer.
    RETURNS (bool): Whether it has.
    """
    box = delivered_to(node)
    return getattr(box, "_batch_id" if box is node else "batch_id", None) is not None


def batch_identity(docs: Sequence[Doc]) -> tuple:
    """The words of the documents in their order (spaCy's own batch id is a sum, blind to order).

    docs (Sequence[Doc]): The documents.
    RETURNS (tuple): Equal for equal batches.
    """
    return tuple(hash(doc.to_array("ORTH").tobytes()) if len(doc) else 0 for doc in docs)


def is_listener(node: Model, kind: str, upstream: str) -> bool:
    """Whether a layer listens to the component named ``upstream`` for this kind of decision.

    node (Model): Any layer.
    kind (str): ``"parse"`` or ``"graph"``.
    upstream (str): Name of the component.
    RETURNS (bool): Whether it does.
    """
    mailbox = node.attrs.get("mailbox")
    return mailbox is not None and mailbox.kind == kind and mailbox.upstream in ("*", upstream)


@registry.architectures("diffdecode.ParseListener.v1")
def build_parse_listener(upstream: str = "*") -> Model[list[Doc], list[Ints1d]]:
    """The hard parse of another component: for each token its head, -1 for the root.

    The backward pass takes one ``ArcGradient`` per document.

    upstream (str): Name of the parser, or ``"*"``.
    RETURNS (Model[List[Doc], List[Ints1d]]): The layer.
    """
    return _listener("parse_listener", Mailbox(upstream, "parse"), read_heads, has_parse)


@registry.architectures("diffdecode.GraphListener.v1")
def build_graph_listener(upstream: str = "*", labels: list[str] = []) -> Model[list[Doc], list[Ints2d]]:  # noqa: B006
    """The semantic graph of another component: rows (head, dependent, label number) per document.

    The backward pass takes one ``GraphGradient`` per document.

    upstream (str): Name of the component, or ``"*"``.
    labels (List[str]): The labels, in the order of their numbers. Usually left empty: then they are those
        of the component upstream, which tells them when it is initialized. An arc with another label gets
        the number -1.
    RETURNS (Model[List[Doc], List[Ints2d]]): The layer.
    """
    model = _listener("graph_listener", Mailbox(upstream, "graph"), read_arcs, has_graph)
    model.attrs["labels"] = list(labels)
    return model


def _listener(name: str, mailbox: Mailbox, read, is_annotated) -> Model:
    attrs = {"mailbox": mailbox, "read": read, "is_annotated": is_annotated}
    return Model(name, _forward, attrs=attrs)


def _forward(model: Model, docs: Sequence[Doc], is_train: bool):
    mailbox = model.attrs["mailbox"]
    if not is_train:
        return _read(model, docs), _no_backprop
    if mailbox.batch_id is None:
        return _without_gradient(model, docs), _no_backprop
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


def _read(model: Model, docs: Sequence[Doc]) -> list:
    """What is on the documents, brought to the layer's device in one piece."""
    found = [model.attrs["read"](model, doc) for doc in docs]
    together = model.ops.asarray(np.concatenate(found)) if found else []
    return split_rows(together, [len(rows) for rows in found])


def _without_gradient(model: Model, docs: Sequence[Doc]) -> list:
    """In training, from a component upstream that is not trained in this batch: what is on the documents, or
    else what that component makes of them (``nlp.rehearse`` and ``spacy debug model`` call one component
    alone)."""
    mailbox = model.attrs["mailbox"]
    with_words = [doc for doc in docs if len(doc)]
    if not with_words or any(model.attrs["is_annotated"](doc) for doc in with_words):
        if mailbox.pipe is None:
            _warn_of_no_gradient(model.name, mailbox)
        return _read(model, docs)
    if mailbox.pipe is not None and mailbox.pipe.stands_alone:
        pipe = mailbox.pipe
        return pipe.decide(pipe.model.predict(list(docs))).outputs(model.ops)
    raise ValueError(
        f"the {model.name} of '{mailbox.upstream}' has nothing to deliver in training: '{mailbox.upstream}' "
        "was not updated on this batch, and none of the documents is annotated. If it is frozen, list it in "
        "[training.annotating_components] too (annotates=... of nlp.update); for nlp.rehearse, give "
        "documents that went through the pipeline."
    )


def _warn_of_no_gradient(layer: str, mailbox: Mailbox) -> None:
    """Says so once for each layer: the pipeline trains, but not what its user may think."""
    if not mailbox.warned:
        mailbox.warned = True
        warnings.warn(
            f"[D001] The {layer} of '{mailbox.upstream}' reads what is on the documents. No gradient goes "
            f"back through it: '{mailbox.upstream}' is not a component that can be trained this way (spaCy's "
            "own parser is not; spigot_parser and spigot_sdp are). To have it learn from the components "
            "after it, distil it into a spigot_parser: python -m spacy distill-parser",
            UserWarning,
            stacklevel=3,
        )


def _no_backprop(gradients) -> list:
    return []


def has_parse(doc: Doc) -> bool:
    """Whether a document has a parse, or a part of one."""
    return doc.has_annotation("DEP")


def read_heads(model: Model, doc: Doc) -> np.ndarray:
    """The parse on a document.

    model (Model): The listener.
    doc (Doc): The document; one without a parse has no heads.
    RETURNS (numpy.ndarray): ``[n]`` int64 heads, -1 for the root.
    """
    if not has_parse(doc):
        return np.full(len(doc), -1, dtype=np.int64)
    relative = doc.to_array(HEAD).astype(np.int64)
    return np.where(relative == 0, -1, np.arange(len(doc)) + relative)


def has_graph(doc: Doc) -> bool:
    """Whether a document has a semantic graph."""
    return doc._.sdp is not None


def read_arcs(model: Model, doc: Doc) -> np.ndarray:
    """The semantic graph on a document.

    model (Model): The listener, which knows the labels' numbers.
    doc (Doc): The document; one without a graph has no arcs.
    RETURNS (numpy.ndarray): ``[arcs, 3]`` int64.
    """
    graph = get_graph(doc)
    if graph is None:
        return np.zeros((0, 3), dtype=np.int64)
    number = {label: i for i, label in enumerate(model.attrs["labels"])}
    arcs = [(head, dep, number.get(label, -1)) for head, dep, label in graph.arcs]
    return np.array(arcs, dtype=np.int64).reshape(-1, 3)
