"""Private copies: what a listener becomes when ``nlp.replace_listeners`` makes a component independent."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from spacy import registry
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Ints1d, Ints2d

from diffdecode.structure import TreeKind
from spacy_components.ml.graphs.decisions import GraphDecoder
from spacy_components.ml.thinc_glue.finite import culprit_named
from spacy_components.ml.trees.decisions import TreeDecoder, surrogate_from_config


@registry.architectures("diffdecode.StandaloneParse.v1")
def build_standalone_parse(
    parser: Model,
    projective: bool = True,
    multi_root: bool = True,
    surrogate: str = "spigot",
    surrogate_options: dict[str, Any] = {},  # noqa: B006
    eta: float = 1.0,
    grad_factor: float = 1.0,
) -> Model[list[Doc], list[Ints1d]]:
    """A parser inside another component's model, in the place of ``diffdecode.ParseListener.v1``.

    It parses the documents itself, in training as in prediction, and only that component trains it.

    Args:
        parser: the parser's model. The rest are the settings of ``spigot_parser``.

    Returns:
        The layer.
    """
    trees = TreeKind(projective=projective, multi_root=multi_root)
    decoder = TreeDecoder(trees, surrogate_from_config(surrogate, eta, surrogate_options), grad_factor)
    return _standalone("standalone_parse", parser, {"decide": decoder.decide})


@registry.architectures("diffdecode.StandaloneGraph.v1")
def build_standalone_graph(
    parser: Model,
    surrogate: str = "spigot",
    surrogate_options: dict[str, Any] = {},  # noqa: B006
    eta: float = 1.0,
    grad_factor: float = 1.0,
    labels: list[str] = [],  # noqa: B006
    deterministic: list[int] = [],  # noqa: B006
) -> Model[list[Doc], list[Ints2d]]:
    """A semantic parser inside another component's model, in the place of ``diffdecode.GraphListener.v1``.

    It parses the documents itself, in training as in prediction, and only that component trains it.

    Args:
        parser: the parser's model. The rest are the settings of ``spigot_sdp``.
        labels: its labels; saved with the model, as are the next ones.
        deterministic: numbers of its deterministic labels.

    Returns:
        The layer.
    """
    decoder = GraphDecoder(surrogate_from_config(surrogate, eta, surrogate_options), grad_factor)
    attrs = {"labels": list(labels), "deterministic": list(deterministic)}
    model = _standalone("standalone_graph", parser, attrs)
    model.attrs["decide"] = partial(_decide_graphs, decoder, model.attrs)
    return model


def _decide_graphs(decoder: GraphDecoder, attrs: dict[str, Any], scores):
    return decoder.decide(scores, attrs["deterministic"])


def _standalone(name: str, parser: Model, attrs: dict[str, Any]) -> Model:
    return Model(name, _forward, init=_init, layers=[parser], attrs=attrs)


def _init(model: Model, X=None, Y=None) -> None:
    model.layers[0].initialize(X=X)


def _forward(model: Model, docs: Sequence[Doc], is_train: bool):
    scores, backprop_scores = model.layers[0](docs, is_train)
    with culprit_named(model.name, model):
        scores.require_finite()
    decision = model.attrs["decide"](scores)

    def backprop(gradients) -> list:
        decision.add(gradients)
        return backprop_scores(decision.pairs())

    return decision.outputs(model.ops), backprop


def replaced_parse_listener(decoding: dict[str, Any]) -> dict[str, Any]:
    """Attributes that tell ``nlp.replace_listeners`` what a parser's listener is to be replaced with.

    Args:
        decoding: the settings of ``diffdecode.StandaloneParse.v1``.

    Returns:
        Attributes for the parser's model.
    """
    return {
        "replace_listener": partial(_private_parse, decoding),
        "replace_listener_cfg": partial(_private_config, "diffdecode.StandaloneParse.v1", decoding),
    }


def replaced_graph_listener(decoding: dict[str, Any]) -> dict[str, Any]:
    """The same for a semantic parser.

    Args:
        decoding: the settings of ``diffdecode.StandaloneGraph.v1``.

    Returns:
        Attributes for the parser's model.
    """
    return {
        "replace_listener": partial(_private_graph, decoding),
        "replace_listener_cfg": partial(_private_config, "diffdecode.StandaloneGraph.v1", decoding),
    }


# spaCy calls these with exactly three and two arguments.


def _private_parse(decoding: dict[str, Any], parser: Model, listener: Model, pipe: Any) -> Model:
    return build_standalone_parse(parser, **decoding)


def _private_graph(decoding: dict[str, Any], parser: Model, listener: Model, pipe: Any) -> Model:
    return build_standalone_graph(
        parser, **decoding, labels=list(pipe.labels), deterministic=pipe.deterministic
    )


def _private_config(name: str, decoding: dict[str, Any], parser: dict, tok2vec: dict) -> dict[str, Any]:
    return {"@architectures": name, "parser": parser, **decoding}
