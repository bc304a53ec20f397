"""tok2vec-shaped layers that add to each word's vector what its heads in a tree or graph say.

They are equation 7 of the SPIGOT paper (Peng, Thomson and Smith, 2018) and its variant for graphs (section
4.2.1). Any component with a ``tok2vec`` can use them, and trains the parser upstream by doing so.
"""

from collections.abc import Sequence

from spacy import registry
from spacy.tokens import Doc
from thinc.api import Model, glorot_uniform_init
from thinc.types import Floats1d, Floats2d, Ints1d, Ints2d

from spacy_components.ml.listening.flat_words import FlatWords
from spacy_components.ml.listening.gradients import ArcGradient, GraphGradient
from spacy_components.ml.thinc_glue.tok2vec_width import initialize_tok2vec


@registry.architectures("diffdecode.HeadConcat.v1")
def build_head_concat(
    tok2vec: Model[list[Doc], list[Floats2d]], parse: Model[list[Doc], list[Ints1d]]
) -> Model[list[Doc], list[Floats2d]]:
    """A word's vector followed by that of its head: ``[h_j ; h_head(j)]``, zeros for the root (equation 7).

    Args:
        tok2vec: the vectors h. They belong to the end task, as in the paper; put a listener here to share
            them with other components.
        parse: the heads: ``diffdecode.ParseListener.v1``.

    Returns:
        The layer, twice as wide as ``tok2vec``.
    """
    width = tok2vec.maybe_get_dim("nO")
    model: Model = Model(
        "head_concat",
        _head_forward,
        init=initialize_concat,
        layers=[tok2vec, parse],
        dims={"nO": 2 * width if width else None},
    )
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("parse", parse)
    return model


def initialize_concat(model: Model, X: Sequence[Doc] | None = None, Y=None) -> None:
    """Initialize a layer that is twice as wide as its ``tok2vec``.

    Args:
        model: the layer, of a tok2vec and a listener.
        X: documents.
    """
    model.layers[1].initialize(X=X)
    width = initialize_tok2vec(model.layers[0], X, model.name)
    if model.has_dim("nO") is None:
        model.set_dim("nO", 2 * width)


def _head_forward(model: Model, docs: Sequence[Doc], is_train: bool):
    tok2vec, parse = model.layers
    vectors, backprop_tok2vec = tok2vec(docs, is_train)
    heads, backprop_parse = parse(docs, is_train)
    xp, words = model.ops.xp, FlatWords(model, vectors)
    head = words.positions(heads)
    has_head = (head >= 0)[:, None].astype("f")
    of_head = words.flat[head] * has_head

    def backprop(gradients: Sequence[Floats2d]):
        own, of_heads = words.columns(gradients, [words.flat.shape[1]] * 2)
        model.ops.scatter_add(own, xp.maximum(head, 0), of_heads * has_head)
        # The parse goes first: a shared tok2vec starts its own backward pass at the last listener's gradient,
        # and the parser's, which comes through here, has to be there by then.
        backprop_parse([ArcGradient(d, h) for d, h in zip(words.by_doc(of_heads), words.by_doc(words.flat))])
        return backprop_tok2vec(words.by_doc(own, like=vectors))

    return words.by_doc(xp.concatenate([words.flat, of_head], axis=1)), backprop


@registry.architectures("diffdecode.GraphConcat.v1")
def build_graph_concat(
    tok2vec: Model[list[Doc], list[Floats2d]],
    graph: Model[list[Doc], list[Ints2d]],
    role_width: int = 32,
    dependents: bool = False,
) -> Model[list[Doc], list[Floats2d]]:
    """A word's vector followed by the mean over its heads of their vectors and its roles (section 4.2.1).

    ``[h_j ; mean over arcs (i, j, l) of [h_i ; r_l]]`` with a vector ``r_l`` for each label; zeros for words
    without heads. With ``dependents``, the same follows of the arcs that leave the word, ``(j, c, l)``, and
    of the vectors ``h_c``.

    Args:
        tok2vec: the vectors h; see ``diffdecode.HeadConcat.v1``.
        graph: the arcs: ``diffdecode.GraphListener.v1``.
        role_width: size of the labels' vectors.
        dependents: whether a word sees its dependents, too.

    Returns:
        The layer, ``2 * nO + role_width`` wide, and with ``dependents`` by ``nO + role_width`` more.
    """
    width = tok2vec.maybe_get_dim("nO")
    directions = 2 if dependents else 1
    model: Model = Model(
        "graph_concat",
        _graph_forward,
        init=_graph_init,
        layers=[tok2vec, graph],
        params={"roles": None},
        dims={
            "nO": width + directions * (width + role_width) if width else None,
            "nL": None,
            "nR": role_width,
        },
        attrs={"directions": directions},
    )
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("graph", graph)
    return model


def _graph_init(model: Model, X=None, Y=None) -> None:
    graph = model.layers[1]
    graph.initialize(X=X)
    width = initialize_tok2vec(model.layers[0], X, model.name)
    labels = _labels(graph)
    if not labels:
        raise ValueError(
            "diffdecode.GraphConcat.v1: the labels of the graph are not known. Put the component upstream "
            "(spigot_sdp) earlier into the pipeline and initialize it, or give diffdecode.GraphListener.v1 "
            "the labels."
        )
    if model.has_dim("nO") is None:
        model.set_dim("nO", width + model.attrs["directions"] * (width + model.get_dim("nR")))
    if not model.has_param("roles"):
        model.set_dim("nL", len(labels))
        shape = (len(labels), model.get_dim("nR"))
        model.set_param("roles", glorot_uniform_init(model.ops, shape))


def _labels(graph: Model) -> list[str]:
    """The labels that a listener, or a private copy of a parser, delivers."""
    return next((node.attrs["labels"] for node in graph.walk() if node.attrs.get("labels")), [])


def _graph_forward(model: Model, docs: Sequence[Doc], is_train: bool):
    tok2vec, graph = model.layers
    vectors, backprop_tok2vec = tok2vec(docs, is_train)
    arcs, backprop_graph = graph(docs, is_train)
    xp, words, roles = model.ops.xp, FlatWords(model, vectors), model.get_param("roles")
    h = words.flat
    head, dependent = words.positions([a[:, 0] for a in arcs]), words.positions([a[:, 1] for a in arcs])
    label = xp.concatenate([a[:, 2] for a in arcs])
    ends = [(dependent, head), (head, dependent)][: model.attrs["directions"]]
    seen = [_Mean(model, to, of, label, h, roles) for to, of in ends]

    def backprop(gradients: Sequence[Floats2d]):
        own, *of_means = words.columns(gradients, [h.shape[1], *(mean.rows.shape[1] for mean in seen)])
        d_roles = model.ops.alloc2f(*roles.shape)
        for mean, gradient in zip(seen, of_means):
            mean.backprop(gradient, own, d_roles)
        model.inc_grad("roles", d_roles)
        per_head, labels, less = seen[0].factors(of_means[0], roles)
        factors = [per_head, h, labels, less]
        if len(seen) == 2:
            per_dependent, head_labels, less_of_head = seen[1].factors(of_means[1], roles)
            one = xp.ones_like(less_of_head[:, None])
            factors[0] = xp.concatenate([per_head, h, one], axis=1)
            factors[1] = xp.concatenate([h, per_dependent, -less_of_head[:, None]], axis=1)
            factors.append(head_labels)
        # The graph goes first, as the parse does in _head_forward.
        backprop_graph([GraphGradient(*parts) for parts in zip(*map(words.by_doc, factors))])
        return backprop_tok2vec(words.by_doc(own, like=vectors))

    return words.by_doc(xp.concatenate([h, *(mean.rows for mean in seen)], axis=1)), backprop


class _Mean:
    """To each word the mean, over the arcs that end in it on one side, of ``[h ; r]`` at their other end.

    Args:
        model: the layer, for its operations.
        to, of: ``[arcs]`` words: where an arc is seen, and its other end.
        label: ``[arcs]`` numbers, -1 for none.
        h: ``[T, w]``
        roles: ``[L, r]``
    """

    def __init__(self, model: Model, to: Ints1d, of: Ints1d, label: Ints1d, h: Floats2d, roles: Floats2d):
        self._ops, self._to, self._of, self._width = model.ops, to, of, h.shape[1]
        xp = model.ops.xp
        self._label, self._has_role = xp.maximum(label, 0), (label >= 0)[:, None].astype("f")
        of_arcs = xp.concatenate([h[of], roles[self._label] * self._has_role], axis=1)
        count = model.ops.alloc2f(len(h), 1)
        model.ops.scatter_add(count, to, xp.ones_like(of_arcs[:, :1]))
        self._count = xp.maximum(count, 1)
        self.rows = model.ops.alloc2f(len(h), of_arcs.shape[1])
        model.ops.scatter_add(self.rows, to, of_arcs)
        self.rows /= self._count  # [T, w + r]

    def backprop(self, gradient: Floats2d, d_h: Floats2d, d_roles: Floats2d) -> None:
        """Add the gradients on ``h`` and ``roles`` to ``d_h`` and ``d_roles``."""
        of_arcs = (gradient / self._count)[self._to]
        xp = self._ops.xp
        self._ops.scatter_add(d_h, self._of, xp.ascontiguousarray(of_arcs[:, : self._width]))
        self._ops.scatter_add(d_roles, self._label, of_arcs[:, self._width :] * self._has_role)

    def factors(self, gradient: Floats2d, roles: Floats2d) -> tuple[Floats2d, Floats2d, Floats1d]:
        """Gradient on one more arc to a word: ``[T, w]`` times ``h`` of its other end, plus ``[T, L]`` at its
        label, minus ``[T]`` as the others count less."""
        per_arc = gradient / self._count
        by_label = per_arc[:, self._width :] @ roles.T
        return per_arc[:, : self._width], by_label, (per_arc * self.rows).sum(axis=1)
