"""Settings of the components: written once, and read by factories, constructors, callbacks, copies and docs.

A setting is a field of a frozen dataclass. Where its value is an object (a surrogate, a drift), a config has
a registered block, or its name alone if all of its own options stay as they are::

    [components.spigot_parser.surrogate]
    @misc = "diffdecode.spigot_eg.v1"
    eta = 0.1
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar, get_type_hints

from diffdecode.structure import SURROGATES, Surrogate, make_surrogate
from diffdecode.structure.surrogates import StructuredStraightThrough
from spacy_components.confidence.annotations import CONFIDENCE, GRAPH_CONFIDENCE
from spacy_components.finetuning.drift import DRIFTS, Drift
from spacy_components.finetuning.graph_drift import GRAPH_DRIFTS
from spacy_components.ml.graphs.losses import GRAPH_LOSSES, JOINT_LOSSES
from spacy_components.ml.surrogate_blocks import SURROGATE_BLOCK
from spacy_components.ml.thinc_glue.parameters import require_step_size
from spacy_components.ml.trees.losses import TREE_LOSSES
from spacy_components.sdp_graph import DEFAULT_KEY, make_key

F = TypeVar("F", bound=Callable)

DRIFT_BLOCK = "diffdecode.drift.v1"
STRUCTURE = {"structure": True}
"""Of a field that says what is predicted, and not how that is learned."""


@dataclass(frozen=True, kw_only=True)
class ListenedSettings:
    """How a component learns from the components that listen to it, and keeps from being spoilt by them.

    Attributes:
        loss: on the component's own annotation; see ``LOSSES``.
        surrogate: the gradient of its decisions: any hard one of ``diffdecode``'s surrogates.
        grad_factor: what the surrogate gradient is multiplied with; 0 is a pipeline.
        step_size: what the learning rate is multiplied with, for this component alone.
        warm_steps: steps on its own annotation before the surrogate gradient is let in.
        freeze: parts of the model that stay exactly as they are: ``tok2vec``, ``scorer`` (all the rest), or a
            module of the scorer. Gradients still pass through them.
        drift: penalise scores that are not those of the component as it was at its first update after it was
            made, initialized or loaded; see ``DRIFTS``. Needs the memory of a second model. It is what
            ``nlp.rehearse`` does, too.
    """

    LOSSES: ClassVar[Mapping[str, Any]]
    DRIFTS: ClassVar[Mapping[str, Any]]

    loss: str
    surrogate: Surrogate = field(default_factory=StructuredStraightThrough)
    grad_factor: float = 0.75
    step_size: float = 1.0
    warm_steps: int = 0
    freeze: Sequence[str] = ()
    drift: Drift | None = None

    def __post_init__(self):
        set_field = object.__setattr__  # of a frozen dataclass
        if isinstance(self.freeze, str):
            raise ValueError(f"freeze takes a list, such as [{self.freeze!r}]")
        set_field(self, "freeze", tuple(self.freeze))
        set_field(self, "surrogate", hard_surrogate(self.surrogate))
        set_field(self, "drift", Drift(self.drift) if isinstance(self.drift, str) else self.drift)
        if self.loss not in self.LOSSES:
            raise ValueError(f"no loss {self.loss!r}; there are {', '.join(sorted(self.LOSSES))}")
        if self.drift is not None and self.drift.kind not in self.DRIFTS:
            raise ValueError(f"no drift {self.drift.kind!r}; there are None, {', '.join(self.DRIFTS)}")
        require_step_size(self.step_size)
        if self.warm_steps < 0:
            raise ValueError(f"warm_steps must be 0 or more, got {self.warm_steps!r}")

    @classmethod
    def of_training(cls) -> list[str]:
        """Names of the settings that a trained component can change."""
        return [setting.name for setting in fields(cls) if setting.metadata != STRUCTURE]

    @classmethod
    def made(cls, owner: str, settings: Mapping[str, Any]) -> "ListenedSettings":
        """The settings of a config, in which old names may stand.

        Args:
            owner: who they belong to, for messages.
            settings: values by their names; None is the default for those that cannot be None.

        Raises:
            ValueError: an impossible value.
        """
        nullable = {setting.name for setting in fields(cls) if setting.default is None}
        with named(owner):
            new = without_old_names(settings)
            given = {name: value for name, value in new.items() if value is not None or name in nullable}
            return cls(**given)


@dataclass(frozen=True, kw_only=True)
class SpigotParserSettings(ListenedSettings):
    """The settings of ``spigot_parser``; those of every such component are in ``ListenedSettings``.

    Attributes:
        projective: forbid crossing arcs.
        multi_root: whether a segment (see the model's ``segmenter``) may hold several trees; each is a
            sentence of its own. Sentence starts that are set before are kept, whatever this says.
        loss: ``cross_entropy`` (each head by itself), ``hinge`` (the best tree with cost augmentation) or
            ``likelihood`` (of the tree among all trees).
        confidence: what is written on a document beside its tree: ``head_probs`` (``doc._.head_probs`` and
            ``token._.head_prob``), ``tree_entropy`` (``doc._.tree_entropy``), ``arc_probs``
            (``doc._.arc_probs``: of all arcs, in the tree or not).
    """

    LOSSES = TREE_LOSSES
    DRIFTS = DRIFTS

    projective: bool = field(default=True, metadata=STRUCTURE)
    multi_root: bool = field(default=True, metadata=STRUCTURE)
    loss: str = "cross_entropy"
    confidence: Sequence[str] = field(default=(), metadata=STRUCTURE)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "confidence", _listed(self.confidence, CONFIDENCE))


@dataclass(frozen=True, kw_only=True)
class SpigotSdpSettings(ListenedSettings):
    """The settings of ``spigot_sdp``; those of every such component are in ``ListenedSettings``.

    Attributes:
        key: of the graphs: ``sdp`` for ``doc._.sdp``. With ``psd`` they are in ``doc._.psd``, and the scores
            are ``psd_lf`` and so on, which ``[training.score_weights]`` then has to name.
        deterministic: labels that a predicate gives to one argument at most; None takes those for which this
            holds in all the training data, [] none.
        loss: ``local`` (each part by itself), ``likelihood`` (of the graph among all graphs) or ``hinge``
            (structured, with cost augmentation: the SPIGOT paper's, which from scratch learns far more slowly
            than the others).
        confidence: what is written on a document beside its graph: ``arc_probs`` (``doc._.sdp_arc_probs``),
            ``entropy`` (``doc._.sdp_entropy``).
    """

    LOSSES = GRAPH_LOSSES
    DRIFTS = GRAPH_DRIFTS

    key: str = field(default=DEFAULT_KEY, metadata=STRUCTURE)
    deterministic: Sequence[str] | None = field(default=None, metadata=STRUCTURE)
    loss: str = "local"
    confidence: Sequence[str] = field(default=(), metadata=STRUCTURE)

    def __post_init__(self):
        super().__post_init__()
        make_key(self.key)
        object.__setattr__(self, "confidence", _listed(self.confidence, GRAPH_CONFIDENCE))


@dataclass(frozen=True, kw_only=True)
class JointSdpSettings(ListenedSettings):
    """The settings of ``joint_sdp``; those of every such component are in ``ListenedSettings``.

    Attributes:
        keys: of the two graphs, such as ``dm`` for ``doc._.dm``.
        loss: ``local`` (each decision by itself; what two arcs between the same words are is one) or
            ``likelihood`` (of both graphs among all pairs of graphs).
    """

    LOSSES = JOINT_LOSSES
    DRIFTS: ClassVar[Mapping[str, Any]] = {}

    keys: Sequence[str] = field(default=("dm", "eud"), metadata=STRUCTURE)
    loss: str = "local"

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.keys, str) or len(set(self.keys)) != 2 or len(self.keys) != 2:
            raise ValueError(f"keys takes a list of two different keys, got {self.keys!r}")
        object.__setattr__(self, "keys", tuple(self.keys))


def _listed(confidence: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    if isinstance(confidence, str):
        raise ValueError(f"confidence takes a list, such as [{confidence!r}]")
    for name in confidence:
        if name not in known:
            raise ValueError(f"no confidence {name!r}; there are {', '.join(known)}")
    return tuple(confidence)


@contextmanager
def named(owner: str) -> Iterator[None]:
    """Have a wrong setting say whose it is.

    Args:
        owner: a component's name.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"'{owner}': {error}") from error


def hard_surrogate(surrogate: str | Surrogate, **options: Any) -> Surrogate:
    """A surrogate gradient that leaves the decision hard.

    Args:
        surrogate: it, or its name.
        options: with a name, its options.

    Raises:
        ValueError: there is none of that name, or it sends an average of structures forward.
        TypeError: it has no such option.
    """
    made = make_surrogate(surrogate, **options)
    if not made.hard:
        raise ValueError(
            f"surrogate '{name_of(made)}' sends an average of structures forward, but what a component "
            "writes on a document, and other components read there, is one hard structure. For the gradient "
            "of structured attention under a hard decision choose 'structured_st'; for components that read "
            "probabilities, diffdecode.SoftHeadConcat.v1."
        )
    return made


def name_of(surrogate: Surrogate) -> str:
    """The name that a surrogate is registered by."""
    return next(name for name, made in SURROGATES.items() if made is type(surrogate))


def as_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a config writes them.

    Args:
        settings: values by their names.
    """
    return {name: _written(value) for name, value in settings.items()}


def _written(value: Any) -> Any:
    if isinstance(value, Surrogate):
        return {"@misc": SURROGATE_BLOCK.format(name_of(value)), **asdict(value)}
    if isinstance(value, Drift):
        return {"@misc": DRIFT_BLOCK, **asdict(value)}
    return list(value) if isinstance(value, tuple) else value


def values_of(settings: ListenedSettings) -> dict[str, Any]:
    """The settings by their names, not descending into a surrogate's own."""
    return {setting.name: getattr(settings, setting.name) for setting in fields(settings)}


def takes_settings(
    settings: type[ListenedSettings],
    names: Sequence[str] | None = None,
    default: Any = inspect.Parameter.empty,
) -> Callable[[F], F]:
    """Decorator of a registered function: its ``**settings`` are a dataclass's fields, and the old names.

    Args:
        settings: the dataclass.
        names: only these fields of it.
        default: what is passed for a field that a config does not have; by default it has to have all.
    """
    hints = get_type_hints(settings)
    types = {name: hints[name] | str if name in ("surrogate", "drift") else hints[name] for name in hints}

    def with_signature(function: F) -> F:
        given = inspect.signature(function)
        parameters = [p for p in given.parameters.values() if p.kind is not p.VAR_KEYWORD]
        chosen = [setting.name for setting in fields(settings) if names is None or setting.name in names]
        keyword = inspect.Parameter.KEYWORD_ONLY
        optional = default is not inspect.Parameter.empty
        for name in chosen:
            annotation = types[name] | None if optional else types[name]
            parameters.append(inspect.Parameter(name, keyword, default=default, annotation=annotation))
        for name, annotation in OLD_NAMES.items():
            if annotation[0] in chosen:
                parameters.append(
                    inspect.Parameter(name, keyword, default=None, annotation=annotation[1] | None)
                )
        function.__signature__ = given.replace(parameters=parameters)
        annotations = {p.name: p.annotation for p in parameters}
        function.__annotations__ = annotations | {"return": given.return_annotation}
        return function

    return with_signature


# ---- names of 0.1, which go with 0.3

OLD_NAMES = {
    "eta": ("surrogate", float),
    "surrogate_options": ("surrogate", dict),
    "drift_weight": ("drift", float),
}
"""Settings of before, what they were about, and their types."""


def without_old_names(settings: Mapping[str, Any], current: ListenedSettings | None = None) -> dict[str, Any]:
    """Settings in which ``eta``, ``surrogate_options`` and ``drift_weight`` have gone into the blocks.

    Args:
        settings: values by their names, of which those that are None were not given.
        current: the settings that these change.
    """
    new = {name: value for name, value in settings.items() if name not in OLD_NAMES}
    old = {name: settings[name] for name in OLD_NAMES if settings.get(name) is not None}
    if not old:
        return new
    warnings.warn(
        f"{', '.join(old)}: old settings, which go with version 0.3. A surrogate and a drift have blocks of "
        'their own now, such as [components.spigot_parser.surrogate] @misc = "diffdecode.spigot.v1"',
        FutureWarning,
        stacklevel=3,
    )
    options = dict(old.get("surrogate_options", {}))
    if "eta" in old or options:
        surrogate = new.get("surrogate", getattr(current, "surrogate", None))
        new["surrogate"] = _with_old_options(surrogate, old.get("eta"), options)
    drift = new.get("drift", getattr(current, "drift", None))
    if "drift_weight" in old and drift is not None:
        new["drift"] = Drift(drift if isinstance(drift, str) else drift.kind, old["drift_weight"])
    return new


def _with_old_options(surrogate: str | Surrogate | None, eta: Any, options: dict[str, Any]) -> Surrogate:
    """The surrogate with these options; where it is a new default, the old one."""
    made = SURROGATES[surrogate] if isinstance(surrogate, str) else type(surrogate)
    known = inspect.signature(made).parameters
    if eta is not None and "eta" in known:
        options.setdefault("eta", eta)
    if isinstance(surrogate, str):
        return hard_surrogate(surrogate, **options)
    if surrogate is not None and set(options) <= set(known) and (options or eta is None):
        return hard_surrogate(replace(surrogate, **options))
    return hard_surrogate("spigot", **({} if eta is None else {"eta": eta}) | options)
