"""Components whose hard decision other components read and train."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy.ty import ListenedToComponent
from thinc.api import Model, Optimizer, set_dropout_rate
from torch import Tensor

from spacy_components.ml.listening.mailbox import batch_identity, is_listener, listening_nodes, listens
from spacy_components.ml.thinc_glue.finite import culprit_named
from spacy_components.ml.thinc_glue.parameters import Steps, keys_of_part
from spacy_components.ml.thinc_glue.untrusted import read_weights_only


class ListenedPipe(TrainablePipe):
    """A trainable component with listeners (see ``spacy_components.ml.listening.listener``).

    The loss on the component's own annotation and what the listeners send back are added up on the scores
    and go through the model in *one* backward pass per batch: a second one would count an upstream tok2vec's
    gradient twice. The batch is closed, and that pass made, as soon as all listeners have reported; else by
    ``finish_update``; else when the next batch, or an evaluation, begins. (A listener can stay silent: a
    frozen component's, or that of a component without annotation in this batch.)

    ``nlp.update(sgd=optimizer)`` calls ``finish_update`` before any component downstream was updated. In that
    case the optimizer is kept, and the step taken when the batch is closed.

    A subclass has ``kind`` and ``trees`` or graphs to decide: it implements ``get_loss`` and ``decide``.
    """

    kind: ClassVar[str]
    """What its listeners listen for."""

    def __init__(self, vocab, model: Model, name: str):
        read_weights_only(model)
        self.vocab = vocab
        self.model = model
        self.name = name
        self.listener_map: dict[str, list[Model]] = {}
        self._listening_pipes: dict[str, Any] = {}
        self._open_batch: _OpenBatch | None = None
        self._deferred_sgd: Optimizer | None = None
        self.freeze: tuple[str, ...] = ()
        self.step_size = 1.0
        """What the learning rate is multiplied with."""
        self.optimizer: Optimizer | None = None
        """The optimizer of the last step."""

    # The protocol of spacy.ty.ListenedToComponent

    @property
    def listeners(self) -> list[Model]:
        """The layers that listen to this component."""
        return [listener for name in self.listening_components for listener in self.listener_map[name]]

    @property
    def listening_components(self) -> list[str]:
        """Names of the components that these layers belong to."""
        return list(self.listener_map)

    def add_listener(self, listener: Model, component_name: str) -> None:
        """Add a layer that belongs to the component of that name."""
        listeners = self.listener_map.setdefault(component_name, [])
        if listener not in listeners:
            listeners.append(listener)

    def remove_listener(self, listener: Model, component_name: str) -> bool:
        """Remove a layer.

        Returns:
            Whether it was there.
        """
        listeners = self.listener_map.get(component_name, [])
        if listener not in listeners:
            return False
        listeners.remove(listener)
        listener.attrs["mailbox"].pipe = None
        if not listeners:
            del self.listener_map[component_name]
        return True

    def find_listeners(self, component: Any) -> None:
        """Add all layers of a component that listen to this one.

        A layer that listens to ``"*"`` belongs to the nearest component before its own: spaCy calls this in
        the order of the pipeline, and the last one has it.
        """
        for node in listening_nodes(component):
            mailbox = node.attrs["mailbox"]
            mailbox.before.add(self)
            node.attrs["component"] = component.name
            if is_listener(node, self.kind, self.name):
                if mailbox.pipe is not None:
                    mailbox.pipe.remove_listener(node, component.name)
                self.add_listener(node, component.name)
                mailbox.pipe = self
                self._listening_pipes[component.name] = component
            elif mailbox.pipe is self:  # it was renamed
                mailbox.pipe = None

    @property
    def stands_alone(self) -> bool:
        """Whether it needs no other component's outputs."""
        return not listens(self.model)

    # Training

    def get_loss(self, examples: Sequence[Example], scores: Any) -> tuple[float, list[tuple[Tensor, None]]]:
        """The loss against the examples' own annotation.

        Args:
            examples: the examples; those without annotation add nothing.
            scores: what the model made of them.

        Returns:
            The loss, and what the model's backward pass takes.
        """
        raise NotImplementedError

    def get_drift(self, docs: Sequence[Doc], scores: Any) -> tuple[float, list[tuple[Tensor, None]]]:
        """A penalty for scores that are not what they were before finetuning; none by default.

        Args:
            docs: the documents.
            scores: what the model made of them.

        Returns:
            The penalty, and what the model's backward pass takes.
        """
        return 0.0, []

    def decide(self, scores: Any) -> Any:
        """The decision for the listeners, an object with ``outputs``, ``add`` and ``pairs``."""
        raise NotImplementedError

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch, and hand the listeners their decisions.

        Args:
            examples: the batch.
            drop: the dropout rate.
            sgd: the optimizer.
            losses: losses of all components so far.

        Returns:
            The losses with this component's added.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.update")
        self.close_batch()
        docs = [example.predicted for example in examples]
        set_dropout_rate(self.model, drop)
        scores, backprop = self.model.begin_update(docs)
        with culprit_named(self.name, self.model):
            scores.require_finite()
            loss, pairs = self.get_loss(examples, scores)
            drift, pull = self.get_drift(docs, scores)
        losses[self.name] += loss
        if pull:
            losses[f"{self.name}_drift"] = losses.get(f"{self.name}_drift", 0.0) + drift
        listeners = self.listeners
        decision = self.decide(scores) if listeners else None
        self._open_batch = _OpenBatch(self, backprop, [*pairs, *pull], decision, len(listeners))
        if listeners:
            identity, outputs = batch_identity(docs), decision.outputs(self.model.ops)
            for listener in listeners:
                listener.attrs["mailbox"].receive(identity, outputs, self._open_batch.receive)
        else:
            self.close_batch()
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Optimizer) -> None:
        """Close the batch and step; if no listener has reported yet, when one does.

        Args:
            sgd: the optimizer.
        """
        if self._open_batch is not None and not self._open_batch.reports:
            self._deferred_sgd = sgd
            return
        self.close_batch()
        self.step(sgd)

    def step(self, sgd: Optimizer) -> None:
        """Step all parameters that have a gradient and are not frozen.

        Args:
            sgd: the optimizer.
        """
        size = 1.0
        if isinstance(sgd, Optimizer):  # nlp.rehearse gives a function that only collects gradients
            self.optimizer, size = sgd, self.step_size
        frozen = {key for part in self.freeze for key in keys_of_part(self.model, part)}
        self.model.finish_update(Steps(sgd, frozen, size))

    def close_batch(self) -> None:
        """Make the backward pass of the batch, if there is one that waits for its listeners."""
        if self._open_batch is not None:
            for name in self.listening_components:  # what they hold back comes through here
                pipe = self._listening_pipes.get(name)
                if isinstance(pipe, ListenedPipe):
                    pipe.close_batch()
        batch, self._open_batch = self._open_batch, None
        if batch is not None:
            for listener in self.listeners:
                listener.attrs["mailbox"].clear()
            batch.backprop([*batch.pairs, *(batch.decision.pairs() if batch.reports else [])])
            if self._deferred_sgd is not None:
                sgd, self._deferred_sgd = self._deferred_sgd, None
                self.step(sgd)

    def use_params(self, params: dict):
        """Use other parameter values, such as averages, for a while; closes the batch first.

        Args:
            params: the values.
        """
        self.close_batch()
        with self.model.use_params(params):
            yield

    def to_bytes(self, *, exclude=()):
        """The component, with the batch closed."""
        self.close_batch()
        return super().to_bytes(exclude=exclude)

    def to_disk(self, path, *, exclude=()):
        """Save the component, with the batch closed.

        Args:
            path: the directory.
        """
        self.close_batch()
        super().to_disk(path, exclude=exclude)

    def __reduce__(self) -> tuple:
        """What ``pickle`` and ``copy.deepcopy`` take, with the batch closed."""
        self.close_batch()
        return super().__reduce__()

    def require_frozen_parts(self) -> None:
        """Check that there is what ``freeze`` names; raises ValueError otherwise."""
        for part in self.freeze:
            keys_of_part(self.model, part)

    def require_order(self, nlp) -> None:
        """Check that gradients come in time at each tok2vec or transformer shared with other components.

        Such a component makes its backward pass when the last of *its* listeners reports. That has to be
        late enough for what the components downstream of this one send back through it.

        Args:
            nlp: the pipeline.
        """
        if nlp is None or not self.listening_components:
            return
        mine = set(map(id, self.model.walk()))
        last, names = self.listening_components[-1], nlp.component_names
        for name, upstream in nlp.components:
            if upstream is self or not isinstance(upstream, ListenedToComponent):
                continue
            if not any(id(listener) in mine for listener in upstream.listeners):
                continue
            firing = upstream.listening_components[-1]
            if firing != self.name and names.index(firing) < names.index(last):
                raise ValueError(
                    f"'{self.name}' and '{firing}' share '{name}', and '{last}' trains '{self.name}'. So "
                    f"'{name}' makes its backward pass at '{firing}', before the gradient of '{last}' "
                    f"arrives, and it would be lost. Move '{firing}' before '{self.name}' or after '{last}'."
                )


class _OpenBatch:
    """A batch whose backward pass waits for the listeners."""

    def __init__(self, pipe: ListenedPipe, backprop: Callable, pairs: list, decision: Any, listeners: int):
        self.pipe = pipe
        self.backprop = backprop
        self.pairs = pairs
        self.decision = decision
        self.listeners = listeners
        self.reports = 0

    def receive(self, gradients: Sequence) -> None:
        """Take a listener's gradient; the last one's closes the batch."""
        if self.pipe._open_batch is not self:
            raise ValueError(
                f"a gradient on the decisions of '{self.pipe.name}' came after its next batch had begun; "
                "call each backprop callback before the next update"
            )
        self.decision.add(gradients)
        self.reports += 1
        if self.reports == self.listeners:
            self.pipe.close_batch()
