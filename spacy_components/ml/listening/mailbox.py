"""What a listener knows of the component that it listens to, and of the batch that it is given."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spacy.tokens import Doc
from thinc.api import Model

from spacy_components.ml.listening.annotations import ANNOTATIONS, SOFT_PARSE, Annotation, graph_under
from spacy_components.sdp_graph import DEFAULT_KEY

SOFT_LISTENER = "diffdecode.SoftParseListener.v1"
"""What a config calls the listener that is given probabilities."""


class Mailbox:
    """Whom a listener listens to, and the batch that was delivered last.

    A copy, or one that was pickled, holds no batch.

    Args:
        upstream: name of the component upstream, or ``"*"``: of those of the right kind that stand before the
            listener's component, the nearest one, whose annotation is also what is on the documents.
        kind: what it listens for: ``"parse"`` or ``"graph"``.
        key: of a graph, where the listener's user gave it; else "".
        soft: whether it listens for probabilities, and not for the decision.
    """

    def __init__(self, upstream: str, kind: str, key: str = "", soft: bool = False):
        self.upstream = upstream
        self.kind = kind
        self.key = key
        self.soft = soft
        self.before: weakref.WeakSet = weakref.WeakSet()
        """The components that stand before the listener's and can take gradients, of any kind."""
        self.sample: weakref.WeakSet[Doc] = weakref.WeakSet()
        """The documents that the layer was initialized with."""
        self.told: set[str] = set()
        """What its user was warned of."""
        self._pipe: Callable[[], Any] = _nobody
        self.clear()

    @property
    def pipe(self) -> Any:
        """The component upstream where it is one that can take a gradient, else None.

        It is known as long as it is part of a pipeline (or in other hands)."""
        return self._pipe()

    @pipe.setter
    def pipe(self, pipe: Any) -> None:
        self._pipe = _nobody if pipe is None else weakref.ref(pipe)

    def clear(self) -> None:
        """Forget the batch."""
        self.batch_id: tuple | None = None
        self.outputs: Any = None
        self.backprop: Callable[[Any], None] | None = None

    def receive(self, batch_id: tuple, outputs: Any, backprop: Callable[[Any], None]) -> None:
        """Take the decisions for a batch, and whom to call with the gradient on them.

        Args:
            batch_id: the output of ``batch_identity``.
            outputs: one decision per document.
            backprop: takes one gradient per document.
        """
        self.batch_id, self.outputs, self.backprop = batch_id, outputs, backprop

    def is_first_time(self, message: str) -> bool:
        """Whether this has not been told before; from now on it has.

        Args:
            message: a name for what is told.

        Returns:
            Whether to tell it.
        """
        if message in self.told:
            return False
        self.told.add(message)
        return True

    def __deepcopy__(self, memo) -> "Mailbox":
        """In a copied pipeline it is linked to the component's copy, in a copied model to the same one."""
        copied = Mailbox(self.upstream, self.kind, self.key, self.soft)
        copied.pipe = memo.get(id(self.pipe), self.pipe)
        copied.before.update(memo.get(id(pipe), pipe) for pipe in self.before)
        return copied

    def __reduce__(self):
        return Mailbox, (self.upstream, self.kind, self.key, self.soft), {"pipe": self.pipe}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.pipe = state["pipe"]


def annotation_of(node: Model) -> Annotation:
    """What a listener listens for, and where it is on documents.

    Args:
        node: the listener.
    """
    kind, soft = node.attrs["mailbox"].kind, node.attrs["mailbox"].soft
    if soft:
        return SOFT_PARSE
    return graph_under(node.attrs["key"] or DEFAULT_KEY) if kind == "graph" else ANNOTATIONS[kind]


def _nobody() -> None:
    return None


def delivered_to(node: Model) -> Any:
    """Where a layer keeps the outputs of another component that is updated on the same batch.

    Args:
        node: any layer.

    Returns:
        An object, for the listeners of this package and those of spacy, spacy-transformers and
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

    Args:
        model: the model.

    Returns:
        Whether it has.
    """
    return any(delivered_to(node) is not None for node in model.walk())


def got_batch(node: Model) -> bool:
    """Whether a layer has the outputs of another component for a batch in training.

    Args:
        node: any layer.

    Returns:
        Whether it has.
    """
    box = delivered_to(node)
    return getattr(box, "_batch_id" if box is node else "batch_id", None) is not None


def batch_identity(docs: Sequence[Doc]) -> tuple:
    """The words of the documents in their order (spaCy's own batch id is a sum, blind to order).

    Args:
        docs: the documents.

    Returns:
        Equal for equal batches.
    """
    return tuple(hash(doc.to_array("ORTH").tobytes()) if len(doc) else 0 for doc in docs)


def listening_nodes(component: Any) -> Iterable[Model]:
    """The layers of this package's kind by which a component listens to others.

    Args:
        component: a component of a pipeline, or None.

    Returns:
        They have a ``mailbox``.
    """
    model = getattr(component, "model", None)
    if isinstance(model, Model):
        yield from (node for node in model.walk() if "mailbox" in node.attrs)


def is_listener(node: Model, kind: str, upstream: str) -> bool:
    """Whether a layer listens to the component named ``upstream`` for this kind of decision.

    Args:
        node: any layer.
        kind: ``"parse"`` or ``"graph"``.
        upstream: name of the component.

    Returns:
        Whether it does.
    """
    mailbox = node.attrs.get("mailbox")
    return mailbox is not None and mailbox.kind == kind and mailbox.upstream in ("*", upstream)
