"""Components whose hard decision other components read and train."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import torch
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.ty import ListenedToComponent
from spacy.vocab import Vocab
from thinc.api import Model, Optimizer, set_dropout_rate
from torch import Tensor

from diffdecode.structure import looked_at_once
from spacy_components.finetuning.balance import GradientBalance
from spacy_components.finetuning.original import Original
from spacy_components.ml.listening.absence import warn_of_nobody_listening
from spacy_components.ml.listening.mailbox import batch_identity, is_listener, listening_nodes, listens
from spacy_components.ml.listening.upstream import require_upstreams
from spacy_components.ml.thinc_glue.finite import culprit_named, require_finite
from spacy_components.ml.thinc_glue.parameters import Steps, keys_of_part
from spacy_components.ml.thinc_glue.untrusted import read_weights_only
from spacy_components.ml.trees.models import DocScores
from spacy_components.settings import OLD_NAMES, ListenedSettings, name_of, named, without_old_names


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

    def __init__(self, vocab: Vocab, model: Model, name: str, settings: ListenedSettings):
        read_weights_only(model)
        self.vocab = vocab
        self.model = model
        self.name = name
        self.listener_map: dict[str, list[Model]] = {}
        self._listening_pipes: dict[str, Any] = {}
        self._open_batch: _OpenBatch | None = None
        self._deferred_sgd: Optimizer | None = None
        self.settings = settings
        self.step_size = settings.step_size
        """What the learning rate is multiplied with; a guard may make it smaller."""
        self.optimizer: Optimizer | None = None
        """The optimizer of the last step."""
        self._steps = 0
        self._balance = GradientBalance(name)
        self._original: Original | None = None
        self.apply_settings()

    def configure(self, **settings: Any) -> None:
        """Change how the component is trained from here on. What it predicts stays the same.

        Args:
            **settings: any of its settings but those that say what it predicts.

        Raises:
            ValueError: another setting, or an impossible value.
        """
        known = self.settings.of_training()
        unknown = set(settings) - {*known, *OLD_NAMES}
        if unknown:
            raise ValueError(
                f"'{self.name}': no training setting {', '.join(sorted(unknown))}; there are "
                f"{', '.join(known)}"
            )
        with named(self.name):
            changes = without_old_names(settings, self.settings)
            self.settings = replace(self.settings, **changes)
        self.step_size = changes.get("step_size", self.step_size)
        self.apply_settings()

    def apply_settings(self) -> None:
        """Do what the settings say, after they have changed."""
        raise NotImplementedError

    def some_docs(self, get_examples: Callable[[], Iterable[Example]], nlp: Language | None) -> list[Doc]:
        """Documents to initialize the model with, after a look at what ``initialize`` was given.

        Args:
            get_examples: what it was given.
            nlp: the pipeline.

        Raises:
            ValueError: there are none, or nobody whom one of its layers listens to.
        """
        validate_get_examples(get_examples, f"{type(self).__name__}.initialize")
        require_upstreams(nlp, get_examples)
        docs = [example.predicted for example in islice(get_examples(), 10)]
        if not docs:
            raise ValueError(f"'{self.name}': no examples to initialize it with: is the corpus empty?")
        return docs

    def begin_training(self) -> None:
        """Forget the steps that were made, and what the original was: this component is new."""
        self._steps = 0
        self._original = None

    def require_place(self, nlp: Language | None) -> None:
        """Check, at the end of ``initialize``, what it depends on in the pipeline.

        Args:
            nlp: the pipeline.
        """
        self.require_frozen_parts()
        self.require_order(nlp)
        self.warn_if_unheard(nlp)

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

    def get_drift(self, docs: Sequence[Doc], scores: DocScores) -> tuple[float, list[tuple[Tensor, None]]]:
        """The weighted drift from the component as it was, if ``drift`` is set, summed over the words.

        Args:
            docs: the documents, with or without annotation.
            scores: what the model made of them.

        Returns:
            The penalty, and what the model's backward pass takes.
        """
        drift = self.settings.drift
        if drift is None or not scores.scores:
            return 0.0, []
        if self._original is None:
            self._original = Original(self.model, self.name)
        original = self._original.scores(docs, self.model)

        def summed() -> Tensor:
            parts = [self.distance(drift.kind, *pair) for pair in zip(scores.scores, original.scores)]
            return require_finite(drift.weight * torch.stack(parts).sum(), "the drift")

        total = looked_at_once(summed)
        return float(total.detach()), [(total, None)]

    def distance(self, kind: str, now: Any, original: Any) -> Tensor:
        """How far the scores of a batch of segments are from what they were, a scalar.

        Args:
            kind: of drift.
            now: the scores.
            original: those of the same segments before.
        """
        raise NotImplementedError

    def decide(self, scores: Any) -> Any:
        """The decision for the listeners, an object with ``outputs``, ``add`` and ``pairs``."""
        raise NotImplementedError

    def wish(self, listener: Model) -> Any:
        """What a listener wants to be given: for most components, whether it is ``soft``."""
        return listener.attrs["mailbox"].soft

    def decide_as(self, soft: Any, scores: Any) -> Any:
        """What a listener is given: the decision, or if it is ``soft`` the probabilities of all there are.

        Args:
            soft: which of the two; what ``wish`` returned.
            scores: what the model made.

        Raises:
            ValueError: soft, from a component that has no such thing.
        """
        if soft:
            raise ValueError(f"'{self.name}' gives listeners its decisions only, no probabilities")
        return self.decide(scores)

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
            looked_at_once(scores.require_finite)
            loss, pairs = self.get_loss(examples, scores)
            drift, pull = self.get_drift(docs, scores)
        losses[self.name] += loss
        if pull:
            losses[f"{self.name}_drift"] = losses.get(f"{self.name}_drift", 0.0) + drift
        listeners = self.listeners
        wishes = [self.wish(listener) for listener in listeners]
        decisions = {wish: self.decide_as(wish, scores) for wish in dict.fromkeys(wishes)}
        batch = _OpenBatch(self, backprop, pairs, pull, list(decisions.values()), len(listeners))
        self._open_batch = batch
        outputs = {wish: decision.outputs(self.model.ops) for wish, decision in decisions.items()}
        identity = batch_identity(docs) if listeners else ()
        for listener, wish in zip(listeners, wishes):
            receive = partial(batch.receive, decisions[wish])
            listener.attrs["mailbox"].receive(identity, outputs[wish], receive)
        if not listeners:
            self.close_batch()
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def rehearse(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn to score documents as the original did; see ``drift``, without which this does nothing.

        Args:
            examples: the documents; they need no annotation.
            drop: the dropout rate.
            sgd: the optimizer.
            losses: of all components so far.

        Returns:
            The losses with this component's added.
        """
        losses = {} if losses is None else losses
        docs = [example.predicted for example in examples]
        self.close_batch()
        if self.settings.drift is not None:
            set_dropout_rate(self.model, drop)
            scores, backprop = self.model.begin_update(docs)
            with culprit_named(self.name, self.model):
                scores.require_finite()
                loss, pairs = self.get_drift(docs, scores)
            losses[self.name] = losses.get(self.name, 0.0) + loss
            backprop(pairs)
            if sgd is not None:
                self.step(sgd)
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
        if isinstance(sgd, Optimizer):  # nlp.rehearse gives a function that only collects gradients
            self.optimizer = sgd
            self._steps += 1
        frozen = {key for part in self.settings.freeze for key in keys_of_part(self.model, part)}
        self.model.finish_update(Steps(sgd, frozen, self.step_size))

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
            is_open = batch.reports and self._steps >= self.settings.warm_steps
            sent = [pair for decision in batch.decisions for pair in decision.pairs()] if is_open else []
            self._balance.watch(batch.own, sent)
            batch.backprop([*batch.own, *batch.pull, *sent])
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

    def from_bytes(self, bytes_data: bytes, *, exclude=()) -> "ListenedPipe":
        """Load the component; the original that ``drift`` compares with is then what was loaded.

        Args:
            bytes_data: the output of ``to_bytes``.
        """
        self._original = None
        return super().from_bytes(bytes_data, exclude=exclude)

    def from_disk(self, path, *, exclude=()) -> "ListenedPipe":
        """Load the component; the original that ``drift`` compares with is then what was loaded.

        Args:
            path: the directory.
        """
        self._original = None
        return super().from_disk(path, exclude=exclude)

    def __reduce__(self) -> tuple:
        """What ``pickle`` and ``copy.deepcopy`` take, with the batch closed."""
        self.close_batch()
        return super().__reduce__()

    def require_frozen_parts(self) -> None:
        """Check that there is what ``freeze`` names; raises ValueError otherwise."""
        for part in self.settings.freeze:
            keys_of_part(self.model, part)

    def warn_if_unheard(self, nlp: Language | None) -> None:
        """Say so where components after this one could read its decisions, and none does.

        Args:
            nlp: the pipeline.
        """
        sends = self.settings.grad_factor and name_of(self.settings.surrogate) != "pipeline"
        if nlp is None or self.listening_components or not sends:
            return
        after = nlp.pipeline[nlp.pipe_names.index(self.name) + 1 :]
        able = [name for name, pipe in after if isinstance(pipe, TrainablePipe) and not self._is_alike(pipe)]
        if able:
            warn_of_nobody_listening(self.name, able)

    def _is_alike(self, pipe: TrainablePipe) -> bool:
        return getattr(pipe, "kind", None) == self.kind

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

    def __init__(
        self, pipe: ListenedPipe, backprop: Callable, own: list, pull: list, decisions: list, listeners: int
    ):
        self.pipe = pipe
        self.backprop = backprop
        self.own = own
        self.pull = pull
        self.decisions = decisions
        self.listeners = listeners
        self.reports = 0

    def receive(self, decision: Any, gradients: Sequence) -> None:
        """Take a listener's gradient on what it was given; the last one's closes the batch."""
        if self.pipe._open_batch is not self:
            raise ValueError(
                f"a gradient on the decisions of '{self.pipe.name}' came after its next batch had begun; "
                "call each backprop callback before the next update"
            )
        decision.add(gradients)
        self.reports += 1
        if self.reports == self.listeners:
            self.pipe.close_batch()
