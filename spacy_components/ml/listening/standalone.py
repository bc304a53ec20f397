"""Private copies: what a listener becomes when ``nlp.replace_listeners`` makes a component independent."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from spacy import registry
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Ints2d

from diffdecode.structure import TreeKind
from spacy_components.ml.graphs.decisions import GraphDecoder
from spacy_components.ml.listening.mailbox import SOFT_LISTENER
from spacy_components.ml.thinc_glue.finite import culprit_named
from spacy_components.ml.trees.decisions import TreeDecision, TreeDecoder
from spacy_components.ml.trees.models import DocScores
from spacy_components.settings import SpigotParserSettings, SpigotSdpSettings, as_config, takes_settings

PARSE = ("projective", "multi_root", "surrogate", "grad_factor")
GRAPH = ("surrogate", "grad_factor")
"""The settings of a component that a private copy of it has."""


@registry.architectures("diffdecode.StandaloneParse.v1")
@takes_settings(SpigotParserSettings, PARSE, default=None)
def build_standalone_parse(
    parser: Model[list[Doc], DocScores], soft: bool = False, temperature: float = 1.0, **settings: Any
) -> Model[list[Doc], list[Any]]:
    """A parser inside another component's model, in the place of ``diffdecode.ParseListener.v1``.

    It parses the documents itself, in training as in prediction, and only that component trains it. Sentence
    starts that they have are kept: after a parser, probabilities are those given the sentences it has found.

    Args:
        parser: the parser's model.
        soft: whether it is in the place of ``diffdecode.SoftParseListener.v1``, and gives probabilities.
            It is saved with the model, as is the next one.
        temperature: what the scores are then divided by.
        **settings: those of ``spigot_parser``; null for its default.

    Returns:
        The layer.
    """
    made = SpigotParserSettings.made("diffdecode.StandaloneParse.v1", settings)
    trees = TreeKind(projective=made.projective, multi_root=made.multi_root)
    decoder = TreeDecoder(trees, made.surrogate, made.grad_factor)
    model = _standalone("standalone_parse", parser, {"soft": soft, "temperature": temperature})
    model.attrs["decide"] = partial(_decide_trees, decoder, model.attrs)
    return model


def _decide_trees(decoder: TreeDecoder, attrs: dict[str, Any], scores: DocScores) -> TreeDecision:
    return decoder.decide_softly(scores, attrs["temperature"]) if attrs["soft"] else decoder.decide(scores)


@registry.architectures("diffdecode.StandaloneGraph.v1")
@takes_settings(SpigotSdpSettings, GRAPH, default=None)
def build_standalone_graph(
    parser: Model[list[Doc], DocScores],
    labels: list[str] = [],  # noqa: B006
    deterministic: list[int] = [],  # noqa: B006
    **settings: Any,
) -> Model[list[Doc], list[Ints2d]]:
    """A semantic parser inside another component's model, in the place of ``diffdecode.GraphListener.v1``.

    It parses the documents itself, in training as in prediction, and only that component trains it.

    Args:
        parser: the parser's model.
        labels: its labels; saved with the model, as are the next ones.
        deterministic: numbers of its deterministic labels.
        **settings: those of ``spigot_sdp``; null for its default.

    Returns:
        The layer.
    """
    made = SpigotSdpSettings.made("diffdecode.StandaloneGraph.v1", settings)
    decoder = GraphDecoder(made.surrogate, made.grad_factor)
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


def replaced_parse_listener(settings: SpigotParserSettings) -> dict[str, Any]:
    """Attributes that tell ``nlp.replace_listeners`` what a parser's listener is to be replaced with.

    Args:
        settings: the parser's.

    Returns:
        Attributes for the parser's model.
    """
    decoding = {name: getattr(settings, name) for name in PARSE}
    return {
        "replace_listener": partial(_private_parse, decoding),
        "replace_listener_cfg": partial(_private_parse_config, decoding),
    }


def replaced_graph_listener(settings: SpigotSdpSettings) -> dict[str, Any]:
    """The same for a semantic parser.

    Args:
        settings: the parser's.

    Returns:
        Attributes for the parser's model.
    """
    decoding = {name: getattr(settings, name) for name in GRAPH}
    return {
        "replace_listener": partial(_private_graph, decoding),
        "replace_listener_cfg": partial(_private_config, "diffdecode.StandaloneGraph.v1", decoding),
    }


# spaCy calls these with exactly three and two arguments.


def _private_parse(decoding: dict[str, Any], parser: Model, listener: Model, pipe: Any) -> Model:
    soft = listener.attrs["mailbox"].soft
    return build_standalone_parse(parser, soft=soft, temperature=pipe.temperature, **decoding)


def _private_parse_config(decoding: dict[str, Any], parser: dict, tok2vec: dict) -> dict[str, Any]:
    config = _private_config("diffdecode.StandaloneParse.v1", decoding, parser, tok2vec)
    return {**config, "soft": tok2vec.get("parse", {}).get("@architectures") == SOFT_LISTENER}


def _private_graph(decoding: dict[str, Any], parser: Model, listener: Model, pipe: Any) -> Model:
    return build_standalone_graph(
        parser, **decoding, labels=list(pipe.labels), deterministic=pipe.deterministic
    )


def _private_config(name: str, decoding: dict[str, Any], parser: dict, tok2vec: dict) -> dict[str, Any]:
    return {"@architectures": name, "parser": parser, **as_config(decoding)}
